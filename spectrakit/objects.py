"""What a spectrum is of, as far as its survey knows: the column ``object_class`` of the labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from .errors import SpectrumError
from .spectra import SpectraSet

STARS = ("star", "")  # classes that count as stars; empty: nothing is said about it


def is_star(stars: SpectraSet) -> Bool[np.ndarray, " n"]:
    """True (n,) unless ``object_class`` says that it is no star, or that the survey could not tell."""
    if "object_class" not in stars.labels.colnames:
        return np.ones(len(stars), bool)
    return np.isin(np.asarray(stars.labels["object_class"]).astype(str), STARS)


def counts(stars: SpectraSet) -> str:
    """The classes of what is no star, with their numbers: ``"galaxy: 6, unknown: 5; first in row 3"``."""
    other = ~is_star(stars)
    names, numbers = np.unique(np.asarray(stars.labels["object_class"]).astype(str)[other], return_counts=True)
    return f"{', '.join(f'{name}: {n}' for name, n in zip(names, numbers, strict=True))}; first in row {int(other.argmax())}"


def require_stars(stars: SpectraSet) -> None:
    """Raise ``SpectrumError`` where stellar labels are asked of what is no star: a network answers to anything."""
    other = ~is_star(stars)
    if other.any():
        raise SpectrumError(f"{other.sum()} of {len(stars)} spectra are of no stars ({counts(stars)}); stellar labels of them would mean nothing. Choose the stars: "
                            "stars[sk.objects.is_star(stars)]. If you know better than the survey, set labels['object_class'] to 'star'.")
