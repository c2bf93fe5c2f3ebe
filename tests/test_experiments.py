"""The protocol: every method on the same splits, what is done is kept, no label of a test star is handed over by accident."""

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.experiments import compare, in_hull, summary


@pytest.fixture(scope="module")
def stars():
    return sk.normalize(sk.simulate("miles", n=80, seed=2))


@pytest.fixture
def splits(stars):
    return sk.experiments.splits(np.asarray(stars.labels["star"]), n_train=30, n_valid=5, n_splits=3, seed=0)


def mean_of_training(train, valid, test, k):
    return np.full(len(test), train.label("feh").mean()) + 1e-3 * np.arange(len(test)), np.full(len(test), 0.5)


def test_constant_guess_has_r2_of_zero_and_the_population_s_scatter(stars, splits):
    table = compare(stars, {"mean": mean_of_training}, "feh", splits, progress=False)
    everyone = table[table.regime == "all"]
    assert list(everyone.split) == [0, 1, 2] and (everyone.n == 45).all()
    assert everyone.r2.abs().max() < 0.2 and everyone.sigma.between(0.3, 1.5).all()
    assert summary(table).query("regime == 'all'").n_splits.item() == 3


def test_coverage_is_the_share_within_one_sigma(stars, splits):
    def exact(train, valid, test, k):
        half = np.where(np.arange(len(test)) % 2, 0.01, 0.2)                  # every second star beyond its sigma
        return test.label("feh") + half, np.full(len(test), 0.1)
    table = compare(stars, {"half": exact}, "feh", splits[:1], progress=False)
    assert table[table.regime == "all"].coverage.item() == pytest.approx(22 / 45)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_table(stars, splits, tmp_path):
    calls = []

    def counted(train, valid, test, k):
        calls.append(k)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mean_of_training(train, valid, test, k)

    path = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        compare(stars, {"mean": counted}, "feh", splits, path, progress=False)
    table = compare(stars, {"mean": counted}, "feh", splits, path, progress=False)
    assert calls == [0, 1, 2, 2]
    whole = compare(stars, {"mean": mean_of_training}, "feh", splits, progress=False)
    assert np.allclose(table[["sigma", "bias", "r2"]], whole[["sigma", "bias", "r2"]])


def test_in_hull_agrees_with_the_library_s_own_verdict(stars):
    assert in_hull(stars).mean() > 0.95                                       # drawn inside; alpha_fe and c_fe are replaced by typical values
    from dataclasses import replace
    labels = stars.labels.copy()
    labels["logg"] = 0.5 * labels["logg"].unit
    assert not in_hull(replace(stars, labels=labels)).any()
