"""How much better is one answer than another, and do its errors cover the truth?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..errors import LabelError

LEVEL = (0.16, 0.84)


@dataclass(frozen=True)
class Figure:
    """A number with its 68 % bootstrap interval over ``n`` stars."""

    value: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def scatter(residual: Float[np.ndarray, "... n"]) -> Float[np.ndarray, ...]:
    """1.4826 median absolute deviation about the median, along the last axis: the published figure, blind to bias."""
    return 1.4826 * np.median(np.abs(residual - np.median(residual, -1, keepdims=True)), -1)


def scatter_of(residual: Float[np.ndarray, " n"], rng: np.random.Generator, n_boot: int = 1000) -> Figure:
    """``scatter`` with its interval."""
    return _bootstrap(lambda rows: scatter(residual[rows]), residual, rng=rng, n_boot=n_boot)


def scatter_ratio(residual: Float[np.ndarray, " n"], rival: Float[np.ndarray, " n"], rng: np.random.Generator, n_boot: int = 1000) -> Figure:
    """Scatter over the rival's, of the same stars: below 1 is better. Stars are drawn together, so what they share cancels."""
    return _bootstrap(lambda rows: scatter(residual[rows]) / scatter(rival[rows]), residual, rival, rng=rng, n_boot=n_boot)


def coverage(residual: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"], rng: np.random.Generator, n_boot: int = 1000) -> Figure:
    """Share of stars whose truth lies within one sigma; 0.683 is right."""
    return _bootstrap(lambda rows: (np.abs(residual) < sigma)[rows].mean(-1), residual, sigma, rng=rng, n_boot=n_boot)


def _bootstrap(statistic, *arrays, rng, n_boot):
    n = len(arrays[0])
    bad = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if bad or n < 3 or any(len(array) != n for array in arrays):
        raise LabelError(f"Arrays of {', '.join(str(len(array)) for array in arrays)} stars with {bad} NaN or infinite; expected the same stars in each, "
                         "at least 3, all finite. Choose those that everybody has.")
    block = max(1, 2_000_000 // n)
    sample = np.concatenate([statistic(rng.integers(n, size=(min(block, n_boot - i), n))) for i in range(0, n_boot, block)])
    low, high = np.quantile(sample, LEVEL)
    return Figure(float(statistic(np.arange(n))), float(low), float(high), n)
