"""The models that come with the package, by name."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.resources import files

from ..errors import MismatchError
from .aligned import AlignedModel
from .foundation import FoundationModel
from .spectra_fm import SpectraFM
from .star_transformer import StarTransformer

ASSETS = files("spectrakit") / "assets"
SHIPPED = {"small": FoundationModel, "tiny": FoundationModel, "small_flux": FoundationModel, "small_aligned": AlignedModel, "tiny_aligned": AlignedModel,
           "small_spectrafm": SpectraFM, "small_stars": StarTransformer}


def load_model(name: str) -> FoundationModel | AlignedModel | SpectraFM | StarTransformer:
    """A shipped model, offline; each call gives an independent copy.

    ``"small"`` and ``"tiny"`` read spectra of the optical window, ``"small_flux"`` too, without an encoder;
    ``"small_aligned"`` and ``"tiny_aligned"`` hold the same encoder and one for Gaia XP. ``"small_spectrafm"`` reads spectra of the optical window and the
    H band and answers requests; ``"small_stars"`` takes any observables of a star for any others.

    Raises
    ------
    MismatchError
        There is no such model.
    """
    return deepcopy(_shipped(name))


@cache
def _shipped(name: str):
    if name not in SHIPPED:
        raise MismatchError(f"No shipped model {name!r}; there are: {', '.join(SHIPPED)}. A file of your own: FoundationModel.load(path), and so on.")
    return SHIPPED[name].load(ASSETS / f"{name}.safetensors")
