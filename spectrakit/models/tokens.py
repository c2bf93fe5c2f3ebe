"""A token is a number and what it is: an identity (a colour, a label, a flux), its value, and for a flux also where in the spectrum and how sharp.

FAQ
---
*Why not a word embedding?* A value is a real number. The identity has a direction and an offset, and the token is ``gelu(direction * value + offset)``:
each of its ``d_model`` numbers bends at a value of its own, so that a linear layer behind it can draw any curve of the value.
*What is a request?* The direction alone, without a value: what is wanted, not how much of it there is.
*How do pixels differ?* All share one identity; wavelength, resolving power and error are written in as sines and cosines of many periods, without
parameters. (The published model gives each of its 7,514 pixels rows of its own in both tables, and never reads them: 3.8 million dead parameters.)
*What does ``turned`` change?* As published, the wavelength is added to the finished token, so only later layers can tell a low flux in a line from one
elsewhere. Turned, the direction is first multiplied by the sines and cosines: the token itself is then flux times a wave in wavelength. It learns a
little faster (loss of labels after 150 steps of a small model: 1.16 against 1.20; one seed).
*How do the tables start?* Normal with a scatter of 1. The published start, Xavier's, is a tenth of that: values are then drowned by wavelengths, and a
small model's loss after 150 steps is 1.43.

Sources: Leung & Bovy 2024 (MNRAS 527, 1494); Koblischke & Bovy 2024, SpectraFM (arXiv:2411.04750).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

PADDING = 0                                          # identity of a place without a token
PERIODS = {"wave": (5e-4, 4.0), "resolution": (1.0, 16.0), "error": (1.0, 16.0)}      # shortest and longest, in ln: 8 A in the H band, 2 A at 4500 A


class Tokens(NamedTuple):
    """``n`` sets of tokens, filled up with padding; of a request, ``value`` and ``error`` are the answer to be learned, and not read otherwise.

    identity : 0 padding, 1 ... the vocabulary.
    value, error : in the identity's own unit; error 0 = not known.
    wave, resolution : Angstrom in vacuum, wave / FWHM; 0 where the token is no flux. None where the vocabulary has no fluxes.
    """

    identity: Int[Tensor, "n n_tok"]
    value: Float[Tensor, "n n_tok"]
    error: Float[Tensor, "n n_tok"]
    wave: Float[Tensor, "n n_tok"] | None = None
    resolution: Float[Tensor, "n n_tok"] | None = None

    def to(self, device: torch.device) -> Tokens:
        """The same on another device."""
        return Tokens(*(None if part is None else part.to(device) for part in self))

    def rows(self, chosen) -> Tokens:
        """Some of the sets: slice, index or boolean tensor."""
        return Tokens(*(None if part is None else part[chosen] for part in self))


def join(*parts: Tokens) -> Tokens:
    """The tokens of the same stars one after the other."""
    return Tokens(*(None if group[0] is None else torch.cat(group, 1) for group in zip(*parts, strict=True)))


def sinusoids(x: Float[Tensor, "n n_tok"], periods: tuple[float, float], size: int) -> Float[Tensor, "n n_tok size"]:
    """``size`` / 2 sines, then as many cosines of ``x``, with periods in equal ratios from the first to the second."""
    period = torch.logspace(math.log10(periods[0]), math.log10(periods[1]), size // 2, dtype=torch.float64, device=x.device)
    phase = (x.double()[..., None] * (2 * math.pi / period)).remainder(2 * math.pi).float()     # ln(wave) / 5e-4 is a large number for 32 bits
    return torch.cat([phase.sin(), phase.cos()], -1)


class TokenEmbedding(nn.Module):
    """Tokens (n, n_tok) -> (n, n_tok, d_model), as context or as requests.

    Parameters
    ----------
    n_identity : size of the vocabulary, without padding.
    waves : whether there are fluxes: three quarters of ``d_model`` then encode the wavelength, an eighth each resolving power and error.
    turned : multiply a flux's direction by its wavelength's sines and cosines; see above.
    """

    def __init__(self, n_identity: int, d_model: int, waves: bool, turned: bool):
        super().__init__()
        self.direction, self.offset = (nn.Embedding(n_identity + 1, d_model, padding_idx=PADDING) for _ in range(2))
        self.waves, self.turned = waves, turned

    def forward(self, tokens: Tokens) -> Float[Tensor, "n n_tok d_model"]:
        """The context: gelu(direction * value + offset), then where and how sharp."""
        direction = self.direction(tokens.identity)
        if not self.waves:
            return F.gelu(direction * tokens.value[..., None] + self.offset(tokens.identity))
        place, flux = self._place(tokens), (tokens.wave > 0)[..., None]
        if self.turned:
            wave = sinusoids(tokens.wave.clamp(min=1.0).log(), PERIODS["wave"], direction.shape[-1])
            direction = direction * torch.where(flux, math.sqrt(2) * wave, 1.0)
        return F.gelu(direction * tokens.value[..., None] + self.offset(tokens.identity)) + place

    def request(self, tokens: Tokens) -> Float[Tensor, "n n_tok d_model"]:
        """The direction alone, and for a flux where and how sharp; neither value nor error is read."""
        if not self.waves:
            return self.direction(tokens.identity)
        return self.direction(tokens.identity) + self._place(tokens._replace(error=torch.zeros_like(tokens.value)))

    def _place(self, tokens: Tokens) -> Float[Tensor, "n n_tok d_model"]:
        """Sines and cosines of ln wavelength, ln resolving power, ln error; 0 where the token is no flux, or the error not known."""
        d = self.direction.embedding_dim
        parts = [(tokens.wave, "wave", d - 2 * (d // 8)), (tokens.resolution, "resolution", d // 8), (tokens.error, "error", d // 8)]
        flux = (tokens.wave > 0)[..., None]
        encoded = [sinusoids(torch.where(x > 0, x, 1.0).log(), PERIODS[name], size) * (x > 0)[..., None] for x, name, size in parts]
        return torch.cat(encoded, -1) * flux
