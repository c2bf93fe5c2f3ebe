"""What the notebooks' exercises say to an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


def told(number: int, answer: object, shape: tuple[int, ...], hints: Iterable[tuple[Callable, str]]) -> None:
    """Print how far an exercise is: not begun, not numbers of the right shape, wrong in a known way, or done.

    Parameters
    ----------
    answer : what the reader's function returned; None is the stub.
    shape : of the right answer, ``()`` for a single number; anything else, NaN and infinity are refused before any hint.
    hints : (condition on the answer, what to say if it holds), the most telling mistakes first. No condition holds: the answer is right.
    """
    if answer is None:
        print(f"Exercise {number}: not done yet. Put your lines in place of `return None` and run the cell again.")
    elif np.shape(answer) != shape or not np.isfinite(np.asarray(answer, float)).all():
        print(f"Exercise {number}: not yet. Asked for are finite values of shape {shape}; () is a single number. Yours has shape {np.shape(answer)}.")
    else:
        print(f"Exercise {number}: " + next((f"not yet. {hint}" for wrong, hint in hints if wrong(answer)), "done."))
