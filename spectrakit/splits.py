"""Training, validation and test stars: the one protocol every model and baseline is measured by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .errors import LabelError, SpectrakitError


class Split(NamedTuple):
    """Row numbers, each increasing; together they are all rows, and no star is in two of them."""

    train: Int[np.ndarray, " n_train"]
    valid: Int[np.ndarray, " n_valid"]
    test: Int[np.ndarray, " n_test"]


def splits(stars_key, n_train: int = 89, n_valid: int = 9, n_splits: int = 10, seed: int | np.random.Generator = 0) -> list[Split]:
    """Random splits by star: all spectra of one star stay together.

    Parameters
    ----------
    stars_key : (n,) one key a spectrum (name or number); equal keys are the same star.
    n_train, n_valid : numbers of *stars* (rows may be more); all others are test stars.
    n_splits : how many. Split k is the same whatever ``n_splits`` is, and whatever the order of the rows.
    seed : number or ``numpy.random.Generator``. For one number, smaller training parts lie inside larger ones and the validation part is the
        same, so that a curve over ``n_train`` compares like with like (the test part shrinks).

    Raises
    ------
    LabelError
        A spectrum without a key.
    SpectrakitError
        Numbers that are negative, no training star, or too few stars to leave one for the test.
    """
    key = np.ma.asarray(stars_key)
    if key.ndim != 1:
        raise SpectrakitError(f"stars_key has shape {key.shape}; expected (n,), one key a spectrum.")
    blank = np.isnan(key.data) if key.dtype.kind == "f" else key.data == key.dtype.type() if key.dtype.kind in "US" else False
    missing = np.ma.getmaskarray(key) | blank
    if missing.any():
        raise LabelError(f"{missing.sum()} of {key.size} spectra have no star key; give each its own, or leave them out.")
    names, star = np.unique(key.data, return_inverse=True)
    if n_train < 1 or n_valid < 0 or n_splits < 1:
        raise SpectrakitError(f"n_train={n_train}, n_valid={n_valid}, n_splits={n_splits}; expected at least 1, 0 and 1.")
    if n_train + n_valid >= len(names):
        raise SpectrakitError(f"{len(names)} stars ({key.size} spectra) cannot give {n_train} for training, {n_valid} for validation and at "
                              "least one for the test; lower n_train or n_valid.")
    rng = np.random.default_rng(seed)
    return [_split(rng.permutation(len(names)), star, n_train, n_valid) for _ in range(n_splits)]


def _split(order, star, n_train: int, n_valid: int) -> Split:
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    part = np.digitize(rank[star], [n_valid, n_valid + n_train])  # the validation stars first: they stay when n_train changes
    return Split(*(np.flatnonzero(part == k) for k in (1, 0, 2)))
