"""Widgets of the notebooks. They wire functions that a script can call, and each has a static twin that does without ipywidgets.

>>> lab = sk.widgets.LoraLab(fits, test, train)
>>> sk.widgets.lora_figure(fits["spectrum"], test, on=("lora2",), rank={"lora2": 3})
"""

from .lora_figure import lora_figure

__all__ = ["LoraLab", "lora_figure"]


def __getattr__(name: str):
    """The figures are there without ipywidgets; what wants it is imported when it is first used."""
    if name != "LoraLab":
        raise AttributeError(f"spectrakit.widgets has no {name!r}; it has: {', '.join(__all__)}.")
    try:
        from .lora_lab import LoraLab
    except ModuleNotFoundError as error:
        raise ImportError("LoraLab needs ipywidgets: pip install 'spectrakit[notebooks]'. Its figure does not: spectrakit.widgets.lora_figure.") from error
    return LoraLab
