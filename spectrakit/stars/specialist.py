"""The network that does one task and no other: what a model for all tasks has to be measured by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ..models.request_transformer import FLOOR, gaussian_loss
from ..threads import one_thread
from ..training import TrainConfig, learning_rate
from .rivals import FixedSet


class Specialist(FixedSet):
    """Inputs and which of them are there -> 256, 256, 128 -> mean and ln variance of every output. Trained with the loss of the Transformer for stars, which
    takes the labels' errors out of sigma, AdamW and a cosine; nothing was tuned. A missing input is at the training median; one beyond 10 scatters at 10."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], seed: int = 0, steps: int = 6000, batch: int = 512):
        super().__init__(inputs, outputs, seed)
        self.steps, self.batch = steps, batch

    def _learn(self, x, y, error, rng):
        x, y, error = _with_gaps(x), torch.as_tensor(y, dtype=torch.float32), torch.as_tensor(error, dtype=torch.float32)
        config = TrainConfig(self.steps, 1e-3, self.seed, warmup=min(200, self.steps // 10))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sizes = (x.shape[1], 256, 256, 128)
            hidden = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.GELU())]
            self._network = nn.Sequential(*hidden, nn.Linear(sizes[-1], 2 * y.shape[1]))
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        with one_thread():
            for step in range(self.steps):
                rows = torch.as_tensor(rng.integers(len(x), size=self.batch))
                optimizer.param_groups[0]["lr"] = learning_rate(config, step)
                optimizer.zero_grad()
                mean, log_variance = self._read(x[rows])
                gaussian_loss(y[rows], mean, log_variance, error[rows]).mean().backward()
                nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
                optimizer.step()

    def _read(self, x):
        mean, log_variance = self._network(x).chunk(2, 1)
        return mean, torch.logaddexp(log_variance, torch.full_like(log_variance, float(np.log(FLOOR))))

    @torch.no_grad()
    def _answer(self, x):
        mean, log_variance = self._read(_with_gaps(x))
        return mean.double().numpy(), (0.5 * log_variance).exp().double().numpy()


def _with_gaps(x):
    gone = ~np.isfinite(x)
    return torch.as_tensor(np.concatenate([np.where(gone, 0.0, x).clip(-10, 10), gone], 1), dtype=torch.float32)
