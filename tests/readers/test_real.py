"""The real sets, where they are: counts, units, frame and medium against facts known from elsewhere."""

import numpy as np
import pytest

from spectrakit.gaia_xp import WAVE, load_design
from spectrakit.readers import read
from spectrakit.surveys import GAIA_XP

HALPHA = {"air": 6562.79, "vacuum": 6564.61}  # Angstrom, NIST
HBETA = {"air": 4861.35, "vacuum": 4862.71}


def core(stars, line):
    """Wavelength of a line's deepest point, Angstrom, per spectrum: parabola through the lowest pixel and its neighbours."""
    near = np.flatnonzero(np.abs(stars.wave - line) < 6)
    lowest = near[1:-1][np.argmin(stars.flux[:, near[1:-1]], axis=1)]
    left, middle, right = (np.take_along_axis(stars.flux, (lowest + k)[:, None], axis=1)[:, 0] for k in (-1, 0, 1))
    return stars.wave[lowest] + 0.5 * (left - right) / (left - 2 * middle + right) * (stars.wave[lowest + 1] - stars.wave[lowest])


def fgk(stars):
    teff = np.asarray(stars.labels["teff"])
    return stars[(teff > 4200) & (teff < 7000) & stars.labelled("teff", "logg", "feh")]


@pytest.mark.requires_data("miles")
def test_miles():
    stars = read("miles")
    assert len(stars) == 725 and stars.wave.size == 4300 and stars.labelled("teff", "logg", "feh").sum() == 701
    sample = fgk(stars)
    feh = sample.label("feh")
    assert (len(sample), (feh < -1).sum(), (feh < -2).sum()) == (496, 83, 16)
    assert len(set(stars.labels["star"])) == 725
    assert stars.mask.sum() == 247 and not stars.mask[:, (stars.wave > 6000) & (stars.wave < 7000)].any()
    sun_like = sample[(sample.label("teff") > 5500) & (feh > -0.5)]
    assert abs(np.median(core(sun_like, HALPHA["air"])) - HALPHA["air"]) < 0.3
    vacuum = sun_like.to_vacuum()
    assert abs(np.median(core(vacuum, HALPHA["vacuum"])) - HALPHA["vacuum"]) < 0.3


@pytest.mark.requires_data("stelib")
def test_stelib():
    stars = read("stelib")
    assert len(stars) == 197 and stars.labelled("teff", "logg", "feh").sum() == 157
    assert 0.18 < stars.mask.mean() < 0.19 and not stars.mask.all(1).any()
    sample = fgk(stars)
    sample = sample[~sample.mask[:, np.abs(sample.wave - HBETA["air"]) < 60].any(1) & (sample.label("teff") > 5500)]
    assert abs(np.median(core(sample, HBETA["air"])) - HBETA["air"]) < 0.6  # its wavelengths are good to 0.3-0.5 A; vacuum would be 1.36 off


@pytest.mark.requires_data("lamost_lrs")
def test_lamost():
    stars = read("lamost_lrs")
    assert len(stars) == 420 and len(np.unique(stars.labels["star"])) == 335 and stars.labelled("teff", "logg", "feh").sum() == 134
    np.testing.assert_allclose(np.diff(np.log10(stars.wave)), 1e-4, rtol=1e-9)
    kinds, counts = np.unique(stars.labels["spclass"], return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {"GALAXY": 6, "STAR": 409, "Unknown": 5}
    assert [str(kind).upper() for kind in stars.labels["spclass"]] == [kind.upper() for kind in stars.labels["object_class"]]
    assert np.isnan(stars.labels["z"]).sum() == 6  # -9999 in the pipeline's table
    good = stars[np.isfinite(stars.labels["z"]) & (stars.labels["spclass"] == "STAR") & (np.asarray(stars.labels["snr_g"]) > 30)]
    z = np.asarray(good.labels["z"])
    rest = good.to_rest(z)
    hot = np.isin([kind[:1] for kind in good.labels["subclass"]], ["A", "F"])
    before, after = (np.median(np.abs(core(s[hot], HBETA["vacuum"]) - HBETA["vacuum"])) for s in (good, rest))
    assert rest.frame == "rest" and after < 0.3 and after < before


@pytest.mark.requires_data("gaia_xp")
def test_gaia_xp():
    stars = read("gaia_xp")
    with_errors = (~stars.mask).all(1)
    assert (len(stars), with_errors.sum(), stars.mask.all(1).sum()) == (4845, 2030, 2815)
    np.testing.assert_allclose(stars.wave, WAVE)
    np.testing.assert_array_equal(stars.resolution, GAIA_XP.resolution(stars.wave))
    chosen = stars[np.flatnonzero(with_errors)[:200]]
    np.testing.assert_allclose(chosen.flux, np.asarray(chosen.labels["coeff"]) @ load_design().flux.T, rtol=1e-4, atol=1e-21)
    assert len(set(stars.labels["star"])) == 4845
