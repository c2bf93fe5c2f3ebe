"""A loss that knows whose label can be read well: the Gaussian likelihood with a variance of its own for every star."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from ..adaptation.members import folds
from ..spectra import SpectraSet
from .conformal import held_out
from .ensemble import Adapted

PRIOR = 1.0                                      # standard deviation of the two slopes of ln sigma, for features of unit scatter
LEAST = 0.3                                      # of the typical sigma: labels have errors too, no star is known better than that


def inverse_variance(fit: Adapted, train: SpectraSet, seed: int) -> Float[np.ndarray, " n"]:
    """Weights of training stars, mean 1, for a second ``sk.adapt(..., weights=...)``: one over the variance with which each star was missed, unseen.

    The heteroscedastic loss sum_i (r_i / sigma_i)^2 / 2 + ln sigma_i has two unknowns, the network and sigma. They are found in turn: ``fit`` gives
    residuals r of stars left out, these give ln sigma = a + b z + c s by maximum likelihood, with z the zero-shot label and s the logarithm of S/N, and with
    1 / sigma^2 as weights the next fit minimises the rest. Where lines drown in noise sigma grows: this loss serves stars that can be read, and so
    those of few metals least.

    Parameters
    ----------
    fit : made with ``train`` and ``seed``, so that it is known who has left out whom.

    Source: Nix & Weigend 1994 (IEEE ICNN 1, 55), the likelihood; Aitken 1935 (Proc. R. Soc. Edinburgh 55, 42), weights of generalised least squares.
    """
    residual = held_out(fit.members(train), folds(train, np.random.default_rng(seed))) - train.label(fit.label)
    weights = np.maximum(likeliest_sigma(residual, fit.zero_shot(train), np.log(train.snr)), LEAST * np.std(residual)) ** -2.0
    return weights / weights.mean()


def likeliest_sigma(residual: Float[np.ndarray, " n"], *features: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """exp(linear function of the features) of greatest likelihood for Gaussian residuals of mean 0; a feature that is constant has no slope."""
    columns = np.stack([np.ones(len(residual)), *((f - f.mean()) / (f.std() or 1.0) for f in features)], 1)
    unit = np.sqrt(np.mean(residual**2))

    def loss(a):
        ln_sigma = columns @ a
        return np.sum(0.5 * (residual / unit) ** 2 * np.exp(-2 * ln_sigma) + ln_sigma) + 0.5 * np.sum((a[1:] / PRIOR) ** 2)

    return unit * np.exp(columns @ minimize(loss, np.zeros(columns.shape[1]), method="BFGS").x)
