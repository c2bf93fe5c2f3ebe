"""Colours, masses and luminosities against published numbers: the Sun, the mean dwarf sequence, other colour relations, other reddening laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from spectrakit.photometry import DWARFS, GIANTS, REDDENING, _solve, draw_mass, intrinsic_colours, luminosity, observed_colours

# Pecaut & Mamajek 2013 (ApJS 208, 9), version 2024.05.15 of the table: Teff, J-H, H-Ks, mass, log L of F2V, F5V, F8V, G2V, G8V, K0V, K2V, K4V, K5V
SEQUENCE = np.array([[6820, 0.140, 0.050, 1.43, 0.710], [6550, 0.173, 0.054, 1.32, 0.556], [6180, 0.225, 0.061, 1.16, 0.292],
                     [5770, 0.293, 0.073, 1.00, 0.010], [5480, 0.342, 0.082, 0.93, -0.204], [5290, 0.387, 0.091, 0.86, -0.324],
                     [5100, 0.427, 0.098, 0.82, -0.428], [4600, 0.539, 0.123, 0.72, -0.692], [4440, 0.568, 0.132, 0.70, -0.780]])
TEFF, J_H, H_K, MASS, LOG_L = SEQUENCE.T
LOGG = 4.438 + np.log10(MASS) + 4 * np.log10(TEFF / 5772) - LOG_L
ZERO = np.zeros(len(TEFF))
# Casagrande et al. 2021 (MNRAS 507, 2684), Gaia DR3: teff as a polynomial of G-J or G-H, logg and feh, here at feh = 0
CASAGRANDE = {"j": (8142.3539, -3003.2988, 499.1325, -4.8473, 244.5030, -303.1783, 125.8628, -18.2917),
              "h": (8133.8090, -2573.4998, 554.7657, -54.0710, 229.2455, -206.8658, 68.6489, -10.5528)}


def casagrande_j_h(teff, logg):
    c = CASAGRANDE
    solve = lambda b: brentq(lambda x: np.polyval(c[b][3::-1], x) + logg * np.polyval(c[b][:3:-1], x) - teff, 0.3, 3.6)      # noqa: E731
    return solve("h") - solve("j")


def test_colours_of_the_sun():
    """Casagrande et al. 2012 (ApJ 761, 16), from stars with the Sun's line depths: J-H = 0.286, J-Ks = 0.362."""
    (j_h,), (j_k,) = intrinsic_colours(np.array([5777.0]), np.array([4.44]), np.array([0.0]))
    assert j_h == pytest.approx(0.286, abs=0.015)
    assert j_k == pytest.approx(0.362, abs=0.005)


def test_colours_of_the_mean_dwarf_sequence():
    j_h, j_k = intrinsic_colours(TEFF, LOGG, ZERO)
    np.testing.assert_allclose(j_h, J_H, atol=0.026)
    np.testing.assert_allclose(j_k, J_H + H_K, atol=0.022)
    assert abs((j_h - J_H).mean()) < 0.018
    assert abs((j_k - J_H - H_K).mean()) < 0.006


@pytest.mark.parametrize(("teff", "logg"), [(4250.0, 1.6), (4500.0, 2.2), (4800.0, 2.5), (5100.0, 3.0)])
def test_colours_of_giants_by_another_relation(teff, logg):
    (j_h,), _ = intrinsic_colours(np.array([teff]), np.array([logg]), np.array([0.0]))
    assert j_h == pytest.approx(casagrande_j_h(teff, logg), abs=0.015)


@pytest.mark.parametrize(("logg", "b"), [(4.5, (0.6524, 0.5813, 0.1225, -0.0646, 0.0370, 0.0016)), (2.5, (0.6517, 0.6312, 0.0168, -0.0381, 0.0256, 0.0013))])
@pytest.mark.parametrize("feh", [0.0, -1.0, -2.0])
def test_j_k_is_near_the_same_papers_direct_relation(logg, b, feh):
    """They also fitted J-Ks itself. Within 140 K, its own scatter; where it ends, above 6000 K, the two part."""
    teff = np.array([4500.0, 5000.0, 5500.0, 6000.0])
    j_k = intrinsic_colours(teff, np.full(4, logg), np.full(4, feh))[1]
    direct = 5040 / (b[0] + b[1] * j_k + b[2] * j_k**2 + b[3] * j_k * feh + b[4] * feh + b[5] * feh**2)
    np.testing.assert_allclose(direct, teff, atol=140)


@settings(max_examples=50)
@given(st.floats(4200, 7000), st.floats(-4, 0.5), st.sampled_from(sorted(DWARFS)), st.sampled_from([DWARFS, GIANTS]))
def test_solving_for_the_colour_is_the_inverse(teff, feh, band, table):
    b, x = table[band], float(_solve(table[band], teff, feh))
    assert 5040 / (b[0] + b[1] * x + b[2] * x**2 + b[3] * x * feh + b[4] * feh + b[5] * feh**2) == pytest.approx(teff, rel=1e-9)
    assert _solve(table[band], teff - 10, feh) > x                           # cooler is redder


def test_dwarfs_pass_into_giants_without_a_step():
    logg = np.linspace(2.5, 4.5, 201)
    for colour in intrinsic_colours(np.full(201, 5000.0), logg, np.zeros(201)):
        assert np.abs(np.diff(colour)).max() < 0.001
        assert (colour[:50] == colour[0]).all() and (colour[-70:] == colour[-1]).all()


def test_scatter_and_reddening():
    n = 100_000
    j_h, j_k = observed_colours(np.full(n, 0.3), np.full(n, 0.4), np.full(n, 0.5), np.random.default_rng(0))
    assert j_h.mean() == pytest.approx(0.3 + 0.5 * 0.264, abs=5e-4)
    assert j_k.mean() == pytest.approx(0.4 + 0.5 * 0.413, abs=5e-4)
    assert j_h.std() == pytest.approx(0.0255, rel=0.01)
    assert np.corrcoef(j_h, j_k)[0, 1] == pytest.approx(0.5, abs=0.01)       # J is in both
    step = np.diff(intrinsic_colours(np.array([5727.0, 5827.0]), np.full(2, 4.44), np.zeros(2))[1])
    assert j_k.std() * abs(100 / step[0]) == pytest.approx(132, rel=0.03)    # K in J-Ks, Casagrande et al. 2010 (A&A 512, A54), Table 4


def test_reddening_is_that_of_other_authors():
    """Yuan et al. 2013 (MNRAS 430, 2188) from LAMOST and SDSS stars: R(J), R(H), R(Ks) = 0.72, 0.46, 0.306."""
    np.testing.assert_allclose([REDDENING[band] for band in "jhk"], [0.72, 0.46, 0.306], atol=0.006)


def test_masses_of_dwarfs():
    """Mean of many draws against the dwarf sequence: within 5 %, what Torres et al. find for the Sun."""
    n = 4000
    mass = draw_mass(*(np.repeat(x, n) for x in (TEFF, LOGG, ZERO, ZERO + 9, ZERO)), np.random.default_rng(0)).reshape(-1, n)
    np.testing.assert_allclose(np.median(mass, 1), MASS, rtol=0.055)
    np.testing.assert_allclose(np.log10(mass).std(1), 0.027, rtol=0.05)


def test_masses_of_giants_are_the_components():
    n = 20_000
    teff, logg, feh = np.full(n, 4700.0), np.full(n, 2.5), np.full(n, -0.5)
    mass = draw_mass(teff, logg, feh, np.full(n, 1.1), np.full(n, 0.1), np.random.default_rng(0))
    assert np.median(mass) == pytest.approx(1.1, rel=0.01)
    assert np.log10(mass).std() == pytest.approx(0.1, rel=0.03)


def test_old_metal_poor_turn_off_stars_weigh_0_8():
    """Turn-off mass of a 12 Gyr old halo: 0.75 to 0.80 solar masses in any stellar model, however poor in metals."""
    teff, logg, feh = np.array([6400.0, 6400.0]), np.array([4.2, 4.2]), np.array([-2.0, -3.5])
    mass = np.mean([draw_mass(teff, logg, feh, -feh, feh * 0, np.random.default_rng(i)) for i in range(200)], 0)
    np.testing.assert_allclose(mass, 0.8, atol=0.05)


def test_luminosity():
    one = np.array([1.0])
    assert luminosity(one, np.array([5772.0]), np.array([4.438]))[0] == pytest.approx(1.0, abs=0.001)
    np.testing.assert_allclose(np.log10(luminosity(MASS, TEFF, LOGG)), LOG_L, atol=0.001)
    assert luminosity(2 * one, 2 * 5772.0 * one, 3.438 * one)[0] == pytest.approx(2 * 16 * 10, rel=0.001)
