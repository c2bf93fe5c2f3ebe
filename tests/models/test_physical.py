"""The chi-square fit: labels come back, errors are honest, masked pixels are not read, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.table import Table
from scipy.interpolate import CubicSpline

from spectrakit.continuum import normalize
from spectrakit.errors import LabelError, MismatchError, SpectrakitError, SpectrumError
from spectrakit.library import LABELS, load_library
from spectrakit.models.baselines import Regressor
from spectrakit.models.chi_square import Spectra, objective, slope
from spectrakit.models.physical import PhysicalFit
from spectrakit.simulation import observe, simulate
from spectrakit.surveys import LAMOST


def seen(labels, velocity=0.0, snr=100.0, survey=LAMOST):
    """Stars through a perfect instrument of constant S/N; ``velocity`` (km/s) is the scatter of their velocities."""
    library, labels = load_library(), np.atleast_2d(labels)
    systematics = replace(survey.systematics.scaled(0.0), velocity=velocity)
    source = lambda rows: library.opacity(torch.as_tensor(labels[rows]))  # noqa: E731
    return normalize(observe(source, labels, replace(survey, snr=(snr, snr)), library, np.random.default_rng(0), systematics))


@pytest.fixture(scope="module")
def stars():
    return normalize(simulate("lamost_lrs", 64, 1, strength=0.0))


@pytest.fixture(scope="module")
def table(stars):
    return PhysicalFit().fit_labels(stars)


def test_labels_come_back_within_the_noise_and_errors_cover(stars, table):
    free = PhysicalFit(alpha_spread=np.inf, c_spread=np.inf).fit_labels(stars)
    for name in LABELS:
        error, sigma = np.array(table[name]) - stars.label(name), np.array(table[f"{name}_error"])
        assert 0.5 < np.mean(np.abs(error) < sigma) < 0.85, name
        unbiased = (np.array(free[name]) - stars.label(name)) / np.array(free[f"{name}_error"])      # the prior's trend is not this population's
        assert np.abs(np.median(unbiased)) < 0.4, name
    assert np.median(np.abs(np.array(table["feh"]) - stars.label("feh"))) < 0.03
    assert np.median(table["chi2"]) < 1.1  # no more than the noise: the stated model error comes on top of it
    assert load_library().contains(torch.as_tensor(np.stack([table[name] for name in LABELS], 1))).all()


def test_without_noise_and_priors_the_labels_are_exact():
    truth = np.array([[5777.0, 4.44, 0.0, 0.0, 0.0], [4700.0, 2.4, -0.6, 0.2, -0.2], [6100.0, 4.2, -1.5, 0.35, 0.1], [5200.0, 2.9, -2.4, 0.4, 0.3]])
    found = PhysicalFit(alpha_spread=np.inf, c_spread=np.inf).fit_labels(seen(truth, snr=3e4))
    error = np.abs(np.stack([found[name] for name in LABELS], 1) - truth)
    assert (error < [10, 0.02, 0.01, 0.01, 0.03]).all()
    assert not found["at_edge"].any()


def test_velocity_comes_back():
    near, far = ([5200.0, 4.5, -0.5, 0.1, 0.0],), {"velocity": 100.0}
    drawn = seen(np.repeat(near, 8, 0), **far)
    found = PhysicalFit(velocities=(-200.0, 0.0, 200.0)).fit_labels(drawn)
    # the stars differ in velocity alone: cross-correlation with one at rest says by how much, independently of the fit
    x = np.log(drawn.wave)
    rest = CubicSpline(x, seen(near, snr=1e4).flux[0])
    shifts = np.arange(-400.0, 401.0, 2.0)
    velocity = [shifts[np.argmin([np.square(rest(x - v / 299792.458) - row)[20:-20].sum() for v in shifts])] for row in drawn.flux]
    assert np.std(velocity) > 50
    np.testing.assert_allclose(found["velocity"], velocity, atol=6)
    assert np.abs(np.array(found["feh"]) + 0.5).max() < 0.1


def test_fast_stars_need_more_starting_velocities():
    fast = seen([5200.0, 4.5, -0.5, 0.1, 0.0])
    fast = replace(fast, wave=fast.wave * (1 + 350 / 299792.458), frame="heliocentric")
    found = PhysicalFit(velocities=range(-400, 401, 100)).fit_labels(fast)
    assert found["velocity"][0] == pytest.approx(350, abs=10)
    assert found["feh"][0] == pytest.approx(-0.5, abs=0.1)


def test_slope_is_the_gradient_of_chi_square_along_the_walls_too(stars):
    fit = PhysicalFit()
    instrument = fit._instrument(stars)
    spectra = Spectra.of(stars.flux[:3], stars.ivar[:3], ~stars.mask[:3])
    weight = spectra.weight(0.01**2)
    # an ordinary star; one beyond the hull; one on the rise of the alpha_fe prior
    x = torch.tensor([[5.3, 4.0, -0.3, 0.1, 0.0, 0.1], [7.2, 3.0, 0.3, 0.2, 0.5, 0.0], [5.0, 3.0, -0.7, 0.4, 0.1, -0.3]], dtype=torch.float64)
    with torch.no_grad():
        gradient, hessian = slope(instrument, spectra, weight, x)
        for i in range(6):
            step = 0.003 * torch.eye(6, dtype=torch.float64)[i]
            numeric = (objective(instrument, spectra, weight, x + step) - objective(instrument, spectra, weight, x - step)) / 0.012
            np.testing.assert_allclose(gradient[:, i], numeric, rtol=0.02, atol=float(0.003 * gradient.abs().max()))
    assert (torch.linalg.eigvalsh(hessian) > 0).all()


def test_masked_pixels_change_nothing_and_bad_ones_little(stars, table):
    mask = np.random.default_rng(4).random(stars.flux.shape) < 0.2
    few = slice(0, 8)
    nan = replace(stars, mask=mask, flux=np.where(mask, np.nan, stars.flux), ivar=np.where(mask, np.nan, stars.ivar))[few]
    huge = replace(stars, mask=mask, flux=np.where(mask, 1e30, stars.flux), ivar=np.where(mask, 1e30, stars.ivar))[few]
    a, b = PhysicalFit().fit_labels(nan), PhysicalFit().fit_labels(huge)
    for name in a.colnames:
        np.testing.assert_array_equal(a[name], b[name])
    rays = np.random.default_rng(5).random(stars.flux.shape) < 0.005
    hit = PhysicalFit().fit_labels(replace(stars, flux=stars.flux + rays)[few])
    assert np.median(np.abs(hit["feh"] - table["feh"][few]) / table["feh_error"][few]) < 1


def test_protocol_uses_no_label_and_stars_do_not_depend_on_their_company(stars, table):
    blank = replace(stars, labels=Table({"star": np.arange(len(stars))}))
    fit = PhysicalFit().fit(blank[:1], "logg")
    assert isinstance(fit, Regressor)
    value, sigma = fit.predict(blank[[5, 3]])
    np.testing.assert_allclose(value, table["logg"][[5, 3]], atol=0.01)  # float32: not to the last digit
    np.testing.assert_allclose(sigma, table["logg_error"][[5, 3]], rtol=0.05)
    assert [str(table[name].unit) for name in ("teff", "feh", "velocity", "velocity_error")] == ["K", "dex", "km / s", "km / s"]
    assert len(PhysicalFit().fit_labels(stars[:0])) == 0


def test_at_the_edge_is_said():
    found = PhysicalFit().fit_labels(seen([[5500.0, 4.3, 0.8, 0.0, 0.0], [5500.0, 4.3, -0.2, 0.1, 0.0]]))  # the library ends at +0.5
    assert found["at_edge"].tolist() == [True, False]
    assert found["feh"][0] == pytest.approx(0.5, abs=0.05)
    assert load_library().contains(torch.as_tensor(np.stack([found[name] for name in LABELS], 1))).all()


def test_bad_input_is_refused(stars):
    with pytest.raises(SpectrakitError, match="This PhysicalFit is not fitted yet; call fit"):
        PhysicalFit().predict(stars)
    with pytest.raises(LabelError, match="The library has the labels teff, logg, feh, alpha_fe, c_fe, not 'age'."):
        PhysicalFit().fit(stars, "age")
    with pytest.raises(MismatchError, match="not continuum normalised"):
        PhysicalFit().fit(replace(stars, normalization="none"), "feh")
    with pytest.raises(MismatchError, match=r"cover 3949.4-5548.9 A \(vacuum\), the library allows for 39\d\d.\d-56\d\d.\d A at this resolution"):
        PhysicalFit().fit_labels(replace(stars, wave=stars.wave - 50))
    with pytest.raises(MismatchError, match="a resolving power of up to 6000, the library 5000; it can only be broadened."):
        PhysicalFit().fit_labels(replace(stars, resolution=np.full(1462, 6000.0)))
    with pytest.raises(SpectrumError, match=r"1 of 64 stars have fewer than 60 usable pixels \(first: 2\); leave them out."):
        PhysicalFit().fit_labels(replace(stars, mask=(np.arange(64) == 2)[:, None] & (np.arange(1462) > 58)))
    with pytest.raises(MismatchError, match="medium is 'air', that of the training set 'vacuum'."):
        PhysicalFit().fit(stars, "feh").predict(replace(stars, medium="air"))
