"""What adapters are compared with: other ways to use a pretrained model, and ways without one, on the same labels.

A method is ``method(train, valid, test, k) -> (value, sigma)``, as ``experiments.compare`` takes it; the functions here make methods. All use the labels of
``train`` *and* ``valid``, for whatever they need labels for: both are in everyone's budget. ``k`` is the number of the split, and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from astropy.stats import biweight_scale

from ..errors import SpectrumError
from ..models.aligned import AlignedModel
from ..models.foundation import FoundationModel
from ..spectra import SpectraSet, concatenate
from .fit import adapt
from .frozen import Frozen, prepared
from .placements import Placement

Method = Callable[[SpectraSet, SpectraSet, SpectraSet, int], tuple[np.ndarray, np.ndarray]]
Model = FoundationModel | AlignedModel
FEWEST = 20                                                                      # spectra whose statistics are worth having


def zero_shot(model: Model, label: str) -> Method:
    """The pretrained model as it is; no label."""
    return lambda train, valid, test, k: model.predict(test, label)


def adapted(model: Model, label: str, placement: Sequence[str | Placement], frozen: Frozen | None = None, **settings) -> Method:
    """``sk.adapt`` with this placement and ``settings`` (steps, lr): adapters, and ``("full",)``, ``("head",)``, ``("residual",)``."""
    def method(train, valid, test, k):
        return adapt(model, train, validation=valid if len(valid) else None, label=label, placement=placement, seed=k, frozen=frozen, **settings).predict(test)
    return method


def linear_probe(model: Model, label: str) -> Method:
    """Ridge regression on standardised embeddings, its penalty by leave-one-out; sigma is the scatter of ten-fold cross-validation."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def method(train, valid, test, k):
        stars = labelled(train, valid)
        x, y = model.embed(stars).astype(float), stars.label(label)
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 29)))
        sigma = biweight_scale(cross_val_predict(ridge, x, y, cv=KFold(10, shuffle=True, random_state=k)) - y)
        return ridge.fit(x, y).predict(model.embed(test).astype(float)), np.full(len(test), sigma)
    return method


def gaussian_process(model: Model, label: str) -> Method:
    """Gaussian process on standardised embeddings: one squared exponential and white noise, by maximum likelihood; sigma is its own."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def method(train, valid, test, k):
        stars = labelled(train, valid)
        kernel = ConstantKernel(1.0, (1e-3, 1e5)) * RBF(10.0, (1e-1, 1e4)) + WhiteKernel(0.1, (1e-10, 1e2))
        process = make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=k))
        process.fit(model.embed(stars).astype(float), stars.label(label))
        return process.predict(model.embed(test).astype(float), return_std=True)
    return method


def from_scratch(model: Model, label: str, steps: int = 150, lr: float = 1e-3) -> Method:
    """The same encoder and head with random weights, every weight trained by ``sk.adapt``; only the units of embedding and label come from the data."""
    card = model.card.lrs if isinstance(model, AlignedModel) else model.card

    def method(train, valid, test, k):
        fresh = FoundationModel(card, seed=k)
        fresh.to(next(model.parameters()).device)
        y = torch.as_tensor(train.label(label), dtype=torch.float32)[:, None]
        fresh.heads[label].set_scaling(torch.as_tensor(fresh.embed(train)), y)
        return adapted(fresh, label, ("full",), steps=steps, lr=lr)(train, valid, test, k)
    return method


def regressor(make: Callable[[int], object], label: str) -> Method:
    """A ``baselines.Regressor`` on the flux, made for split ``k``: ``regressor(lambda k: FluxMLP(seed=k), "feh")``."""
    return lambda train, valid, test, k: make(k).fit(labelled(train, valid), label).predict(test)


def recalibrate(model: Model, stars: SpectraSet) -> Model:
    """A copy whose heads' BatchNorm has the statistics of ``stars`` (no label is needed) instead of those of pretraining (Li et al. 2016, AdaBN).

    Raises
    ------
    SpectrumError
        Fewer than 20 spectra.
    """
    if len(stars) < FEWEST:
        raise SpectrumError(f"{len(stars)} spectra; statistics of fewer than {FEWEST} would be noise.")
    prepared(model, stars)                                                       # refuses Gaia XP
    copy = deepcopy(model)
    embedding = torch.as_tensor(model.embed(stars), device=next(model.parameters()).device)
    for head in (copy.heads["lrs"] if isinstance(copy, AlignedModel) else copy.heads).values():
        _restate(head, embedding)
    about = [*model.card.training.get("recalibrated", []), len(stars)]
    copy.card = replace(model.card, training={**model.card.training, "recalibrated": about})
    return copy.eval()


@torch.no_grad()
def _restate(head, embedding) -> None:
    momenta = [norm.momentum for norm in head.norms]
    for norm in head.norms:
        norm.reset_running_stats()
        norm.momentum = None                                                     # the plain mean, here over one batch of all
    head.train()(embedding)
    head.eval()
    for norm, momentum in zip(head.norms, momenta, strict=True):
        norm.momentum = momentum


def labelled(train: SpectraSet, valid: SpectraSet) -> SpectraSet:
    """All stars whose labels are in the budget."""
    return concatenate(train, valid) if len(valid) else train


def rivals(model: Model, label: str, unlabelled: SpectraSet | None = None, frozen: Frozen | None = None) -> dict[str, Method]:
    """Name -> method of all that use the pretrained model or its architecture; with ``unlabelled`` spectra of the target also BatchNorm re-estimated."""
    methods = {"zero-shot": zero_shot(model, label)}
    if unlabelled is not None:
        methods["BatchNorm re-estimated"] = zero_shot(recalibrate(model, unlabelled), label)
    return methods | {"ridge on embedding": linear_probe(model, label), "Gaussian process on embedding": gaussian_process(model, label),
                      "head only": adapted(model, label, ("head",), frozen), "residual head": adapted(model, label, ("residual",), frozen),
                      "full fine-tuning": adapted(model, label, ("full",), frozen, steps=75), "from scratch": from_scratch(model, label)}
