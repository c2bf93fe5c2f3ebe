"""What is known of a star: the published sets of inputs, whoever answers, and a test for copying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from ..errors import LabelError
from ..models.star_transformer import BP, COLOURS, RP, StarTransformer
from ..pretraining.stars import StarTable

N_RANDOM = 64                                         # known observables of a star in the set of random ones
LABELS = ("teff", "logg", "m_h")
INPUT_SETS = {
    "BP/RP 0-29, colours": (*BP[:30], *RP[:30], *COLOURS),
    "BP/RP 0-4, colours": (*BP[:5], *RP[:5], *COLOURS),
    "64 random": (*BP, *RP, *COLOURS),
    "BP/RP 25-54": (*BP[25:], *RP[25:]),
    "BP/RP 25-54, labels": (*BP[25:], *RP[25:], *LABELS),
    "BP/RP 0-31": (*BP[:32], *RP[:32]),
}
"""Leung & Bovy 2024 (MNRAS 527, 1494): the first five for labels, the last for requests never trained, dust, and the stars of another catalogue."""


@runtime_checkable
class Answers(Protocol):
    """Whoever is asked: ``StarTransformer``, or a rival made for one set of inputs."""

    def request(self, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """``{name: (value (n,), sigma (n,))}``."""
        ...


def inputs(table: StarTable, name: str, rng: np.random.Generator) -> dict[str, Float[np.ndarray, " n"]]:
    """What the stars of ``table`` know under this set: (n,) each, NaN where a star has it not, or it is all noise.

    Of the random set each star has ``N_RANDOM``, or as many as there are, drawn for itself from ``rng``. (The published code draws them once, for all stars.)

    Raises
    ------
    LabelError
        No such set.
    """
    if name not in INPUT_SETS:
        raise LabelError(f"No set of inputs {name!r}; there are: {', '.join(INPUT_SETS)}.")
    known = table.known(INPUT_SETS[name])
    if name != "64 random":
        return known
    values = np.stack(list(known.values()), 1)
    order = np.where(np.isfinite(values), rng.random(values.shape), np.inf).argsort(1).argsort(1)
    return {key: np.where(order[:, i] < N_RANDOM, values[:, i], np.nan) for i, key in enumerate(known)}


@torch.no_grad()
def copies(model: StarTransformer, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """``{name: value (n,)}`` of what the model is told already, which ``request`` refuses: does it hand the number back?

    A model that met the requested observable in its contexts has learned to (published: 0.9 K); one that never did has not, whatever else it knows.

    Raises
    ------
    LabelError
        One of ``wanted`` is not in ``known``; else as ``request``.
    """
    if missing := [name for name in wanted if name not in known]:
        raise LabelError(f"{missing[0]!r} is not known, so it cannot be copied; put it among the known ones, or use request.")
    model.eval()
    context = model.context(known)
    value, _ = model(context, model.requests(wanted).rows([0] * len(context.identity)))
    return {name: value[:, i].double().cpu().numpy() for i, name in enumerate(wanted)}
