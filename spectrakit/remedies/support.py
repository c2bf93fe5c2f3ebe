"""Adapters act where labels are: elsewhere the answer falls back to zero-shot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..spectra import SpectraSet
from .density import kernel_width, near
from .ensemble import Adapted

ENOUGH = 2.0                                     # labels near a star at which zero-shot and adapter count alike


@dataclass(frozen=True, eq=False)
class Support:
    """Where along the label the labelled stars lie, by their zero-shot prediction: that is known of unlabelled stars too.

    ``values`` (n,) are zero-shot predictions of the labelled stars, ``width`` that of the kernel they are counted with (``density.near``).
    """

    values: Float[np.ndarray, " n"]
    width: float

    @classmethod
    def of(cls, values: Float[np.ndarray, " n"]) -> Support:
        """With the kernel's usual width."""
        return cls(values, kernel_width(values))

    def count(self, value: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Labelled stars near each zero-shot prediction."""
        return near(value, self.values, self.width)

    def gate(self, value: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """How far an adapter is to be trusted there, 0 to 1: k / (k + 2) with k labels near.

        That is what a mean of k labels deserves against a prior if one label scatters by the root of 2 times as much as zero-shot is wrong.
        """
        k = self.count(value)
        return k / (k + ENOUGH)


@dataclass(frozen=True, eq=False)
class Gated:
    """zero-shot + gate (adapted - zero-shot), star by star."""

    fit: Adapted
    support: Support

    @property
    def label(self) -> str:
        """Of the fit."""
        return self.fit.label

    def members(self, stars: SpectraSet) -> Float[np.ndarray, "m n"]:
        """Each member, pulled back to zero-shot where labels are few."""
        zero = self.zero_shot(stars)
        return zero + self.support.gate(zero) * (self.fit.members(stars) - zero)

    def zero_shot(self, stars: SpectraSet) -> Float[np.ndarray, " n"]:
        """Of the fit."""
        return self.fit.zero_shot(stars)
