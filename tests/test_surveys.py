"""The declarations of surveys: the numbers of the papers, and that each of them can be simulated from the library."""

from dataclasses import replace

import numpy as np
import pytest

from spectrakit.errors import MismatchError
from spectrakit.library import load_library
from spectrakit.line_spread import FWHM
from spectrakit.population import POPULATIONS
from spectrakit.spectra import FRAMES, MEDIA, to_vacuum
from spectrakit.surveys import APOGEE, C_KMS, DESI, DESI_FULL, LAMOST, LRS_GRID, MILES, PRETRAINING, STELIB, SURVEYS, Systematics, get_survey

EACH = pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)


def test_model_grid_is_specclips():
    assert LRS_GRID.size == 1462
    np.testing.assert_allclose(LRS_GRID[[0, -1]], [3999.45, 5598.87], atol=0.005)
    np.testing.assert_allclose(np.log10(LRS_GRID), 3.602 + 1e-4 * np.arange(1462), rtol=1e-14)


def test_lamost_has_the_pixels_of_the_model_grid():
    """The same numbers: no resampling between the instrument and the model."""
    pixels = LAMOST.pixels
    start = np.abs(pixels - LRS_GRID[0]).argmin()
    np.testing.assert_allclose(pixels[start:start + 1462], LRS_GRID, rtol=1e-12)
    assert LAMOST.medium == "vacuum"
    np.testing.assert_allclose(LAMOST.resolution(pixels), 1800, rtol=1e-12)
    np.testing.assert_array_equal(PRETRAINING.wave, LAMOST.wave)


def test_miles_as_published():
    assert MILES.medium == "air"
    assert MILES.wave[0] == 3540.5
    assert MILES.wave[-1] == pytest.approx(7409.6, abs=0.9)
    np.testing.assert_allclose(np.diff(MILES.wave), 0.9, atol=1e-9)
    np.testing.assert_allclose(MILES.wave / MILES.resolution(MILES.wave), 2.5)


@pytest.mark.parametrize(("exponent", "at_5000"), [(1.0, 2000.0), (0.0, 2500.0), (0.5, 2000 * 1.25**0.5)])
def test_line_spread_exponents(exponent, at_5000):
    survey = replace(LAMOST, fwhm=(2.0, exponent))
    np.testing.assert_allclose(survey.resolution(np.array([4000.0, 5000.0])), [2000, at_5000])


@EACH
def test_every_survey_is_declared_whole(survey):
    assert survey.medium in MEDIA
    assert survey.frame in FRAMES
    assert survey.population in POPULATIONS
    assert 0 < survey.snr[0] < survey.snr[1]
    assert all(getattr(survey.systematics, name) >= 0 for name in survey.systematics.__dataclass_fields__)
    assert len(survey.source) > 20
    assert (np.diff(survey.wave) > 0).all()
    ends = to_vacuum(survey.pixels, survey.medium)[[0, -1]]
    np.testing.assert_allclose(ends, survey.span, atol=1.6)
    assert (ends[0] >= survey.span[0]) & (ends[1] <= survey.span[1])


@pytest.mark.parametrize("survey", [s for s in SURVEYS.values() if s.name != "gaia_xp"], ids=lambda s: s.name)       # its line spread is cut at the ends
def test_every_survey_can_be_made_from_the_library(survey):
    """Never sharper than the library (a negative width squared would be NaN), and 4 sigma + velocity from its ends, which are wrapped around."""
    library, pixels = load_library(survey.library), to_vacuum(survey.pixels, survey.medium)
    resolution = survey.resolution(survey.pixels)
    assert (resolution <= 1.0001 * library.resolution).all()
    width = 1.3 / resolution / FWHM
    ends = np.log(library.wave.numpy()[[0, -1]])
    margin = 4 * np.sqrt(width**2 - (1 / library.resolution / FWHM) ** 2) + 3 * survey.systematics.velocity / C_KMS
    assert np.log(pixels[0]) - ends[0] > margin[0]
    assert ends[1] - np.log(pixels[-1]) > margin[-1]


def test_desi_resolves_more_to_the_red():
    np.testing.assert_allclose(DESI.resolution(np.array([4000.0, 5600.0])), [2000, 3500], rtol=0.001)
    np.testing.assert_allclose(np.diff(DESI.pixels), 0.8, atol=1e-9)
    np.testing.assert_allclose(DESI_FULL.resolution(DESI_FULL.pixels), 2000)


def test_apogee_as_published():
    """8575 pixels of apStar, of which Leung & Bovy keep 7514 between detector edges, 15152-16943 A; the library begins a little later."""
    assert APOGEE.wave[[0, -1]] == pytest.approx([15100.8, 16999.8], abs=0.1)
    kept = np.concatenate([APOGEE.wave[first:end] for first, end in APOGEE.good])
    assert kept.size == 7514
    assert kept[[0, -1]] == pytest.approx([15152.2, 16943.5], abs=0.2)
    used = APOGEE.pixels[~APOGEE.unusable()]
    assert np.isin(used, kept).all()
    assert used.size == (kept >= APOGEE.span[0]).sum() > 7470


def test_strength_scales_every_systematic():
    systematics = Systematics(velocity=1.0, spread=2.0, tilt=3.0, calibration=4.0, lines=5.0)
    assert systematics.scaled(2.0) == Systematics(2.0, 4.0, 6.0, 8.0, 10.0)
    assert systematics.scaled(0.0) == Systematics(0.0, 0.0, 0.0, 0.0, 0.0)
    assert systematics.scaled(1.0) == systematics


def test_pretraining_covers_the_surveys():
    """Wider than each instrument in every systematic, so that each lies inside what the model has seen."""
    for survey in (LAMOST, MILES, STELIB, DESI):
        for name in survey.systematics.__dataclass_fields__:
            assert getattr(PRETRAINING.systematics, name) >= getattr(survey.systematics, name), (survey.name, name)


def test_declarations_cannot_be_changed_and_unknown_ones_are_refused():
    with pytest.raises(AttributeError):
        MILES.medium = "vacuum"
    assert get_survey("miles") is MILES
    with pytest.raises(MismatchError, match=r"No survey 'sdss'; declared are: lamost_lrs, miles, .*One of your own: Survey\(name, \.\.\.\)"):
        get_survey("sdss")
