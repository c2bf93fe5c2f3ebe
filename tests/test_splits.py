"""Splits never share a star, and depend on nothing but the set of keys and the seed."""

import numpy as np
import pytest
from astropy.table import Column, MaskedColumn
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.errors import LabelError, SpectrakitError
from spectrakit.splits import splits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(0, 1000), st.integers(1, 8), st.integers(0, 4))
def test_all_rows_are_used_once_and_no_star_straddles(keys, seed, n_train, n_valid):
    keys = np.array(keys)
    if n_train + n_valid >= len(set(keys)):
        with pytest.raises(SpectrakitError, match="cannot give"):
            splits(keys, n_train, n_valid, seed=seed)
        return
    for split in splits(keys, n_train, n_valid, 3, seed):
        assert sorted(np.concatenate(split)) == list(range(len(keys)))
        train, valid, test = (set(keys[rows]) for rows in split)
        assert (len(train), len(valid)) == (n_train, n_valid)
        assert test
        assert len(train | valid | test) == len(train) + len(valid) + len(test)


def same(a, b):
    return all(np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def test_the_same_seed_gives_the_same_splits_and_others_do_not():
    keys = np.arange(200)
    assert same(splits(keys, seed=1), splits(keys, seed=1))
    assert same(splits(keys, seed=1), splits(keys, seed=np.random.default_rng(1)))
    assert not same(splits(keys, seed=1), splits(keys, seed=2))
    assert same(splits(keys, n_splits=3), splits(keys, n_splits=7)[:3])
    assert not same(splits(keys)[:1], splits(keys)[1:2])


def test_order_of_rows_does_not_matter():
    keys = np.array([f"HD{k}" for k in range(120)])
    order = np.random.default_rng(0).permutation(120)
    for one, other in zip(splits(keys), splits(keys[order]), strict=True):
        for a, b in zip(one, other, strict=True):
            assert set(keys[a]) == set(keys[order][b])


def test_training_parts_nest_and_the_validation_part_stays():
    few, many = splits(np.arange(500), 20, 9)[0], splits(np.arange(500), 300, 9)[0]
    assert set(few.train) < set(many.train)
    assert set(few.valid) == set(many.valid)
    assert set(many.test) < set(few.test)


def test_numbers_count_stars_not_spectra():
    keys = Column(np.repeat([f"s{k}" for k in range(110)], 3))
    split = splits(keys, 89, 9, 1)[0]
    assert [len(rows) for rows in split] == [267, 27, 36]


def test_errors():
    with pytest.raises(SpectrakitError, match=r"98 stars \(98 spectra\) cannot give 89 for training, 9 for validation and at least one for the test"):
        splits(np.arange(98))
    with pytest.raises(SpectrakitError, match="n_train=0, n_valid=9, n_splits=10; expected at least 1, 0 and 1."):
        splits(np.arange(98), n_train=0)
    with pytest.raises(LabelError, match="1 of 3 spectra have no star key"):
        splits(["a", "", "b"], 1, 0)
    with pytest.raises(LabelError, match="2 of 3 spectra"):
        splits(MaskedColumn(["a", "b", "c"], mask=[True, False, True]), 1, 0)
    with pytest.raises(LabelError, match="1 of 3 spectra"):
        splits([1.0, np.nan, 2.0], 1, 0)
    with pytest.raises(SpectrakitError, match=r"stars_key has shape \(2, 2\)"):
        splits(np.zeros((2, 2)))
