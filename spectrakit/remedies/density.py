"""Weights that make rare labels count more."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..errors import LabelError

POWER = 0.5                                      # between no weights (0) and a flat distribution (1), which one lonely star would rule


def near(at: Float[np.ndarray, " m"], values: Float[np.ndarray, " n"], width: float | None = None) -> Float[np.ndarray, " m"]:
    """Number of ``values`` near each ``at``: the sum of a Gaussian kernel of height 1 and standard deviation ``width``.

    ``width`` is 0.4 times the scatter of the values when None: 0.2 dex for the [Fe/H] of a survey of all parts of the Galaxy.
    """
    return kernel(at, values, kernel_width(values) if width is None else width).sum(1)


def kernel(at: Float[np.ndarray, " m"], values: Float[np.ndarray, " n"], width: float) -> Float[np.ndarray, "m n"]:
    """How near each of ``values`` is to each ``at``: 1 at the same place, a Gaussian of standard deviation ``width``."""
    return np.exp(-0.5 * np.square((at[:, None] - values) / width))


def kernel_width(values: Float[np.ndarray, " n"]) -> float:
    """0.4 times the standard deviation.

    Raises
    ------
    LabelError
        All values are equal.
    """
    if len(values) == 0 or np.ptp(values) == 0:
        raise LabelError(f"{len(values)} labels that do not differ: there is no density to speak of. Give labels of different stars.")
    return 0.4 * float(np.std(values))


def density_weights(labels: Float[np.ndarray, " n"], power: float | int = POWER) -> Float[np.ndarray, " n"]:
    """Weights of training stars, mean 1: the density of labels around each star to the power of -``power``; for ``sk.adapt(..., weights=...)``.

    Source: Yang et al. 2021 (ICML, arXiv:2102.09554), label distribution smoothing with the inverse square root.
    """
    weights = near(labels, labels) ** -float(power)
    return weights / weights.mean()
