"""The autoencoder of SpecCLIP for Gaia XP spectra: 343 fluxes in, a latent vector, the same fluxes out. The whole model is on this page.

A low-resolution spectrum has no lines to mask: nothing is hidden here, the narrow middle alone makes the network choose what to keep.

FAQ
---
*Why are mean and standard deviation among the inputs?* They are what standardising takes away: the spectrum's colour and the depth of its bands.
They weigh as much in the loss as one pixel each.
*Why is there no residual connection?* There is none in SpecCLIP (Zhao et al. 2026, arXiv:2507.01939). Its twin for LRS spectra is not built here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import SpectrumError


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of one autoencoder; saved as JSON beside its weights."""

    n_pix: int = 343
    d_hidden: int = 1290
    widening: int = 3                # inside a block
    n_block: int = 2                 # on each side of the latent
    d_latent: int = 768


PRESETS = {
    "paper": AutoencoderConfig(),
    "small": AutoencoderConfig(d_hidden=192, d_latent=32),
    "tiny": AutoencoderConfig(d_hidden=32, widening=2, n_block=1, d_latent=8),
}


class Block(nn.Module):
    """down(gelu(up(norm(x)))), without a residual."""

    def __init__(self, d: int, widening: int):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, widening * d), nn.Linear(widening * d, d)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return self.down(F.gelu(self.up(self.norm(x))))


class XPAutoencoder(nn.Module):
    """Flux over its value at 550 nm (n, n_pix) -> latent (n, d_latent) -> flux.

    Parameters
    ----------
    config : sizes; ``PRESETS`` has ``paper`` (42,846,129 parameters), ``small`` and ``tiny``.
    seed : of the initial weights (normal, variance 2 / fan_in, as published).
    """

    def __init__(self, config: AutoencoderConfig, seed: int):
        super().__init__()
        self.config = config
        c, width = config, config.n_pix + 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.enter, self.leave = nn.Linear(width, c.d_hidden), nn.Linear(c.d_hidden, width)
            self.encoder = nn.Sequential(*(Block(c.d_hidden, c.widening) for _ in range(c.n_block)))
            self.down, self.norm, self.up = nn.Linear(c.d_hidden, c.d_latent), nn.LayerNorm(c.d_latent), nn.Linear(c.d_latent, c.d_hidden)
            self.decoder = nn.Sequential(*(Block(c.d_hidden, c.widening) for _ in range(c.n_block)))
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)

    def standardize(self, flux: Float[Tensor, "n n_pix"]) -> Float[Tensor, "n width"]:
        """(mean, std, n_pix standardised fluxes), the standard deviation with n_pix - 1 as published.

        Raises
        ------
        SpectrumError
            Wrong number of pixels, NaN, or a constant spectrum, whose standardised flux would be 0 / 0.
        """
        if flux.shape[1] != self.config.n_pix:
            raise SpectrumError(f"{flux.shape[1]} pixels given; this model reads {self.config.n_pix}, 336-1020 nm in steps of 2 nm. Interpolate to them.")
        if not torch.isfinite(flux).all():
            raise SpectrumError("The flux holds NaN or infinite values; this model has no mask. Leave the spectrum out, or fill the gap.")
        std, mean = torch.std_mean(flux, dim=1, keepdim=True)
        if (std < 1e-5).any():
            raise SpectrumError("A spectrum is constant; there is nothing in it to encode. Leave it out.")
        return torch.cat([mean, std, (flux - mean) / std], 1)

    def encode(self, flux: Float[Tensor, "n n_pix"]) -> Float[Tensor, "n d_latent"]:
        """The latent vector, the embedding used downstream."""
        return self._encode(self.standardize(flux))

    def _encode(self, numbers):
        return self.norm(self.down(self.encoder(self.enter(numbers))))

    def decode(self, latent: Float[Tensor, "n d_latent"]) -> Float[Tensor, "n width"]:
        """Mean, standard deviation and standardised fluxes, as the network restores them."""
        return self.leave(self.decoder(self.up(latent)))

    def reconstruct(self, flux: Float[Tensor, "n n_pix"]) -> Float[Tensor, "n n_pix"]:
        """The flux as it comes back, with the restored mean and standard deviation."""
        numbers = self.decode(self.encode(flux))
        return numbers[:, 2:] * numbers[:, 1:2] + numbers[:, :1]

    def forward(self, flux: Float[Tensor, "n n_pix"]) -> dict[str, Tensor]:
        """The loss to train with, ``{"restore": mean squared error of all n_pix + 2 numbers}``."""
        numbers = self.standardize(flux)
        return {"restore": (self.decode(self._encode(numbers)) - numbers).square().mean()}
