"""Computed models that no emulator was fitted to: the stars on which what was learned from the emulator is tested."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from .weights import load_tensors


@dataclass(frozen=True, eq=False)
class HeldOut:
    """index : (n,) number of each model in the sequence of computed models.
    labels : (n, 5) teff (K), logg, feh, alpha_fe, c_fe (dex).
    opacity : (n, n_pix) -ln(flux / continuum) on the library's grid, at its resolution.
    library_sha256 : of the library these were left out of.
    """

    index: Int[np.ndarray, " n"]
    labels: Float[np.ndarray, "n 5"]
    opacity: Float[Tensor, "n n_pix"]
    library_sha256: str


@cache
def load_held_out(name: str = "optical") -> HeldOut:
    """The held-out models of a library: every tenth that was computed."""
    tensors, meta = load_tensors(files("spectrakit") / "assets" / f"held_out_{name}.safetensors")
    opacity = (tensors["root_opacity"].float() * meta["step"]).square()
    return HeldOut(tensors["index"].numpy(), tensors["labels"].double().numpy(), opacity, meta["library_sha256"])
