"""The Cannon: a generative baseline, every pixel a polynomial of the labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import biweight_scale
from jaxtyping import Float
from scipy.optimize import least_squares
from sklearn.model_selection import KFold

from ..errors import LabelError, SpectrumError
from ..spectra import SpectraSet
from .baselines import Fitted, Prediction


@dataclass
class Cannon(Fitted):
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
