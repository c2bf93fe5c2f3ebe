"""Metrics against documented numbers, scikit-learn and closed forms."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.stats import mad_std
from astropy.table import MaskedColumn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import r2_score

from spectrakit.errors import LabelError, MismatchError, SpectrakitError
from spectrakit.metrics import by_regime, over_splits, paired, score
from spectrakit.spectra import label_table


def stars(n=2000, scatter=0.2, seed=1):
    rng = np.random.default_rng(seed)
    feh = rng.normal(-0.5, 0.6, n)
    return feh, feh + rng.normal(0, scatter, n)


def test_sigma_of_a_gaussian_and_of_one_with_outliers():
    """The published checks: Gaussian 0.2 -> 0.2018; a tenth of the points ten times farther out -> 0.225, where the plain one gives 0.654."""
    z = norm.ppf((np.arange(200_000) + 0.5) / 200_000)  # quantiles, not a draw: no sampling error
    truth = np.linspace(-1, 1, z.size)
    assert score(truth, truth + 0.2 * z, n_boot=1).sigma == pytest.approx(0.2 * gaussian_limit(), rel=1e-3)
    assert gaussian_limit() == pytest.approx(1.010, abs=0.001)
    noise = np.where(np.arange(z.size) % 10 == 0, 2, 0.2) * z
    assert noise.std() == pytest.approx(0.654, rel=0.01)
    assert score(truth, truth + noise, n_boot=1).sigma == pytest.approx(0.225, rel=0.01)


def gaussian_limit():
    """The biweight scale of a standard Gaussian, by integrals."""
    def mean(f):
        return quad(lambda z: f(z, (z / 6) ** 2) * norm.pdf(z), -6, 6)[0]
    return np.sqrt(mean(lambda z, w: z**2 * (1 - w) ** 4)) / mean(lambda z, w: (1 - w) * (1 - 5 * w))


def published(residual):
    """The published formula, written out: it divides by D(D - 1)."""
    d = residual - np.median(residual)
    w = (d / (6 * np.median(abs(d)) / 0.6745)) ** 2
    keep = w <= 1
    scale = ((1 - w) * (1 - 5 * w))[keep].sum()
    return np.sqrt(len(d) * (d**2 * (1 - w) ** 4)[keep].sum() / (scale * (scale - 1)))


@pytest.mark.parametrize(("n", "excess"), [(10, 0.065), (89, 0.0067), (300, 0.002)])
def test_difference_to_the_published_formula_is_as_documented(n, excess):
    rng = np.random.default_rng(2)
    ratio = []
    for _ in range(100):
        truth, noise = rng.normal(size=n), rng.normal(size=n)
        ratio.append(published(noise) / score(truth, truth + noise, n_boot=1).sigma - 1)
    assert np.median(ratio) == pytest.approx(excess, rel=0.15)


def test_constant_bias_is_invisible_to_sigma_but_not_to_bias_and_r2():
    feh, value = stars()
    plain, offset = score(feh, value), score(feh, value + 0.5)
    assert offset.sigma == pytest.approx(plain.sigma, rel=1e-12)
    assert offset.bias == pytest.approx(plain.bias + 0.5)
    assert offset.r2 < plain.r2 - 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.floats(0.01, 100), st.floats(-10, 10))
def test_r2_is_sklearns_and_figures_follow_a_change_of_units(seed, n, factor, shift):
    rng = np.random.default_rng(seed)
    truth, value = rng.normal(size=(2, n))
    one, other = score(truth, value, n_boot=3), score(truth * factor + shift, value * factor + shift, n_boot=3)
    assert one.r2 == pytest.approx(r2_score(truth, value), abs=1e-10)
    assert other.r2 == pytest.approx(one.r2, abs=1e-8)
    assert (other.sigma, other.bias) == (pytest.approx(one.sigma * factor, abs=1e-10), pytest.approx(one.bias * factor, abs=1e-10))
    for name in ("sigma", "bias", "r2"):
        low, high = getattr(one, f"{name}_interval")
        assert low <= high
        assert np.isfinite([low, high]).all()


def test_a_perfect_answer():
    feh, _ = stars(50)
    perfect = score(feh, feh)
    assert (perfect.sigma, perfect.bias, perfect.r2) == (0, 0, 1)
    assert perfect.sigma_interval == (0, 0)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    hits = []
    for k in range(250):
        truth, noise = rng.normal(0, 1, 150), rng.normal(0.1, 0.2, 150)
        s = score(truth, truth + noise, n_boot=250, seed=k)
        hits.append((s.sigma_interval[0] < 0.2 < s.sigma_interval[1], s.bias_interval[0] < 0.1 < s.bias_interval[1],
                     s.r2_interval[0] < 1 - (0.2**2 + 0.1**2) < s.r2_interval[1]))
    assert np.mean(hits, axis=0) == pytest.approx(0.68, abs=0.09)  # three standard errors of 250 trials


def test_bootstrap_is_seeded_and_right_in_several_blocks():
    feh, value = stars(40)
    assert score(feh, value, seed=4) == score(feh, value, seed=4)
    assert score(feh, value, seed=4) != score(feh, value, seed=5)
    big = score(*stars(60_000), n_boot=50)  # several blocks
    width = np.ptp(big.bias_interval) / 2 / 0.994  # 68 % of a Gaussian are +-0.994 sigma
    assert width == pytest.approx(np.sqrt(np.pi / 2) * 0.2 / np.sqrt(60_000), rel=0.4)


def test_units_are_converted_to_the_fields_and_taken_off():
    table = label_table(teff=[5000.0, 5500, 6000, 6100], feh=[0.0, -1, -2, 0.5])
    hot = score(table["teff"], [5.1, 5.6, 6.1, 6.2] * u.kK)
    assert (hot.bias, hot.unit) == (pytest.approx(100), "K")
    assert score(table["feh"], np.array([0.1, -0.9, -1.9, 0.6])).unit == "dex"
    assert score([1, 2, 3] * u.km, [1100.0, 2100, 3100] * u.m).bias == pytest.approx(0.1)
    assert score([1.0, 2, 3], [1.0, 2, 4]).unit == ""
    with pytest.raises(LabelError, match="The units dex and K do not convert into each other."):
        score(table["feh"], [1, 2, 3, 4] * u.K)


def test_bad_input_is_refused_with_counts():
    feh, value = stars(5)
    with pytest.raises(MismatchError, match=r"truth has shape \(5,\) and value \(4,\); expected the same \(n,\) for both."):
        score(feh, value[:4])
    with pytest.raises(MismatchError, match=r"expected the same \(n,\)"):
        score(feh[:, None], value[:, None])
    value[1] = np.nan
    with pytest.raises(LabelError, match="1 of 5 entries of value are NaN, infinite or masked; choose the stars that have both first."):
        score(feh, value)
    with pytest.raises(LabelError, match="2 of 5 entries of truth"):
        score(MaskedColumn(feh, mask=[1, 0, 0, 0, 1]), feh)
    with pytest.raises(LabelError, match="2 stars: a scatter needs at least 3."):
        score(feh[:2], feh[:2])
    with pytest.raises(LabelError, match="All 3 truths are 1: R2 does not exist for a constant truth."):
        score([1.0, 1, 1], [1.0, 2, 3])
    with pytest.raises(SpectrakitError, match="n_boot is 0 and level 0.68"):
        score(feh, feh, n_boot=0)


def test_repr_and_row():
    s = score(*stars(100), seed=0)
    assert repr(s).startswith(f"Score(sigma {s.sigma:.3f} [")
    assert "R2" in repr(s)
    assert "n 100; 68% intervals" in repr(s)
    row = s.to_dict()
    assert list(row) == [f + e for f in ("sigma", "bias", "r2") for e in ("", "_low", "_high")] + ["n", "unit", "level"]
    assert row["sigma_low"] == s.sigma_interval[0]


def test_by_regime_separates_and_says_why_a_regime_is_empty():
    feh, value = stars(400)
    table = by_regime(feh, value, feh, n_boot=20)
    assert list(table.regime) == ["all", ">= -1", "< -1"]
    assert list(table.n) == [400, (feh >= -1).sum(), (feh < -1).sum()]
    assert table.sigma[2] == score(feh[feh < -1], value[feh < -1], n_boot=20).sigma
    assert (table.note == "").all()
    rich = by_regime(feh[feh >= -1], value[feh >= -1], feh[feh >= -1], n_boot=20)
    assert rich.n[2] == 0
    assert rich.loc[2, ["sigma", "bias", "r2", "sigma_low"]].isna().all()
    assert rich.note[2] == "0 stars: a scatter needs at least 3."


def test_by_regime_edges_units_and_constant_truth():
    column = label_table(feh=[-2.5, -2, -1.5, -1, 0, 0, 0])["feh"]
    table = by_regime(column, list(np.asarray(column) + 0.1), column, edges=(-2, -1), n_boot=20)
    assert dict(zip(table.regime, table.n, strict=True)) == {"all": 7, ">= -1": 4, "-2 to -1": 2, "< -2": 1}
    assert (table.unit == "dex").all()
    flat = by_regime([0.0, 0, 0, -2, -3, -2.5], np.zeros(6), [0.0, 0, 0, -2, -3, -2.5], n_boot=20)
    assert flat.note[1] == "All 3 truths are 0: R2 does not exist for a constant truth."
    with pytest.raises(LabelError, match="1 of 3 entries of feh"):
        by_regime([1.0, 2, 3], [1.0, 2, 3], [0, np.nan, 0])
    with pytest.raises(SpectrakitError, match="n_boot"):
        by_regime([1.0, 2, 3], [1.0, 2, 3], [0.0, 0, 0], n_boot=0)


def test_over_splits_matches_by_hand():
    parts = [by_regime(*(x := stars(300, seed=k)), x[0], n_boot=5).assign(split=k, model="a") for k in range(4)]
    table = over_splits(pd.concat(parts), by=("model", "regime"))
    sigma = np.array([p.sigma[0] for p in parts])
    first = table.iloc[0]
    assert (first.model, first.regime, first.n_splits) == ("a", "all", 4)
    assert first.sigma == pytest.approx(sigma.mean())
    assert first.sigma_scatter == pytest.approx(sigma.std(ddof=1))
    assert first.sigma_error == pytest.approx(sigma.std(ddof=1) / 2)
    empty = over_splits(pd.concat([by_regime(f := [0.0, 0.1, 0.3], [0.1, 0, 0.3], f, n_boot=3)] * 2))
    assert (empty.n_splits[2], empty.n[2]) == (0, 0)
    assert np.isnan(empty.sigma_error[2])
    with pytest.raises(MismatchError, match="The table lacks the columns model, r2; concatenate by_regime tables, one a split."):
        over_splits(parts[0].drop(columns=["r2", "model"]), by=("model", "regime"))


def test_paired_interval_is_that_of_a_mean():
    rng = np.random.default_rng(6)
    luck = rng.normal(0.2, 0.05, 40)
    a, b = luck + rng.normal(-0.01, 0.005, 40), luck + rng.normal(0, 0.005, 40)
    d = paired(a, b)
    assert d.mean == pytest.approx((a - b).mean())
    assert np.ptp(d.interval) / 2 == pytest.approx(0.994 * (a - b).std() / np.sqrt(40), rel=0.05)  # not that of luck, ten times wider
    assert d.smaller == (a < b).mean()
    assert d.to_dict() == {"mean": d.mean, "smaller": d.smaller, "n": 40, "level": 0.68, "low": d.interval[0], "high": d.interval[1]}
    assert repr(d).startswith(f"Difference({d.mean:+.3f} [")
    with pytest.raises(LabelError, match="2 splits: a scatter needs at least 3."):
        paired([1.0, 2], [1.0, 2])
    with pytest.raises(MismatchError, match=r"a has shape \(3,\) and b \(2,\)"):
        paired([1.0, 2, 3], [1.0, 2])


def test_sigma_is_robust_where_the_plain_one_is_not():
    feh, value = stars(500)
    value[::25] += 30
    assert score(feh, value, n_boot=5).sigma == pytest.approx(mad_std(value - feh), rel=0.1)
