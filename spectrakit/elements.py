"""Which element makes which line: how the flux of reference stars answers to one abundance at a time."""

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
    """Differences of computed spectra (PySME 1.2, LTE), each with one abundance raised by 0.2 dex and the photosphere kept.

    Attributes
    ----------
    wave : (n_pix,) vacuum Angstrom: the pixels of the library of the same name, at its resolution.
    labels : (m, 5) teff (K), logg, feh, alpha_fe, c_fe (dex) of the reference stars.
    flux : (m, n_pix) flux over continuum of the stars as they are.
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
            raise LabelError(f"No response to {name!r}; computed are {', '.join(self.names)}. Ask for one of these.")
        return self.response[:, self.names.index(name)]

    def star(self, teff: float | int, logg: float | int, feh: float | int) -> int:
        """The row of the reference star with these labels.

        Raises
        ------
        LabelError
            There is none; the message lists those that there are.
        """
        found = np.flatnonzero((np.abs(self.labels[:, :3] - [teff, logg, feh]) < [1.0, 0.01, 0.01]).all(1))
        if len(found) != 1:
            stars = "; ".join(f"{t:.0f} {g:.2f} {m:+.1f}" for t, g, m in self.labels[:, :3])
            raise LabelError(f"No reference star has teff {teff}, logg {logg}, feh {feh}; those computed (teff logg feh): {stars}. Ask for one of these.")
        return int(found[0])


@cache
def load_elements(name: str = "optical") -> Elements:
    """The responses shipped with the package, ``"optical"`` or ``"hband"``.

    Raises
    ------
    DataFileError
        Another name, or a damaged file.
    """
    tensors, meta = load_tensors(files("spectrakit") / "assets" / f"elements_{name}.safetensors")
    wave = torch.exp(meta["ln_wave_start"] + meta["ln_wave_step"] * torch.arange(tensors["flux"].shape[1], dtype=torch.float64))
    response = tensors["response"].float() * tensors["response_step"][..., None]
    return Elements(wave, tensors["labels"].double().numpy(), tensors["flux"].float() * meta["flux_step"], tuple(meta["elements"]), response)
