"""Which element makes which line: how the flux of reference stars answers to one element at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .errors import LabelError
from .weights import load_tensors


@dataclass(frozen=True, eq=False)
class Elements:
    """Differences of computed spectra, each with one abundance raised by 0.2 dex and the photosphere kept.

    Attributes
    ----------
    wave : (n_pix,) vacuum Angstrom, the grid of the library of the same name, at its resolution.
    labels : (m, 5) teff (K), logg, feh, alpha_fe, c_fe (dex) of the reference stars.
    flux : (m, n_pix) flux over continuum as they are.
    names : the elements, by symbol.
    response : (m, n_elements, n_pix) d flux / d [X/H], per dex.
    """

    wave: Float[Tensor, " n_pix"]
    labels: Float[np.ndarray, "m 5"]
    flux: Float[Tensor, "m n_pix"]
    names: tuple[str, ...]
    response: Float[Tensor, "m n_elements n_pix"]

    def of(self, name: str) -> Float[Tensor, "m n_pix"]:
        """The response to one element.

        Raises
        ------
        LabelError
            The element was not computed; the message lists those that were.
        """
        if name not in self.names:
            raise LabelError(f"No response to {name!r}; computed are {', '.join(self.names)}.")
        return self.response[:, self.names.index(name)]


@cache
def load_elements(name: str = "optical") -> Elements:
    """Responses shipped with the package, ``"optical"`` or ``"hband"``: twenty stars from 4300 to 6300 K, [Fe/H] 0 to -2."""
    tensors, meta = load_tensors(files("spectrakit") / "assets" / f"elements_{name}.safetensors")
    n_pix = tensors["flux"].shape[1]
    wave = torch.exp(meta["ln_wave_start"] + meta["ln_wave_step"] * torch.arange(n_pix, dtype=torch.float64))
    response = tensors["response"].float() * tensors["response_step"][..., None]
    return Elements(wave, tensors["labels"].double().numpy(), tensors["flux"].float() / 32767, tuple(meta["elements"]), response)
