"""Cross-fitted members: each is trained on four fifths of the stars, and all stop where labels they did not see begin to be missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from ..spectra import SpectraSet
from ..threads import at_a_time, one_thread
from .adapters import label_network, load, state, trainable

N_MEMBERS, BATCH, N_CHECKS = 5, 16, 15


@dataclass(frozen=True, eq=False)
class Data:
    """What the first trained ``stage`` takes, of training and then validation stars, and their labels.

    ``weights`` are of the training stars in the loss. ``rehearsal`` are inputs and labels of further stars that all members learn from and none is judged by.
    """

    inputs: tuple[Tensor, ...]
    stage: int
    y: Float[Tensor, " n"]
    n_valid: int
    weights: Float[Tensor, " m"] | None = None
    rehearsal: tuple[tuple[Tensor, ...], Float[Tensor, " k"]] | None = None


def folds(train: SpectraSet, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """The member that leaves each star out; all spectra of a star together."""
    star = np.asarray(train.labels["star"]) if "star" in train.labels.colnames else np.arange(len(train))
    names, inverse = np.unique(star, return_inverse=True)
    return (rng.permutation(len(names)) % N_MEMBERS)[inverse]


def train_members(network: nn.Module, data: Data, left_out: Int[np.ndarray, " n"], steps: int, lr: float, seed: int, tick: Callable[[], object]) -> list:
    """``(states, predictions)`` of each member at every check, from step 0 on; all start from the same weights. ``tick`` is called after each step.

    The network stays in evaluation mode: dropout in parts that are frozen would make them another network in training than in use.
    """
    start, members = state(network), []
    network.eval()
    with one_thread() if data.stage == 2 else nullcontext():
        for k in range(N_MEMBERS):
            load(network, start)
            members.append(_train(network, data, left_out, k, steps, lr, seed * N_MEMBERS + k, tick))
    return members


def _train(network, data: Data, left_out, k: int, steps: int, lr: float, seed: int, tick):
    unit, generator = label_network(network).head.y_std[0], torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(trainable(network).values(), lr=lr, weight_decay=0.0)
    rows, unseen = np.flatnonzero(left_out != k), np.flatnonzero(np.append(left_out == k, np.ones(data.n_valid, bool)))
    states, predictions = [state(network)], [_unseen(network, data, unseen)]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        batch = rows[torch.randint(len(rows), (BATCH,), generator=generator).numpy()]
        loss = _loss(network, data.stage, data.inputs, data.y, batch, unit, data.weights)
        if data.rehearsal is not None:
            inputs, y = data.rehearsal
            loss = loss + _loss(network, data.stage, inputs, y, torch.randint(len(y), (BATCH,), generator=generator).numpy(), unit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tick()
        if (step + 1) % (steps // N_CHECKS) == 0 and len(states) <= N_CHECKS:
            states.append(state(network))
            predictions.append(_unseen(network, data, unseen))
    return states, torch.stack(predictions)


def _loss(network, stage: int, inputs, y, batch, unit, weights=None) -> Float[Tensor, ""]:
    value = label_network(network).run(*(t[batch] for t in inputs), first=stage)[0]
    if weights is None:
        return nn.functional.smooth_l1_loss(value / unit, y[batch] / unit, beta=0.3)
    return (weights[batch] * nn.functional.smooth_l1_loss(value / unit, y[batch] / unit, beta=0.3, reduction="none")).mean()


def _unseen(network, data: Data, rows) -> Float[Tensor, " n"]:
    """Predictions for the stars that the member has not seen, NaN for the others, which nobody asks for."""
    values = torch.full(data.y.shape, torch.nan)
    values[rows] = evaluate(network, data.stage, *(t[rows] for t in data.inputs))
    return values


@torch.no_grad()
def evaluate(network: nn.Module, stage: int, *inputs: Tensor) -> Float[Tensor, " n"]:
    """Labels from what ``stage`` takes."""
    network.eval()
    many = at_a_time(inputs[0].device) if stage < 2 else len(inputs[0])
    return torch.cat([label_network(network).run(*rows, first=stage)[0] for rows in zip(*(t.split(many) for t in inputs), strict=True)]).cpu()


def choose(members: list, data: Data, left_out: Int[np.ndarray, " n"]) -> tuple[int, list[float], float]:
    """Where to stop, the history of the mean absolute error on stars the members had not seen, and the scatter there.

    It is the last check whose error is within one standard error of the least one: among what the labels cannot tell apart, the one that has
    seen more of the new survey. (The least error itself stops at zero-shot in one split of ten, by chance.)
    """
    from astropy.stats import biweight_scale
    n_train = len(data.y) - data.n_valid
    predictions = torch.stack([p for _, p in members])                          # (member, check, star)
    unseen = predictions[torch.as_tensor(left_out), :, torch.arange(n_train)]   # (n_train, check)
    valid = predictions[:, :, n_train:].mean(0).T                               # (n_valid, check)
    residual = (torch.cat([unseen, valid]) - data.y.cpu()[:, None]).double()
    history = residual.abs().mean(0)
    worse = residual.abs() - residual.abs()[:, history.argmin()][:, None]
    within = worse.mean(0) <= worse.std(0) / len(residual) ** 0.5
    check = int(torch.nonzero(within).max())
    return check, history.tolist(), float(biweight_scale(residual[:, check].numpy()))


@contextmanager
def ticking(progress: bool | Callable[[int, int], object], total: int, name: str) -> Iterator[Callable[[], object]]:
    """What to call after each step: a progress bar, or ``progress(done, total)``, which may raise to stop."""
    if callable(progress):
        done = count(1)
        yield lambda: progress(next(done), total)
        return
    with tqdm(total=total, desc=name, disable=not progress, mininterval=1) as bar:
        yield bar.update
