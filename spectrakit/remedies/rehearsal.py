"""Stars that need no label of the target survey: simulated ones, whose labels are known, and unlabelled ones, labelled by a model itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from .. import population
from ..continuum import normalize
from ..errors import LabelError
from ..library import load_library
from ..simulation import simulate
from ..spectra import LABEL_UNITS, SpectraSet
from ..surveys import Survey, get_survey

MOST_DRAWS = 200                                 # stars drawn for each that is kept


def metal_poor(survey: str | Survey, n: int, seed: int, below: float | int = -1.0, strength: float | int = 1.0, recipe: str = "robust") -> SpectraSet:
    """``n`` simulated stars of the survey's population with [Fe/H] < ``below``, normalised: for ``sk.adapt(..., rehearsal=...)``.

    Their labels are on the scale of the library, not on that of the target's catalogue: rehearsal holds an adapter to what it knew, offset included.

    Raises
    ------
    LabelError
        The population has hardly a star below.
    """
    instrument, library = get_survey(survey), load_library(get_survey(survey).library)
    rng, kept, drawn = np.random.default_rng(seed), [], 0
    while sum(map(len, kept)) < n:
        labels = population.draw(instrument.population, 4 * n, rng, library)
        kept.append(labels[labels[:, 2] < below])
        drawn += len(labels)
        if drawn > MOST_DRAWS * n:
            raise LabelError(f"{sum(map(len, kept))} of {drawn} stars of the population {instrument.population!r} have [Fe/H] < {below:g}; {n} were asked for. "
                             "Raise `below`, or simulate stars with labels of your own: sk.simulate(..., labels=...).")
    return normalize(simulate(instrument, n, seed, labels=np.concatenate(kept)[:n], strength=strength), recipe)


def labelled_by(stars: SpectraSet, value: Float[np.ndarray, " n"], label: str) -> SpectraSet:
    """The same stars with ``value`` as their ``label``: what zero-shot or ``PhysicalFit`` say of unlabelled stars. An adapter rehearsing them is anchored."""
    labels = stars.labels.copy()
    labels[label] = value * LABEL_UNITS[label]
    return replace(stars, labels=labels, provenance={**stars.provenance, "label_scale": "predicted"})
