"""The network from scratch that stands beside a fine-tuned SpectraFM: the same few labels, the same rules."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..continuum import fill_masked
from ..models.request_transformer import gaussian_loss
from ..models.scratch import ScratchNetwork
from ..spectra import SpectraSet
from .stopping import descend, stretch


@dataclass(frozen=True, eq=False)
class Scratch:
    """A trained ``ScratchNetwork`` with what its inputs and answers are measured in; a masked pixel is bridged by its neighbours."""

    network: ScratchNetwork
    centre: Float[np.ndarray, " n_pix"]
    unit: tuple[float, float]
    stretch: float
    steps: int

    @torch.no_grad()
    def predict(self, stars: SpectraSet) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` in the label's unit, of spectra on the grid it was trained on."""
        mean, log_variance = self.network.eval()(_inputs(stars, self.centre))
        return (mean.double() * self.unit[1] + self.unit[0]).numpy(), ((0.5 * log_variance).exp().double() * self.unit[1] * self.stretch).numpy()


def train_scratch(stars: SpectraSet, validation: SpectraSet, label: str, error: float | int, *, steps: int = 200, lr: float = 1e-4, seed: int, batch: int = 64,
                  checks: int = 40) -> Scratch:
    """The published network from nothing: Adam, the same loss, and the same rules for stopping and for sigmas as ``finetune``; raises ``LabelError`` as it does."""
    y = stars.label(label)
    unit, centre = (float(y.mean()), float(y.std())), fill_masked(stars).mean(0)
    network, generator = ScratchNetwork(stars.wave.size, seed=seed), torch.Generator().manual_seed(seed)
    (x, target), held = ((_inputs(s, centre), torch.as_tensor((s.label(label) - unit[0]) / unit[1], dtype=torch.float32)) for s in (stars, validation))

    def loss(x, target) -> Float[Tensor, ""]:
        return gaussian_loss(target, *network(x), torch.full_like(target, error / unit[1])).mean()

    def draw() -> Float[Tensor, ""]:
        rows = torch.randperm(len(x), generator=generator)[:batch]
        network.train()                                               # dropout belongs to it
        return loss(x[rows], target[rows])

    def unseen() -> float:
        network.eval()
        return loss(*held).item()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, kept = descend(network, list(network.parameters()), draw, unseen, torch.optim.Adam(network.parameters(), lr), steps, checks)
    made = Scratch(network, centre, unit, 1.0, kept)
    value, sigma = made.predict(validation)
    return replace(made, stretch=stretch(value - validation.label(label), sigma))


def _inputs(stars: SpectraSet, centre: Float[np.ndarray, " n_pix"]) -> Float[Tensor, "n n_pix"]:
    return torch.as_tensor(fill_masked(stars) - centre, dtype=torch.float32)
