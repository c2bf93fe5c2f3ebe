"""spectrakit: teaching and analysis with foundation models of stellar spectra.

>>> import spectrakit as sk
>>> stars = sk.simulate("lamost_lrs", n=1000, seed=0)
>>> model = sk.load_model("small")
>>> fit = sk.adapt(model, train, validation=valid, label="feh", placement=("lora1", "lora2"), seed=0)
>>> value, sigma = fit.predict(test)
"""

from importlib import import_module

_NAMES = {
    "SpectraSet": "spectra", "concatenate": "spectra", "simulate": "simulation", "catalogue": "population", "normalize": "continuum", "coverage": "continuum",
    "degrade": "resolution",
    "read": "readers", "load_library": "library", "load_model": "models.shipped", "FoundationModel": "models.foundation", "AlignedModel": "models.aligned",
    "adapt": "adaptation.fit", "adapt_unlabelled": "adaptation.unlabelled", "load_fit": "adaptation.files", "Placement": "adaptation.placements",
    "Pairs": "pairs", "simulate_pairs": "pairs", "cite": "manifests", "fetch": "readers.fetch",
    "report": "reporting",
}
_MODULES = ("metrics", "plots", "surveys", "experiments", "retrieval", "translation", "binaries", "crossmatch", "store", "multimodal", "manifests",
            "objects", "novelty", "widgets")
__all__ = [*_NAMES, *_MODULES]


def __getattr__(name: str):
    """Public names are imported when they are first used: ``import spectrakit`` itself costs next to nothing."""
    if name in _NAMES:
        value = getattr(import_module(f".{_NAMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"spectrakit has no {name!r}; it has: {', '.join(__all__)}.")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
