"""Answers to exercises: each of the four replies, and hints in their order."""

import numpy as np
import pytest

from spectrakit.exercises import told

HINTS = ((lambda x: np.isclose(x, -2), "The sign."), (lambda x: x < 0, "It is not negative."), (lambda x: not np.isclose(x, 2), "Not 2."))


@pytest.mark.parametrize(("answer", "reply"), [
    (None, "not done yet. Put your lines in place of `return None` and run the cell again."),
    ([2.0], "not yet. Asked for are finite values of shape (); () is a single number. Yours has shape (1,)."),
    (np.nan, "not yet. Asked for are finite values of shape (); () is a single number. Yours has shape ()."),
    (-2, "not yet. The sign."), (-3.0, "not yet. It is not negative."), (1, "not yet. Not 2."), (2.0, "done."), (np.float32(2), "done.")])
def test_replies(answer, reply, capsys):
    told(7, answer, (), HINTS)
    assert capsys.readouterr().out == f"Exercise 7: {reply}\n"


def test_shapes_of_arrays(capsys):
    told(1, np.ones((2, 3)), (2, 3), ())
    told(1, np.ones((3, 2)), (2, 3), ())
    assert capsys.readouterr().out.splitlines()[0] == "Exercise 1: done."
    told(1, np.array([True, False]), (2,), ())
    assert "done" in capsys.readouterr().out
