"""Simulated examples without end, made a block at a time and handed out in batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from torch import Tensor

from ..errors import MismatchError

BLOCK = 4096                                                        # examples simulated at a time


class Stream:
    """Batches without end, none seen twice. Batch ``step`` depends on the seed and the step alone.

    Parameters
    ----------
    make : ``make(n, seed)`` gives a tuple of tensors, n rows each.
    batch : rows of a batch; a divisor of ``BLOCK``, as many as are made in one call and kept until others are asked for.
    seed : of the stream; each block has its own, made from it.

    Raises
    ------
    MismatchError
        ``batch`` does not divide ``BLOCK``: a batch would be cut short at the end of a block.
    """

    def __init__(self, make: Callable[[int, int], tuple[Tensor, ...]], batch: int, seed: int):
        if BLOCK % batch:
            raise MismatchError(f"{BLOCK} examples are made at a time and cannot be cut into batches of {batch}; choose a batch that divides {BLOCK}.")
        self.make, self.batch, self.seed = make, batch, seed
        self.block = lru_cache(maxsize=1)(self._block)

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """What ``make`` makes, ``batch`` rows of it."""
        number, row = divmod(step * self.batch, BLOCK)
        return tuple(part[row:row + self.batch] for part in self.block(number))

    def _block(self, number: int) -> tuple[Tensor, ...]:
        return self.make(BLOCK, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
