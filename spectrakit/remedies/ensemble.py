"""Several adapted models as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ..adaptation.fit import Fit
from ..errors import MismatchError
from ..spectra import SpectraSet


@runtime_checkable
class Adapted(Protocol):
    """What the pieces of this folder take and are: a ``Fit``, an ``Ensemble`` of them, a ``Gated`` one."""

    label: str

    def members(self, stars: SpectraSet) -> Float[np.ndarray, "m n"]:
        """What each cross-fitted member says of each star."""
        ...

    def zero_shot(self, stars: SpectraSet) -> Float[np.ndarray, " n"]:
        """What was said before any label was seen."""
        ...


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The mean of fits of different models to the same stars with the same seed, so that member k of each has left out the same stars.

    Two models that read a spectrum differently, an embedding and the flux itself, err differently: their mean errs less than either.

    Raises
    ------
    MismatchError
        No fit, or fits of different labels.
    """

    fits: Sequence[Fit]

    def __post_init__(self):
        if len({fit.label for fit in self.fits}) != 1:
            raise MismatchError(f"{len(self.fits)} fits of the labels {', '.join(sorted({fit.label for fit in self.fits})) or 'none'}; expected fits of one label.")

    @property
    def label(self) -> str:
        """The label that all fits predict."""
        return self.fits[0].label

    def members(self, stars: SpectraSet) -> Float[np.ndarray, "m n"]:
        """Mean over the fits, member by member."""
        return np.mean([fit.members(stars) for fit in self.fits], axis=0)

    def zero_shot(self, stars: SpectraSet) -> Float[np.ndarray, " n"]:
        """Mean over the models as they were."""
        return np.mean([fit.zero_shot(stars) for fit in self.fits], axis=0)
