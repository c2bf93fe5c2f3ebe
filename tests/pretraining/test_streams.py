"""Streams: a batch is what its seed and step say, in whatever order it is asked for, and blocks follow each other without a seam."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.errors import MismatchError
from spectrakit.pretraining import Stream, streams


def make(n, seed):
    """Each row says which block it is from and where it stood."""
    return torch.full((n, 1), float(seed)), torch.arange(n)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.sampled_from([32, 64, 4096]))
def test_batches_in_any_order_are_the_rows_of_the_blocks(steps, batch):
    stream = Stream(make, batch, seed=3)
    for step in steps:
        block, row = divmod(step * batch, 4096)
        expected = float(np.random.SeedSequence([3, block]).generate_state(1)[0])
        said, place = stream(step)
        assert torch.equal(said, torch.full((batch, 1), expected))
        assert torch.equal(place, torch.arange(row, row + batch))


def test_a_block_is_made_once_and_only_when_it_is_needed():
    made = []
    def counting(n, seed):
        made.append(seed)
        return make(n, seed)
    stream = Stream(counting, 2048, seed=0)
    assert not made
    for step in (0, 1, 2, 3):
        stream(step)
    assert len(made) == len(set(made)) == 2


def test_streams_of_other_seeds_share_no_block():
    seeds = [Stream(make, 4096, seed)(step)[0][0].item() for seed in (0, 1, 1000, 2000) for step in range(50)]
    assert len(set(seeds)) == 200


def test_a_batch_that_would_be_cut_short_is_refused():
    assert streams.BLOCK == 4096
    with pytest.raises(MismatchError, match="4096 examples are made at a time and cannot be cut into batches of 100; choose a batch that divides 4096."):
        Stream(make, 100, seed=0)
