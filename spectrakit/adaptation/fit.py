"""Adapting a pretrained model with few labels: cross-fitted members, stopped where labels they did not see begin to be missed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import LabelError
from ..models.foundation import FoundationModel
from ..spectra import SpectraSet, same_scale
from ..threads import one_thread
from .adapters import LabelNetwork, insert, label_network, trainable
from .placements import FULL, Placement

N_MEMBERS, BATCH, N_CHECKS = 5, 16, 15


@dataclass(frozen=True, eq=False)
class Fit:
    """An adapted model for one label.

    Attributes
    ----------
    network : the peft model; ``states`` holds the trained weights of each member, in turn loaded into it.
    residual_sigma : scatter of the labels that members had not seen, in the label's unit.
    steps : where training was stopped; 0 is zero-shot.
    budget : number of labelled stars used, those for validation included.
    history : mean absolute error on unseen labels at every check, the first at step 0.
    """

    model: FoundationModel
    label: str
    placement: tuple
    network: nn.Module
    states: list[dict[str, Tensor]]
    residual_sigma: float
    steps: int
    budget: int
    history: list[float]

    @property
    def n_trained(self) -> int:
        """Number of trained parameters of one member."""
        return sum(v.numel() for v in self.states[0].values())

    def predict(self, stars: SpectraSet) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` in the label's unit: the mean of the members; sigma adds their variance to that of labels they had not seen."""
        inputs = self.model.prepare(stars)
        members = []
        for state in self.states:
            _load(self.network, state)
            members.append(_evaluate(self.network, *inputs))
        members = torch.stack(members).double()
        return members.mean(0).numpy(), torch.sqrt(self.residual_sigma**2 + members.var(0)).numpy()


def adapt(model: FoundationModel, train: SpectraSet, *, label: str, placement: Sequence[str | Placement], seed: int, validation: SpectraSet | None = None,
          steps: int = 150, lr: float = 1e-3, progress: bool = False) -> Fit:
    """Adapt ``model`` to the survey of ``train`` with its labels.

    Five members are trained, each on four fifths of the stars. What each did not see, and the validation stars, decide when all of them stop: at
    one of 15 checks, or at zero-shot. The model that is passed in is left as it is.

    Parameters
    ----------
    train, validation : spectra with ``label``; both are counted in ``Fit.budget``.
    placement : names or declarations, e.g. ``("lora1", "lora2")``; ``("full",)`` fine-tunes every weight.
    seed : of the adapters' initial weights, the folds and the order of the stars.
    steps, lr : of AdamW with batches of 16, linear warm-up and cosine decay.

    Raises
    ------
    LabelError
        No head for the label, a star without it, or fewer than 10 training stars.
    MismatchError
        Spectra the model was not made for, or a placement that does not fit it.
    """
    model.require_label(label)
    if len(train) < 2 * N_MEMBERS:
        raise LabelError(f"{len(train)} training stars; at least {2 * N_MEMBERS} are needed, each member leaves a fifth of them out.")
    placement = tuple(placement)
    network = LabelNetwork(deepcopy(model.encoder), deepcopy(model.heads[label]))
    network = insert(network, placement, seed)
    data = _Data.of(model, train, validation, label)
    if _fixed(network):
        data = data.embedded(label_network(network))
    folds = _folds(train, np.random.default_rng(seed))
    lr = lr / 5 if placement == (FULL,) else lr
    with tqdm(total=N_MEMBERS * steps, desc="+".join(map(str, placement)), disable=not progress, mininterval=1) as bar:
        members = _train_members(network, data, folds, steps, lr, seed, bar)
    check, history, sigma = _choose(members, data, folds)
    states = [states[check] for states, _ in members]
    return Fit(model, label, placement, network, states, sigma, check * steps // N_CHECKS, len(train) + data.n_valid, history)


@dataclass(frozen=True, eq=False)
class _Data:
    """Inputs of the network (flux and mask, or embeddings where the encoder is fixed) of training and then validation stars."""

    inputs: tuple[Tensor, ...]
    y: Tensor
    n_valid: int

    @classmethod
    def of(cls, model, train, validation, label):
        sets = [train] if validation is None else [train, validation]
        same_scale(*sets)
        inputs = tuple(torch.cat(parts) for parts in zip(*(model.prepare(s) for s in sets), strict=True))
        y = torch.as_tensor(np.concatenate([s.label(label) for s in sets]), dtype=torch.float32, device=inputs[0].device)
        return cls(inputs, y, len(y) - len(train))

    def embedded(self, network: LabelNetwork):
        with torch.no_grad():
            parts = [network.encoder(*rows) for rows in zip(*(t.split(256) for t in self.inputs), strict=True)]
        return _Data((torch.cat(parts),), self.y, self.n_valid)


def _fixed(network) -> bool:
    """The encoder is left as it is: then it has to see each star once only."""
    return not any("encoder" in name for name in trainable(network))


def _train_members(network, data: _Data, folds, steps: int, lr: float, seed: int, bar):
    """``_train_member`` for each fold, all from the same weights."""
    start, members = _copy(network), []
    with one_thread() if _fixed(network) else nullcontext():
        for k in range(N_MEMBERS):
            _load(network, start)
            members.append(_train_member(network, data, np.flatnonzero(folds != k), steps, lr, seed * N_MEMBERS + k, bar))
    return members


def _train_member(network, data: _Data, rows, steps: int, lr: float, seed: int, bar):
    """States and predictions for all stars at every check, from step 0 on."""
    unit, generator = label_network(network).head.y_std[0], torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(trainable(network).values(), lr=lr, weight_decay=0.0)
    network.train()
    states, predictions = [_copy(network)], [_evaluate(network, *data.inputs)]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
        batch = rows[torch.randint(len(rows), (BATCH,), generator=generator).numpy()]
        value = _forward(network, *(t[batch] for t in data.inputs))
        loss = torch.nn.functional.smooth_l1_loss(value / unit, data.y[batch] / unit, beta=0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.update()
        if (step + 1) % (steps // N_CHECKS) == 0 and len(states) <= N_CHECKS:
            states.append(_copy(network))
            predictions.append(_evaluate(network, *data.inputs))
    return states, torch.stack(predictions)


def _choose(members, data: _Data, folds):
    """Where to stop, the history of the mean absolute error on stars the members had not seen, and the scatter there.

    It is the last check whose error is within one standard error of the least one: among what the labels cannot tell apart, the one that has
    seen more of the new survey. (The least error itself stops at zero-shot in one split of ten, by chance.)
    """
    from astropy.stats import biweight_scale
    n_train = len(data.y) - data.n_valid
    predictions = torch.stack([p for _, p in members])                          # (member, check, star)
    unseen = predictions[torch.as_tensor(folds), :, torch.arange(n_train)]      # (n_train, check)
    valid = predictions[:, :, n_train:].mean(0).T                               # (n_valid, check)
    residual = (torch.cat([unseen, valid]) - data.y.cpu()[:, None]).double()
    history = residual.abs().mean(0)
    worse = residual.abs() - residual.abs()[:, history.argmin()][:, None]
    within = worse.mean(0) <= worse.std(0) / len(residual) ** 0.5
    check = int(torch.nonzero(within).max())
    return check, history.tolist(), float(biweight_scale(residual[:, check].numpy()))


def _folds(train: SpectraSet, rng: np.random.Generator) -> np.ndarray:
    """The member that leaves each star out; all spectra of a star together."""
    star = np.asarray(train.labels["star"]) if "star" in train.labels.colnames else np.arange(len(train))
    names, inverse = np.unique(star, return_inverse=True)
    return (rng.permutation(len(names)) % N_MEMBERS)[inverse]


def _forward(network, *inputs):
    return label_network(network).head(inputs[0])[:, 0] if len(inputs) == 1 else network(*inputs)


@torch.no_grad()
def _evaluate(network, *inputs) -> Tensor:
    training = network.training
    network.eval()
    values = torch.cat([_forward(network, *rows) for rows in zip(*(t.split(256) for t in inputs), strict=True)])
    network.train(training)
    return values.cpu()


def _copy(network) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainable(network).items()}


@torch.no_grad()
def _load(network, state: dict[str, Tensor]) -> None:
    for name, p in trainable(network).items():
        p.copy_(state[name])
