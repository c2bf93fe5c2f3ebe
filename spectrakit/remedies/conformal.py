"""Intervals that cover: from how far off the members were for labelled stars that they had not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..adaptation.members import folds
from ..errors import LabelError
from ..spectra import SpectraSet, concatenate
from .density import kernel
from .ensemble import Adapted

LEVEL = 0.6827
ENOUGH = 5.0                                     # near labels that outweigh all others in what the typical residual is


@dataclass(frozen=True, eq=False)
class CrossConformal:
    """Cross-conformal intervals (CV+) around the mean of the members, wider where labels have been missed by more.

    Each labelled star gives a score: its residual by the member that left it out, over the typical absolute residual of other labelled stars near it (the mean of
    all counts as ``ENOUGH`` of them). A new star's interval is made of every labelled star's member and score, times the typical residual near the new star.

    Source: Barber et al. 2021 (Annals of Statistics 49, 486), section 3; local scale as in Lei et al. 2018 (JASA 113, 1094), section 5.2. The marginal guarantee of
    CV+, a coverage of at least 2 level - 1, holds for stars drawn like the labelled ones; usual coverage is the level itself.

    Attributes
    ----------
    scores : (n,) of the labelled stars; ``fold`` the member that left each out, -1 for validation stars, which none has seen.
    values, residuals : (n,) zero-shot predictions and absolute out-of-fold residuals of the labelled stars.
    """

    fit: Adapted
    scores: Float[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    residuals: Float[np.ndarray, " n"]
    width: float

    @classmethod
    def of(cls, fit: Adapted, train: SpectraSet, validation: SpectraSet | None, seed: int, width: float) -> CrossConformal:
        """From the labelled stars that ``fit`` was made with, and its ``seed``."""
        fold = folds(train, np.random.default_rng(seed))
        stars = train if validation is None else concatenate(train, validation)
        fold = np.append(fold, np.full(len(stars) - len(train), -1))
        values = fit.zero_shot(stars)
        residuals = np.abs(held_out(fit.members(stars), fold) - stars.label(fit.label))
        others = kernel(values, values, width) * (1 - np.eye(len(values)))        # a star's own residual must not excuse it
        return cls(fit, residuals / _typical(others, residuals), fold, values, residuals, width)

    def scale(self, value: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Typical absolute residual of labelled stars near each zero-shot prediction."""
        return _typical(kernel(value, self.values, self.width), self.residuals)

    def interval(self, stars: SpectraSet, level: float = LEVEL) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(low, high)`` in the label's unit.

        Raises
        ------
        LabelError
            Too few labels for the level: with n labels at most n / (n + 1).
        """
        n = len(self.scores)
        rank = int(np.ceil(level * (n + 1)))
        if not 0 < level < 1 or rank > n:
            raise LabelError(f"level is {level:g} with {n} labelled stars; expected a number between 0 and {n / (n + 1):.3f}.")
        members, scale = self.fit.members(stars), self.scale(self.fit.zero_shot(stars))
        centre = np.concatenate([members, members.mean(0)[None]])[self.fold]     # -1: nobody has seen the star, so everybody answers
        reach = self.scores[:, None] * scale
        return np.sort(centre - reach, axis=0)[n - rank], np.sort(centre + reach, axis=0)[rank - 1]

    def predict(self, stars: SpectraSet) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)``: the mean of the members, and half the width of the 68 % interval."""
        low, high = self.interval(stars)
        return self.fit.members(stars).mean(0), (high - low) / 2


def _typical(weights, residuals) -> np.ndarray:
    return (weights @ residuals + ENOUGH * residuals.mean()) / (weights.sum(1) + ENOUGH)


def held_out(members: Float[np.ndarray, "m n"], fold: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """What was said of each star by the member that left it out, the number in ``fold``; by all of them where that is -1."""
    return np.concatenate([members, members.mean(0)[None]])[fold, np.arange(len(fold))]
