"""No encoder: the flux itself stands where an embedding would. A model on it is a plain perceptron, to compare foundation models with.

Source: Zhao et al. 2026 (arXiv:2602.15021), whose perceptrons on LAMOST fluxes have 2,059,009 parameters a label (``LabelHead``).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class PixelsConfig:
    """Sizes, as ``TransformerConfig`` has them: the embedding is as wide as the spectrum."""

    n_pix: int = 1462

    @property
    def d_model(self) -> int:
        return self.n_pix


class Pixels(nn.Module):
    """Flux (n, n_pix) -> the same; bad pixels have been bridged before (``continuum.fill_masked``)."""

    def __init__(self, config: PixelsConfig):
        super().__init__()
        self.config = config

    def forward(self, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None) -> Float[Tensor, "n n_pix"]:
        return flux
