"""Spectra as tokens: pixels, or means over neighbouring ones, with their error, wavelength and resolving power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..line_spread import FWHM
from .tokens import PADDING, Tokens

FLUX = 1                                             # identity of a flux; labels follow


@dataclass(frozen=True, eq=False)
class Bins:
    """Means over ``width`` neighbouring pixels of spectra on one grid; under ``mask`` (True = unusable) flux and error are 0."""

    flux: Float[Tensor, "n n_bin"]
    error: Float[Tensor, "n n_bin"]
    mask: Bool[Tensor, "n n_bin"]
    wave: Float[Tensor, " n_bin"]
    resolution: Float[Tensor, " n_bin"]
    width: int

    def tokens(self, chosen: Int[Tensor, "n n_tok"] | None = None) -> Tokens:
        """All bins as tokens, or those ``chosen`` for each star; unusable ones are padding."""
        chosen = torch.arange(self.wave.numel()).expand(len(self.flux), -1) if chosen is None else chosen
        usable = ~self.mask.gather(1, chosen)
        value, error = (part.gather(1, chosen) for part in (self.flux, self.error))
        wave, resolution = (torch.where(usable, part[chosen], 0.0) for part in (self.wave, self.resolution))
        return Tokens(torch.where(usable, FLUX, PADDING), value, error, wave, resolution)


def bin_pixels(wave: Float[np.ndarray, " n_pix"], resolution: Float[np.ndarray, " n_pix"], flux: Float[Tensor, "n n_pix"], error: Float[Tensor, "n n_pix"],
               mask: Bool[Tensor, "n n_pix"], width: int) -> Bins:
    """Plain means over each ``width`` pixels, from the first on; the last bin may hold fewer.

    A bin is unusable when more than half of its pixels are; the others' mean is taken otherwise. Its error is that of a mean of independent pixels.
    Its line spread is the pixels' and the bin's own, added in squares: a box has the variance of its width squared / 12.
    """
    n, n_pix = flux.shape
    n_bin = -(-n_pix // width)
    spare = n_bin * width - n_pix
    fold = lambda part, fill: torch.nn.functional.pad(part, (0, spare), value=fill).view(n, n_bin, width)                   # noqa: E731
    good = ~fold(mask, True)
    count = good.sum(2)
    size = torch.full((n_bin,), float(width))
    size[-1] = width - spare
    bad = count < size / 2
    total, variance = (torch.where(good, fold(part, 0.0), 0.0).sum(2) for part in (flux, error.square()))
    share = torch.where(bad, 0.0, 1.0 / count.clamp(min=1))
    edges = np.arange(0, n_pix, width)
    pixels = np.diff(np.append(edges, n_pix))
    centre = np.add.reduceat(wave, edges) / pixels
    box = FWHM * pixels * np.add.reduceat(np.gradient(wave), edges) / pixels / np.sqrt(12)
    own = centre / (np.add.reduceat(resolution, edges) / pixels)
    sharp = centre / np.sqrt(own**2 + np.where(pixels > 1, box, 0) ** 2)
    return Bins(total * share, variance.sqrt() * share, bad, torch.as_tensor(centre, dtype=torch.float32), torch.as_tensor(sharp, dtype=torch.float32),
                width)
