"""Finding a star's like by its embedding: in its own survey, or in the other one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from .errors import MismatchError, SpectrakitError


def similarity(queries: Float[np.ndarray, "n d"], base: Float[np.ndarray, "m d_base"]) -> Float[np.ndarray, "n m"]:
    """Cosines between embeddings.

    Raises
    ------
    MismatchError
        Embeddings of different sizes: they are not from one model.
    SpectrakitError
        NaN, or an embedding of length zero.
    """
    if queries.shape[1] != base.shape[1]:
        raise MismatchError(f"Queries have {queries.shape[1]} numbers each, the base {base.shape[1]}; embed both with one model.")
    unit = []
    for x in (queries, base):
        length = np.linalg.norm(x, axis=1, keepdims=True)
        if not (length > 0).all():
            raise SpectrakitError(f"{int((~(length > 0)).sum())} embeddings are zero or NaN; leave these spectra out.")
        unit.append(x / length)
    return unit[0] @ unit[1].T


def search(queries: Float[np.ndarray, "n d"], base: Float[np.ndarray, "m d"], k: int = 10) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Rows of ``base`` most like each query, best first, and their cosines.

    Raises
    ------
    SpectrakitError
        ``k`` is below 1 or above the size of the base.
    """
    if not 1 <= k <= len(base):
        raise SpectrakitError(f"k = {k} asked for; the base holds {len(base)} spectra.")
    cosine = similarity(queries, base)
    rows = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(cosine, rows, 1)


def ranks(queries: Float[np.ndarray, "n d"], base: Float[np.ndarray, "m d"]) -> Int[np.ndarray, " n"]:
    """At which place (1 = first) each query's own partner, the row of the same number, is found; ties count against it."""
    if len(queries) != len(base):
        raise MismatchError(f"{len(queries)} queries and {len(base)} spectra in the base; row i of both has to be the same star.")
    cosine = similarity(queries, base)
    return (cosine >= np.diag(cosine)[:, None]).sum(1)


def recall(queries: Float[np.ndarray, "n d"], base: Float[np.ndarray, "m d"], k: int = 1) -> float:
    """Share of queries whose own partner is among the first ``k``; chance is k / n."""
    return float((ranks(queries, base) <= k).mean())
