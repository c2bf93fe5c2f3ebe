"""Baselines: what the labels alone can do, without a foundation model. One protocol, short implementations.

Every number a model reports stands beside these, trained on the same stars and scored on the same test.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from astropy.stats import biweight_scale
from jaxtyping import Bool, Float
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ..errors import LabelError, MismatchError, SpectrakitError, SpectrumError
from ..objects import require_stars
from ..spectra import SpectraSet
from ..threads import one_thread
from .heads import LabelHead

Prediction = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


@runtime_checkable
class Regressor(Protocol):
    """Learns one label from labelled stars and predicts it for others.

    Stars are continuum normalised, all on the grid of the training set. What lies under the mask changes nothing: such a pixel takes the
    training mean of that pixel. A pixel that no training star has is not used.

    Raises (``fit`` and ``predict``)
    --------------------------------
    MismatchError
        Stars that are not normalised, or differ from the training set in grid, medium, frame or normalisation.
    SpectrumError
        A star without a usable pixel; what is no star (``labels["object_class"]``).
    LabelError
        Missing labels, or too few labelled stars for the model.
    SpectrakitError
        ``predict`` before ``fit``.
    """

    def fit(self, stars: SpectraSet, label: str) -> Regressor:
        """Learn ``label`` from all of ``stars`` (each must have it); returns the model."""
        ...

    def predict(self, stars: SpectraSet) -> Prediction:
        """``(value, sigma)``, each (n,), in the label's unit (K or dex)."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a model remembers of the spectra it was fitted to: the kind of spectrum, the pixels in use and their training means."""

    like: SpectraSet  # no stars, only the grid and what it means
    use: Bool[np.ndarray, " n_pix"]
    mean: Float[np.ndarray, " n_pix"]

    @classmethod
    def of(cls, stars: SpectraSet) -> Pixels:
        """Learn from training stars."""
        if stars.normalization == "none":
            raise MismatchError("These spectra are not continuum normalised (normalization='none'); normalise them first.")
        good = ~stars.mask
        mean = np.where(good, stars.flux, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1)
        return cls(stars[:0], good.any(axis=0), mean)

    def flux(self, stars: SpectraSet) -> Float[np.ndarray, "n n_used"]:
        """(n, n_used) normalised flux of the used pixels, the training mean under the mask."""
        self.check(stars)
        return np.where(stars.mask, self.mean, stars.flux)[:, self.use]

    def check(self, stars: SpectraSet) -> None:
        """Refuse other kinds of spectra, what is no star, and stars of which nothing is left."""
        require_stars(stars)
        if not np.array_equal(stars.wave, self.like.wave):
            raise MismatchError(f"The grid ({stars.wave.size} pixels, {stars.wave[0]:.1f}-{stars.wave[-1]:.1f} A) is not that of the training "
                                f"set ({self.like.wave.size} pixels, {self.like.wave[0]:.1f}-{self.like.wave[-1]:.1f} A); resample first.")
        for name in ("normalization", "medium", "frame"):
            if getattr(stars, name) != getattr(self.like, name):
                raise MismatchError(f"{name} is {getattr(stars, name)!r}, that of the training set {getattr(self.like, name)!r}.")
        empty = stars.mask[:, self.use].all(axis=1)
        if empty.any():
            raise SpectrumError(f"{empty.sum()} of {len(stars)} stars have no usable pixel (first: {np.argmax(empty)}); leave them out.")


class Fitted:
    """What the regressors that learn from labels share: their checks."""

    _pixels: Pixels | None = None

    def _ready(self) -> Pixels:
        if self._pixels is None:
            raise SpectrakitError(f"This {type(self).__name__} is not fitted yet; call fit(stars, label) first.")
        return self._pixels

    def _training(self, stars: SpectraSet, label: str, least: int):
        """The pixels, (n, n_used) flux and (n,) label of at least ``least`` stars. Until ``fit`` has set ``_pixels`` the model is not fitted."""
        self._pixels = None
        target = stars.label(label)
        if len(target) < least:
            raise LabelError(f"{len(target)} labelled stars; this {type(self).__name__} needs at least {least}.")
        if np.ptp(target) == 0:
            raise LabelError(f"All {len(target)} stars have {label} = {target[0]:g}: there is nothing to learn.")
        pixels = Pixels.of(stars)
        return pixels, pixels.flux(stars), target


@dataclass
class RidgePCA(Fitted):
    """Ridge regression on principal components, its penalty by leave-one-out cross-validation; the linear yardstick.

    ``sigma`` is one number for all stars: the biweight scale of ten-fold cross-validation residuals, PCA refitted in each fold.
    ``seed`` shuffles the folds. Source: scikit-learn's ``PCA`` and ``RidgeCV``.
    """

    n_components: int = 25
    seed: int = 0

    def fit(self, stars: SpectraSet, label: str) -> RidgePCA:
        """See ``Regressor``. Needs a few more stars than components, as each fold does."""
        pixels, flux, target = self._training(stars, label, least=max(10, int(np.ceil((self.n_components + 1) / 0.9)) + 1))
        model = make_pipeline(_pca(self.n_components), RidgeCV(np.logspace(-4, 4, 33)))
        folds = KFold(10, shuffle=True, random_state=self.seed)
        self._sigma = float(biweight_scale(cross_val_predict(model, flux, target, cv=folds) - target))
        self._model, self._pixels = model.fit(flux, target), pixels
        return self

    def predict(self, stars: SpectraSet) -> Prediction:
        """See ``Regressor``."""
        flux = self._ready().flux(stars)
        return self._model.predict(flux), np.full(len(stars), self._sigma)


@dataclass
class GaussianProcessPCA(Fitted):
    """Gaussian process on principal components: the strongest plain method for tens to hundreds of labels.

    One squared-exponential kernel, isotropic over the components in their natural proportions (whitening them would blow noise up to the
    size of temperature), plus white noise; its three numbers by maximum likelihood from ``n_restarts`` + 1 starts, drawn with ``seed``.
    ``sigma`` is the process's own predictive standard deviation, label noise included. Time grows as the cube of the labels: up to a few
    thousand. Source: scikit-learn's ``GaussianProcessRegressor`` (Rasmussen & Williams 2006, algorithm 2.1).
    """

    n_components: int = 25
    n_restarts: int = 2
    seed: int = 0

    def fit(self, stars: SpectraSet, label: str) -> GaussianProcessPCA:
        """See ``Regressor``. Needs more stars than components."""
        pixels, flux, target = self._training(stars, label, least=self.n_components + 1)
        self._pca = _pca(self.n_components).fit(flux)
        kernel = ConstantKernel(1.0, (1e-3, 1e5)) * RBF(3.0, (1e-2, 1e4)) + WhiteKernel(0.1, (1e-10, 1e2))
        process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=self.n_restarts, random_state=self.seed)
        with warnings.catch_warnings():  # a bound that is reached is an answer here: no noise seen, or no dependence
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model, self._pixels = process.fit(self._components(flux), target), pixels
        return self

    def predict(self, stars: SpectraSet) -> Prediction:
        """See ``Regressor``."""
        flux = self._ready().flux(stars)
        return self._model.predict(self._components(flux), return_std=True)

    def _components(self, flux):
        """In units of the first one's spread, so that the kernel's start and bounds fit any line strength; proportions stay."""
        return self._pca.transform(flux) / max(float(np.sqrt(self._pca.explained_variance_[0])), 1e-12)


@dataclass
class FluxMLP(Fitted):
    """The foundation model's own head (``LabelHead``) on the flux: what the MLP does without pretraining.

    One network for each of ``n_folds`` parts of the labelled stars: it trains on the others and stops when the error on its part has not
    fallen for ``patience`` epochs, or after ``epochs``; the best state is kept. So early stopping uses no label beyond those given to
    ``fit``, and all of them. The value is the mean of the networks; ``sigma`` is one number, the biweight scale of the out-of-fold
    residuals (a little larger than the scatter of the mean). AdamW on the squared error, ``learning_rate`` per step of about 32 stars.
    ``seed`` decides everything random; torch's global state is untouched.
    """

    hidden: Sequence[int] = (256, 64)
    n_folds: int = 5
    patience: int = 40
    epochs: int = 300
    learning_rate: float = 1e-3
    seed: int = 0

    def fit(self, stars: SpectraSet, label: str) -> FluxMLP:
        """See ``Regressor``. Needs at least 20 stars."""
        pixels, flux, target = self._training(stars, label, least=max(20, 2 * self.n_folds))
        x, y = torch.as_tensor(flux, dtype=torch.float32), torch.as_tensor(target, dtype=torch.float32)[:, None]
        self._heads, outside = [], np.empty(len(target))
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(self.seed)
            for train, valid in KFold(self.n_folds, shuffle=True, random_state=self.seed).split(flux):
                self._heads.append(self._train(x[train], y[train], x[valid], y[valid]))
                outside[valid] = _evaluate(self._heads[-1], x[valid])
        self._sigma, self._pixels = float(biweight_scale(outside - target)), pixels
        return self

    def _train(self, x, y, x_valid, y_valid) -> LabelHead:
        """One network, as it was in its best epoch."""
        head = LabelHead(x.shape[1], self.hidden)
        head.set_scaling(x, y)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.learning_rate)
        best, best_error, best_epoch = copy.deepcopy(head), np.inf, 0
        for epoch in range(self.epochs):
            for rows in torch.randperm(len(x)).tensor_split(max(1, len(x) // 32)):  # never a batch of one: BatchNorm could not use it
                optimizer.zero_grad()
                (((head.train()(x[rows]) - y[rows]) / head.y_std) ** 2).mean().backward()
                optimizer.step()
            error = float(np.mean((_evaluate(head, x_valid) - y_valid[:, 0].numpy()) ** 2))
            if error < best_error:
                best, best_error, best_epoch = copy.deepcopy(head), error, epoch
            if epoch - best_epoch >= self.patience:
                break
        return best

    def predict(self, stars: SpectraSet) -> Prediction:
        """See ``Regressor``."""
        x = torch.as_tensor(self._ready().flux(stars), dtype=torch.float32)
        return np.mean([_evaluate(head, x) for head in self._heads], axis=0), np.full(len(stars), self._sigma)


def _pca(n_components: int) -> PCA:
    return PCA(n_components, svd_solver="full")  # the default turns to a randomised solver at these sizes


def _evaluate(head: LabelHead, x) -> Float[np.ndarray, " n"]:
    with torch.no_grad():
        return head.eval()(x)[:, 0].double().numpy()
