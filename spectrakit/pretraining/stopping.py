"""Train until labels that were not trained on are predicted no better, and widen sigmas until they cover them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


def descend(module: nn.Module, trained: Sequence[nn.Parameter], draw: Callable[[], Tensor], unseen: Callable[[], float], optimizer, steps: int,
            checks: int) -> tuple[list[float], int]:
    """Minimise ``draw()`` in place and go back to the check where ``unseen()`` was least; its values from step 0 on, and the step that was kept."""
    every, rate = max(1, steps // checks), optimizer.param_groups[0]["lr"]
    measure = torch.no_grad()(unseen)
    history, kept, best = [measure()], 0, [p.detach().clone() for p in trained]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1, steps // 10)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        gradients = torch.autograd.grad(draw(), trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            history.append(measure())
            if history[-1] < min(history[:-1]):
                kept, best = step + 1, [p.detach().clone() for p in trained]
    with torch.no_grad():
        for parameter, value in zip(trained, best, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    module.eval()
    return history, kept


def stretch(residual: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], level: float = 0.6827) -> float:
    """What to multiply ``sigma`` by so that ``level`` of new residuals lie inside: of |residual| / sigma the one of rank ceil(level (n + 1)), or the largest."""
    ratio = np.sort(np.abs(residual) / sigma)
    return float(ratio[min(len(ratio), math.ceil(level * (len(ratio) + 1))) - 1])
