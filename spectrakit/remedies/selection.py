"""Which stars to label, when labels can be chosen. No true label is read, only what a model says of stars before anyone has labelled them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ..errors import SpectrakitError
from .density import near


def choose_even(predicted: Float[np.ndarray, " n"], n_labels: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Rows of ``n_labels`` stars drawn so that their *predicted* label is spread as evenly as it can be, without looking for extremes: each star's
    chance is one over the number of stars predicted near it. ``predicted`` are zero-shot predictions, say.

    Raises
    ------
    SpectrakitError
        More labels are asked for than there are stars.
    """
    if not 0 < n_labels <= len(predicted):
        raise SpectrakitError(f"{n_labels} labels asked for; expected 1 to {len(predicted)}, the number of stars to choose from.")
    chance = 1 / near(predicted, predicted)
    return np.sort(rng.choice(len(predicted), n_labels, replace=False, p=chance / chance.sum()))
