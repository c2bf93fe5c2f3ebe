"""Where a request looks among the known observables of a star."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..models.star_transformer import StarTransformer


def heat_map(model: StarTransformer, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> Float[np.ndarray, "n_request n_context"]:
    """Shares of attention, row = request, column = known observable; each row sums to 1. Mean over stars and over the heads of the decoder's last block, the
    learned key's share cut off, as published. What is asked for may be known: where it then looks is part of the published figure.
    """
    return model.attention(known, wanted)[:, -1].mean(dim=(0, 1)).double().numpy()
