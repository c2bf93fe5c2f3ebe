"""The stated noise estimate: right for white noise, blind to the continuum and to what is masked, and never below its floor."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spectrakit.readers.noise import estimate_ivar

X = np.linspace(-1, 1, 4000)
LEVEL = 5 + 3 * X - X**2
CLEAR = np.zeros((1, X.size), bool)


def noisy(relative, seed=0):
    return (LEVEL * (1 + np.random.default_rng(seed).normal(0, relative, X.size)))[None]


@given(st.floats(0.02, 0.2), st.integers(0, 99))
def test_white_noise_is_recovered(relative, seed):
    # 2 % and more: above the floor.
    sigma = estimate_ivar(noisy(relative, seed), CLEAR, correlation=1.0, floor=0.005)[0] ** -0.5
    assert 0.85 < np.median(sigma / LEVEL) / relative < 1.25
    assert (sigma / LEVEL / relative > 0.6).all()


def test_smoothed_noise_is_recovered_with_its_correlation():
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.06) ** 2)
    noise = np.convolve(np.random.default_rng(1).normal(0, 1, X.size + 12), kernel, "valid")
    flux = LEVEL * (1 + 0.02 * noise / noise.std())
    sigma = estimate_ivar(flux[None], CLEAR, correlation=6.0, floor=0.001)[0] ** -0.5
    assert 0.7 < np.median(sigma / LEVEL) / 0.02 < 1.3


def test_a_line_forest_in_one_half_does_not_set_the_noise_of_the_other():
    flux = noisy(0.01)
    flux[:, :2000] *= 1 - 0.3 * (np.arange(2000) % 7 < 2)
    sigma = estimate_ivar(flux, CLEAR, correlation=1.0, floor=0.005)[0] ** -0.5
    np.testing.assert_allclose(np.median((sigma / LEVEL)[2200:]), 0.01, rtol=0.2)
    assert np.median((sigma / LEVEL)[:1800]) > 0.02  # lines count as noise where they are everywhere: an upper limit


def test_the_floor_holds_for_a_noiseless_spectrum():
    sigma = estimate_ivar(LEVEL[None], CLEAR, correlation=6.0, floor=0.005)[0] ** -0.5
    np.testing.assert_allclose((sigma / LEVEL)[200:-200], 0.005, rtol=0.03)  # the level is a running median, constant at the ends


@given(st.sampled_from([np.nan, np.inf, -1e9, 0.0]), st.integers(0, 99))
def test_what_is_masked_changes_nothing(junk, seed):
    mask = np.random.default_rng(seed).random(CLEAR.shape) < 0.1
    mask[0, 1000:1700] = True
    first, second = noisy(0.02), np.where(mask, junk, noisy(0.02))
    a, b = (estimate_ivar(flux, mask, correlation=2.0, floor=0.005) for flux in (first, second))
    np.testing.assert_array_equal(a, b)
    assert not a[mask].any() and (a[~mask] > 0).all()


def test_scaling_the_flux_scales_the_error():
    a, b = (estimate_ivar(scale * noisy(0.03), CLEAR, correlation=2.0, floor=0.005) for scale in (1.0, 1000.0))
    np.testing.assert_allclose(a, b * 1e6)


def test_a_spectrum_without_a_usable_window_gets_no_weight():
    flux, mask = np.vstack([noisy(0.02), noisy(0.02)]), np.vstack([~CLEAR, CLEAR])
    ivar = estimate_ivar(flux, mask, correlation=2.0, floor=0.005)
    assert not ivar[0].any() and (ivar[1] > 0).all()
