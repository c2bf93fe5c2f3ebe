"""The test of attention is itself tested: areas against scikit-learn, its errors of both kinds by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.significance import holm, roc_auc, shift_test, shifted_auc
from spectrakit.surveys import LRS_GRID

N_PIX = len(LRS_GRID)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 60), st.booleans())
def test_area_is_scikit_learns_at_every_shift(seed, n_pix, tied):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (2, n_pix)).astype(float) if tied else rng.normal(size=(2, n_pix))
    positive = np.stack([np.arange(n_pix) < rng.integers(1, n_pix) for _ in range(2)])
    found = shifted_auc(scores, positive)
    for star in range(2):
        for k in (0, 1, n_pix // 2, n_pix - 1):
            assert found[star, k] == pytest.approx(roc_auc_score(positive[star], np.roll(scores[star], -k)), abs=1e-9)
    assert np.array_equal(roc_auc(scores, positive), found[:, 0])


def clustered(rng, n_lines=40):
    """Positive pixels as lines make them: a tenth of the spectrum, in groups, more of them in the blue."""
    groups = np.append(0, rng.choice(N_PIX, 8, p=np.linspace(3, 1, N_PIX) / np.linspace(3, 1, N_PIX).sum()))
    centres = rng.choice(groups, n_lines) + rng.normal(0, 25, n_lines)
    depth = sum(np.exp(-0.5 * ((np.arange(N_PIX) - centre % N_PIX) / 3) ** 2) * rng.uniform(0.2, 1) for centre in centres)
    return np.argsort(np.argsort(-depth, kind="stable")) < 146


def smooth(rng, width):
    return gaussian_filter1d(rng.normal(size=N_PIX), width, mode="wrap")


@pytest.mark.parametrize("width", [1, 10, 30])
def test_errors_of_the_first_kind_are_nominal(width):
    """Scores of attention's smoothness and of none, clustered lines, 200 trials: 5 % of them at most, within what 200 trials can tell (1 in 1000)."""
    rng = np.random.default_rng(width)
    p = np.array([shift_test(smooth(rng, width)[None], clustered(rng)[None], LRS_GRID, n_boot=2).p for _ in range(200)])
    assert (p <= 0.05).sum() <= binom.ppf(0.999, 200, 0.05) and p.mean() > 0.4


def test_lines_shared_by_all_stars_do_not_make_it_liberal():
    """One draw of scores, seen through noise in ten stars with the same lines: still one draw."""
    rng = np.random.default_rng(5)
    p = []
    for _ in range(200):
        scores, lines = smooth(rng, 10), clustered(rng)
        p.append(shift_test(scores + 0.02 * rng.normal(size=(10, N_PIX)), np.tile(lines, (10, 1)), LRS_GRID, n_boot=2).p)
    assert (np.array(p) <= 0.05).sum() <= binom.ppf(0.999, 200, 0.05)


def test_a_permutation_of_pixels_would_be_liberal():
    """Why shifts: neighbours are alike, and with pixels permuted freely the same scores are significant far too often."""
    rng = np.random.default_rng(6)
    false = 0
    for _ in range(40):
        scores, lines = smooth(rng, 20), clustered(rng)
        areas = roc_auc(np.stack([scores, *(rng.permutation(scores) for _ in range(39))]), np.tile(lines, (40, 1)))
        false += (areas >= areas[0]).mean() <= 0.05
    assert false > 9 > binom.ppf(0.999, 40, 0.05)


@pytest.mark.parametrize(("width", "strength", "least"), [(1, 0.5, 0.9), (10, 1.0, 0.7)])
def test_planted_signal_is_found(width, strength, least):
    rng = np.random.default_rng(7)
    found = []
    for _ in range(50):
        lines = clustered(rng)
        noise, signal = smooth(rng, width), gaussian_filter1d(lines.astype(float), width, mode="wrap")
        scores = noise / noise.std() + strength * signal / signal.std()
        found.append(shift_test(scores[None], lines[None], LRS_GRID, n_boot=2).p <= 0.05)
    assert np.mean(found) >= least


def test_perfect_scores_have_the_least_p_that_the_number_of_shifts_allows():
    rng = np.random.default_rng(8)
    lines = np.stack([clustered(rng) for _ in range(6)])
    found = shift_test(lines + 0.1 * rng.normal(size=lines.shape), lines, LRS_GRID)
    assert (found.auc, found.low, found.high) == pytest.approx((1, 1, 1)) and found.p == 1 / N_PIX and found.n_shifts == N_PIX - 1 >= 1000 and found.n == 6
    assert found.null_mean == pytest.approx(0.5, abs=0.01) and 0.5 < found.null_95 < 0.8
    avoided = shift_test(-1.0 * lines, lines, LRS_GRID)
    assert avoided.auc == pytest.approx(0) and avoided.p == 1


def test_interval_is_that_of_the_stars():
    rng = np.random.default_rng(9)
    lines = np.tile(clustered(rng), (40, 1))
    scores = lines * rng.uniform(0, 2, (40, 1)) + rng.normal(size=lines.shape)
    each, found = roc_auc(scores, lines), shift_test(scores, lines, LRS_GRID)
    assert found.auc == pytest.approx(each.mean()) and (found.high - found.low) / 2 == pytest.approx(each.std() / 40**0.5, rel=0.15)
    assert shift_test(scores, lines, LRS_GRID).to_dict() == found.to_dict()


def test_what_cannot_be_tested_is_refused():
    lines = np.zeros((1, N_PIX), bool)
    lines[0, :10] = True
    scores = np.zeros((1, N_PIX))
    with pytest.raises(MismatchError, match="The steps of ln.wave. run from .*; a shift in log wavelength needs even ones. Resample"):
        shift_test(scores, lines, np.linspace(4000, 5600, N_PIX))
    with pytest.raises(SpectrumError, match="Star 0 has only one kind of pixel"):
        roc_auc(scores, ~lines | True)
    with pytest.raises(SpectrumError, match="with 1 NaN or infinite"):
        roc_auc(np.where(np.arange(N_PIX) == 3, np.nan, scores), lines)
    gap = np.delete(LRS_GRID, slice(500, 600))
    assert shift_test(np.delete(scores, slice(500, 600), 1), np.delete(lines, slice(500, 600), 1), gap).auc == pytest.approx(0.5)


def test_holm_of_a_published_example():
    """Of 0.01, 0.04, 0.03, 0.005: times 4, 3, 2, 1 in order of size, and never below the one before (R: p.adjust)."""
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(holm(np.array([0.6, 0.7])), [1, 1])
    with pytest.raises(SpectrumError, match="run from -0.1 to 0.5; expected 0 to 1"):
        holm(np.array([-0.1, 0.5]))


def test_holm_keeps_the_error_of_a_family():
    rng = np.random.default_rng(10)
    wrong = [(holm(rng.uniform(size=20)) <= 0.05).any() for _ in range(2000)]
    assert binom.ppf(0.001, 2000, 0.05) - 20 <= sum(wrong) <= binom.ppf(0.999, 2000, 0.05)
