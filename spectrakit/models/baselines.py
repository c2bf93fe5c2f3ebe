"""Baselines: what the labels alone can do, without a foundation model. One protocol, short implementations.

Every number a model reports stands beside these, trained on the same stars and scored on the same test.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from astropy.stats import biweight_scale
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ..errors import LabelError, MismatchError, SpectrakitError, SpectrumError
from ..spectra import SpectraSet
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
        A star without a usable pixel.
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
        """Refuse other kinds of spectra, and stars of which nothing is left."""
        if not np.array_equal(stars.wave, self.like.wave):
            raise MismatchError(f"The grid ({stars.wave.size} pixels, {stars.wave[0]:.1f}-{stars.wave[-1]:.1f} A) is not that of the training "
                                f"set ({self.like.wave.size} pixels, {self.like.wave[0]:.1f}-{self.like.wave[-1]:.1f} A); resample first.")
        for name in ("normalization", "medium", "frame"):
            if getattr(stars, name) != getattr(self.like, name):
                raise MismatchError(f"{name} is {getattr(stars, name)!r}, that of the training set {getattr(self.like, name)!r}.")
        empty = stars.mask[:, self.use].all(axis=1)
        if empty.any():
            raise SpectrumError(f"{empty.sum()} of {len(stars)} stars have no usable pixel (first: {np.argmax(empty)}); leave them out.")


class _Fitted:
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
class RidgePCA(_Fitted):
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
class GaussianProcessPCA(_Fitted):
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
class FluxMLP(_Fitted):
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
        with torch.random.fork_rng(devices=[]), _one_thread():
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


@dataclass
class Cannon(_Fitted):
    """The Cannon: every pixel's flux is a quadratic polynomial of the labels plus scatter, inverted by chi-square.

    It needs *all* of ``labels`` of the training stars, also when one is asked for (three labels a star where the other baselines use one);
    three labels give 10 coefficients a pixel. Errors and masks enter as weights: what lies under a mask is not read at all. A pixel is used
    when twice as many training stars as coefficients have it. The intrinsic scatter of a pixel is the likeliest of a grid from 0 to 0.3.
    Inversion: Levenberg-Marquardt from the training star whose model fits best. ``sigma`` is the formal error of each star and, in
    quadrature, what five-fold cross-validation (shuffled with ``seed``) finds beyond it: the model's errors correlate between pixels, so on
    real stars the formal error alone is several times too small. Source: Ness et al. 2015 (ApJ 808, 16), cross-validation error included.
    """

    labels: Sequence[str] = ("teff", "logg", "feh")
    seed: int = 0

    def fit(self, stars: SpectraSet, label: str) -> Cannon:
        """See ``Regressor``; ``label`` must be one of ``labels``. Needs 2.5 times as many stars as coefficients (25 for three labels)."""
        if label not in self.labels:
            raise LabelError(f"This Cannon models {', '.join(self.labels)}, not {label!r}; name it in Cannon(labels=...).")
        n_terms = (len(self.labels) + 1) * (len(self.labels) + 2) // 2
        pixels, _, target = self._training(stars, label, least=int(np.ceil(2.5 * n_terms)))
        residual, formal = np.empty(len(stars)), np.empty(len(stars))
        for train, held in KFold(5, shuffle=True, random_state=self.seed).split(target):
            value, formal[held] = copy.copy(self)._learn(stars[train], label)._solve(stars[held])
            residual[held] = value - target[held]
        self._extra = max(0.0, float(biweight_scale(residual)) ** 2 - float(np.median(formal)) ** 2)
        self._learn(stars, label)
        self._pixels = pixels
        return self

    def predict(self, stars: SpectraSet) -> Prediction:
        """See ``Regressor``."""
        self._ready().check(stars)
        value, formal = self._solve(stars)
        return value, np.sqrt(formal**2 + self._extra)

    def _learn(self, stars: SpectraSet, label: str) -> Cannon:
        """The coefficients."""
        values = np.stack([stars.label(name) for name in self.labels], axis=1)
        self._column, self._mean, self._std = list(self.labels).index(label), values.mean(axis=0), values.std(axis=0)
        if (self._std == 0).any():
            raise LabelError(f"{self.labels[int(np.argmin(self._std))]!r} is the same for all training stars; leave it out of labels=.")
        self._known = (values - self._mean) / self._std
        terms, (flux, ivar) = _terms(self._known), _weights(stars)
        self._use = (ivar > 0).sum(axis=0) >= 2 * terms.shape[1]
        if self._use.sum() < len(self.labels):
            raise SpectrumError(f"{self._use.sum()} pixels are usable in {2 * terms.shape[1]} or more of {len(stars)} training stars; "
                                f"{len(self.labels)} labels need at least as many.")
        self._theta, self._scatter = _fit_pixels(terms, flux[:, self._use], ivar[:, self._use])
        return self

    def _solve(self, stars: SpectraSet) -> Prediction:
        """Value and formal error of each star."""
        flux, ivar = (array[:, self._use] for array in _weights(stars))
        weight = ivar / (1 + ivar * self._scatter**2)
        short = (weight > 0).sum(axis=1) < len(self.labels)
        if short.any():
            raise SpectrumError(f"{short.sum()} of {len(stars)} stars have fewer usable pixels than this Cannon has labels "
                                f"(first: {np.argmax(short)}); leave them out.")
        known = _terms(self._known) @ self._theta
        start = np.argmin(weight @ (known**2).T - 2 * (weight * flux) @ known.T, axis=1)  # chi-square up to a constant, of every known star
        found = np.array([self._invert(*row) for row in zip(flux, np.sqrt(weight), self._known[start], strict=True)]).reshape(-1, 2)
        return found[:, 0] * self._std[self._column] + self._mean[self._column], found[:, 1] * self._std[self._column]

    def _invert(self, flux, root, start) -> tuple[float, float]:
        """One star's scaled label and its formal error."""
        n = len(start)
        linear, square = self._theta[1:n + 1], np.zeros((n, n, flux.size))
        square[np.triu_indices(n)] = self._theta[n + 1:]
        square = square + square.transpose(1, 0, 2)
        fit = least_squares(lambda x: root * (_terms(x[None])[0] @ self._theta - flux), start, method="lm",
                            jac=lambda x: (root * (linear + np.einsum("ijp,j->ip", square, x))).T)
        return fit.x[self._column], float(np.sqrt(np.linalg.pinv(fit.jac.T @ fit.jac)[self._column, self._column]))


def _pca(n_components: int) -> PCA:
    return PCA(n_components, svd_solver="full")  # the default turns to a randomised solver at these sizes


@contextmanager
def _one_thread():
    """Matrices this small gain nothing from threads, and on a busy machine wait for them tens of times longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _evaluate(head: LabelHead, x) -> Float[np.ndarray, " n"]:
    with torch.no_grad():
        return head.eval()(x)[:, 0].double().numpy()


def _weights(stars: SpectraSet):
    """Flux and inverse variance, both 0 under the mask."""
    return np.where(stars.mask, 0, stars.flux), np.where(stars.mask, 0, stars.ivar)


def _terms(x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n n_terms"]:
    """1, the labels, and their products in the order of ``triu_indices``."""
    i, j = np.triu_indices(x.shape[1])
    return np.concatenate([np.ones((len(x), 1)), x, x[:, i] * x[:, j]], axis=1)


def _fit_pixels(terms, flux, ivar):
    """(n_terms, p) coefficients and (p,) intrinsic scatter: weighted least squares at each scatter of a grid, the likeliest kept."""
    products = np.einsum("ni,nj->nij", terms, terms).reshape(len(terms), -1)
    n_terms = terms.shape[1]
    best = np.full(flux.shape[1], np.inf)
    theta, scatter = np.zeros((n_terms, flux.shape[1])), np.zeros(flux.shape[1])
    for s in np.r_[0, np.geomspace(1e-4, 0.3, 24)]:
        weight = ivar / (1 + ivar * s**2)
        normal = (weight.T @ products).reshape(-1, n_terms, n_terms)
        normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(n_terms)  # labels that hardly vary stay solvable
        trial = np.linalg.solve(normal, ((weight * flux).T @ terms)[..., None])[..., 0].T
        cost = (weight * (flux - terms @ trial) ** 2 - np.log(np.where(weight > 0, weight, 1))).sum(axis=0)
        better = cost < best
        best, scatter = np.where(better, cost, best), np.where(better, s, scatter)
        theta = np.where(better, trial, theta)
    return theta, scatter
