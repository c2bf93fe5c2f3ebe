"""What a foundation model has to beat with few labels: a perceptron on the pixels, trained from nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ScratchNetwork(nn.Module):
    """The network that Koblischke & Bovy 2024 (arXiv:2411.04750) compare SpectraFM with: 512 fluxes -> mean and ln variance of one label.

    4,987,138 parameters. Its loss is ``request_transformer.gaussian_loss``.
    """

    def __init__(self, n_pix: int = 512, hidden: Sequence[int] = (2048, 1280, 1024), dropout: float = 0.1, *, seed: int):
        super().__init__()
        sizes = (n_pix, *hidden)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
            self.mean, self.log_variance = nn.Linear(sizes[-1], 1), nn.Linear(sizes[-1], 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, flux: Float[Tensor, "n n_pix"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Flux minus its mean over the training stars in, standardised label out; dropout after the first two layers."""
        for i, layer in enumerate(self.linears):
            flux = torch.relu(layer(flux))
            flux = self.dropout(flux) if i < 2 else flux
        return self.mean(flux)[:, 0], self.log_variance(flux)[:, 0]
