"""Degrading: widths by the formula, noise by counting, masks, and the same spectra as an instrument of that resolution would have seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.table import Table

import spectrakit as sk
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.library import load_library
from spectrakit.line_spread import FWHM
from spectrakit.resolution import degrade
from spectrakit.simulation import observe
from spectrakit.surveys import DESI, LAMOST, MILES, Systematics

PERFECT = Systematics(0.0, 0.0, 0.0, 0.0, 0.0)
STARS = np.array([[5777.0, 4.4, 0, 0, 0], [4800, 2.5, -0.5, 0.1, 0], [6200, 4.2, -1.5, 0.3, 0.1]])


def make(wave, flux, resolution, ivar=None, mask=None):
    flux = np.atleast_2d(flux)
    clear = np.zeros(flux.shape, bool)
    return sk.SpectraSet(wave, flux, np.ones(flux.shape) if ivar is None else ivar, clear if mask is None else mask, Table({"star": np.arange(len(flux))}),
                         "mine", "vacuum", "rest", np.broadcast_to(float(resolution), wave.shape).copy(), "none", "simulated", {"origin": "made", "history": []})


def seen(survey, resolution):
    """STARS, without noise and systematics, by an instrument of this resolution."""
    library, survey = load_library(), replace(survey, fwhm=(4000 / resolution, 1.0), snr=(1e6, 1.001e6))
    return observe(lambda rows: library.opacity(torch.as_tensor(STARS[rows])), STARS, survey, library, np.random.default_rng(0), PERFECT)


@pytest.mark.parametrize(("wave", "own", "new"), [
    (np.arange(4700.0, 4900.0, 0.9), 2200, 1800), (np.arange(4700.0, 4900.0, 0.9), 2200, 600), (4700 * np.exp(np.arange(2500) / 60000), 20000, 1800),
    (np.arange(4700.0, 4900.0, 0.8), 2000, 1950), (np.arange(4700.0, 4900.0, 0.8), 3500, 1800)], ids=["MILES", "MILES to 600", "R 20000", "a little", "DESI"])
def test_a_line_widens_by_the_difference_of_the_squares(wave, own, new):
    """sigma^2 grows from (wave / FWHM / own)^2 to (wave / FWHM / new)^2, and the area stays; kernels from a fifth of a pixel on."""
    narrow, wide = (4800 / FWHM / r for r in (own, new))
    out = degrade(make(wave, 1 - 0.5 * np.exp(-0.5 * ((wave - 4800) / narrow) ** 2), own), new)
    expected = 1 - 0.5 * narrow / wide * np.exp(-0.5 * ((wave - 4800) / wide) ** 2)
    np.testing.assert_allclose(out.flux[~out.mask], expected[~out.mask[0]], atol=0.003)
    depth, at = np.where(out.mask, 0, 1 - out.flux)[0], wave - 4800
    assert depth @ np.gradient(wave) == pytest.approx(0.5 * narrow * np.sqrt(2 * np.pi), rel=2e-3)
    assert np.sqrt(depth @ at**2 / depth.sum()) == pytest.approx(wide, rel=0.01)
    assert (out.resolution == new).all() and out.provenance["history"] == [f"degraded to a resolving power of {new}-{new}"]


@pytest.mark.parametrize("survey", [LAMOST, DESI, MILES], ids=lambda s: s.name)
def test_degraded_is_what_the_lesser_instrument_sees(survey):
    out, expected = degrade(seen(survey, 3000.0), 1800), seen(survey, 1800.0)
    good = ~out.mask.any(0)
    assert good.mean() > 0.98
    good[:8], good[-8:] = False, False                                                  # at the ends a tenth of the kernel may be missing
    ratio = out.flux[:, good] / expected.flux[:, good]
    assert np.abs(ratio / np.median(ratio, 1)[:, None] - 1).max() < 0.005


def test_errors_are_those_of_the_mean():
    """The scatter of degraded noise is what its ivar says, and an even spectrum stays even."""
    wave, rng = np.arange(4700.0, 4760.0, 0.9), np.random.default_rng(0)
    sigma = np.linspace(0.5, 2, wave.size)
    out = degrade(make(wave, 10 + sigma * rng.standard_normal((8000, wave.size)), 2400, np.tile(sigma**-2, (8000, 1))), 1200)
    good = ~out.mask[0]
    np.testing.assert_allclose(((out.flux - 10) * np.sqrt(out.ivar))[:, good].std(0), 1, atol=0.04)
    assert out.flux[:, good].mean() == pytest.approx(10, abs=0.01)
    assert (out.ivar[:, good] > sigma[good] ** -2).all()


def test_unusable_pixels_are_left_out():
    wave = 4700 * np.exp(np.arange(2500) / 60000)
    mask, ivar = np.zeros((1, wave.size), bool), np.ones((1, wave.size))
    mask[0, 1000], mask[0, 1500:1600], ivar[0, 500] = True, True, 0.0
    results = [degrade(make(wave, np.where(mask | (ivar == 0), junk, 3.0), 20000, np.where(mask, junk, ivar), mask), 1800) for junk in (1e9, -5.0)]
    for out in results:
        np.testing.assert_allclose(out.flux[~out.mask], 3.0, rtol=1e-12)
        assert not out.mask[0, [500, 1000]].any() and out.mask[0, 1500:1600].all() and out.mask[0, [0, -1]].all()
        assert out.mask[0, 1200:1900].sum() == pytest.approx(100 + 2 * 18, abs=4)     # a tenth of the weight lies beyond 1.28 sigma, 18 pixels
    np.testing.assert_array_equal(results[0].ivar, results[1].ivar)


def test_what_is_lower_already_stays():
    wave = np.arange(4000.0, 5600.0, 0.9)
    stars = replace(make(wave, 1 + 0.1 * np.sin(wave), 2000), resolution=wave / 2.5)
    out = degrade(stars, np.minimum(stars.resolution, 1800.0))
    low = stars.resolution < 1800
    np.testing.assert_allclose(out.flux[0, low], stars.flux[0, low], rtol=1e-9)
    assert np.abs(out.flux[0, ~low][:-5]).max() < 1.1 and (out.resolution == np.minimum(stars.resolution, 1800)).all()


@pytest.mark.parametrize(("stars", "new", "error", "says"), [
    (lambda: make(np.arange(4000.0, 5000.0), np.ones(1000), 1500), 1800, MismatchError,
     r"A resolving power of 1800 is asked for at 4000 A, the spectra have 1500 there .*np.minimum\(stars.resolution, 1800\)"),
    (lambda: make(np.arange(4000.0, 5000.0), np.ones(1000), np.nan), 1800, MismatchError, "the spectra have nan there"),
    (lambda: make(np.arange(4000.0, 5000.0), np.ones(1000), 20000), 1800, SpectrumError,
     "The line spread at 4000 A is 0.20 A wide, a pixel 1.00 A: .* before they are normalised onto a coarser grid"),
    (lambda: make(np.r_[4000.0:4100, 4200.0:4300], np.ones(200), 2000), 1800, SpectrumError, r"jumps at 4099 A \(1.00 and 101.00 A\)"),
], ids=["lower", "nan", "coarse pixels", "gap"])
def test_what_cannot_be_degraded(stars, new, error, says):
    with pytest.raises(error, match=says):
        degrade(stars(), new)
