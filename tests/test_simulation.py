"""Simulation: line spread, velocity, systematics and noise against explicit sums and known formulae; the same seed, the same stars."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline

from spectrakit import simulation as module
from spectrakit.continuum import normalize
from spectrakit.errors import LabelError, MismatchError, SpectrumError
from spectrakit.library import LABELS, load_library
from spectrakit.line_spread import FWHM, broaden, sample, spread
from spectrakit.simulation import observe, simulate
from spectrakit.spectra import to_vacuum
from spectrakit.surveys import C_KMS, DESI, LAMOST, MILES, SURVEYS, Systematics

LIBRARY = load_library()
LN = np.log(LIBRARY.wave.numpy())
STEP = 1e-4
SUN = np.array([[5777.0, 4.44, 0.0, 0.0, 0.0]])
STARS = np.array([[5777.0, 4.4, 0, 0, 0], [4800, 2.5, -0.5, 0.1, 0], [6200, 4.2, -1.5, 0.3, 0.1]])
PERFECT = Systematics(0.0, 0.0, 0.0, 0.0, 0.0)
NOISELESS = replace(LAMOST, snr=(1e6, 1.001e6))
LIBRARY_SIGMA = 1 / 5000 / FWHM
CENTRE = np.log(4800.0)


def gaussian(centre, sigma, x=LN):
    return np.exp(-0.5 * ((x - centre) / sigma) ** 2)


def line(centre=CENTRE, sigma=8e-4, depth=0.6):
    return torch.as_tensor(1 - depth * gaussian(centre, sigma))[None]


def zero(n=1):
    return torch.zeros(n, dtype=torch.float64)


def convolved(flux, x, sigma):
    """The sum over library pixels, for every output pixel its own width."""
    out = np.empty((len(flux), len(x)))
    for i, (at, s) in enumerate(zip(x, np.broadcast_to(sigma, x.shape), strict=True)):
        kernel = gaussian(at, s)
        out[:, i] = flux @ kernel / kernel.sum()
    return out


def equal(a, b):
    for name in ("wave", "flux", "ivar", "mask", "resolution"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)
    for name in a.labels.colnames:
        np.testing.assert_array_equal(np.asarray(a.labels[name]), np.asarray(b.labels[name]))


# seeds ---------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("survey", SURVEYS)
def test_the_seed_decides_everything(survey):
    one, again, other = simulate(survey, 5, seed=3), simulate(survey, 5, seed=3), simulate(survey, 5, seed=4)
    equal(one, again)
    assert one.provenance == again.provenance
    assert (one.flux != other.flux).mean() > 0.99
    assert (one.label("teff") != other.label("teff")).all()


def test_neither_generator_of_the_process_is_touched_or_read():
    one, state = simulate("lamost_lrs", 3, seed=0), torch.get_rng_state()        # numpy's is watched by conftest, in every test
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        equal(one, simulate("lamost_lrs", 3, seed=0))
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_follow_each_other(monkeypatch):
    """Stars are made in blocks; a whole block does not depend on how many come after it. A block cut short is other stars: n is part of the seed."""
    monkeypatch.setattr(module, "BLOCK", 4)
    labels = np.repeat(STARS, 4, axis=0)
    ten, eight, three = (simulate("lamost_lrs", n, seed=0, labels=labels[:n]) for n in (10, 8, 3))
    np.testing.assert_array_equal(ten.flux[:8], eight.flux)
    np.testing.assert_array_equal(ten.ivar[:8], eight.ivar)
    assert (ten.flux[:3] != three.flux).any()
    assert len(ten) == len(ten.labels) == 10
    assert len(np.unique(ten.flux[:, 7])) == 10                              # no block is repeated


# line spread and velocity --------------------------------------------------------------------------------------------------------------------

@settings(max_examples=25)
@given(st.floats(0.3e-4, 6e-4), st.floats(-5e-4, 5e-4), st.floats(3e-4, 2e-3))
def test_a_gaussian_line_widens_and_moves_as_the_formula_says(sigma, shift, width):
    """sigma^2 = width^2 + sigma_instrument^2, area kept, centre moved: to rounding."""
    centre, total = np.log(4800.0), np.hypot(sigma, width)
    out = broaden(line(centre, width), STEP, zero() + sigma**2, zero() + shift)[0].numpy()
    np.testing.assert_allclose(out, 1 - 0.6 * width / total * gaussian(centre + shift, total), atol=1e-7)


def test_broadening_is_the_explicit_convolution():
    flux = LIBRARY.flux(torch.as_tensor(STARS)).double()
    sigma = np.array([2.2e-4, 3e-4, 1.5e-4])
    out = broaden(flux, STEP, torch.as_tensor(sigma**2), zero(3)).numpy()
    for i in range(3):
        np.testing.assert_allclose(out[i, 60:-60], convolved(flux[i:i + 1].numpy(), LN, sigma[i])[0, 60:-60], atol=2e-6)


def test_stars_of_a_batch_get_their_own_width_and_shift():
    flux = LIBRARY.flux(torch.as_tensor(STARS)).double()
    sigma, shift = torch.tensor([2e-4, 3e-4, 4e-4]).double() ** 2, torch.tensor([0, 1e-4, -2e-4]).double()
    together = broaden(flux, STEP, sigma, shift)
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1], broaden(flux[i:i + 1], STEP, sigma[i:i + 1], shift[i:i + 1]))


@pytest.mark.parametrize("resolution", [1600.0, 1800.0, 2400.0])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_spread_counts_the_librarys_own_width_once(resolution, scale):
    """What a line of the library (its width included) becomes at R: sigma^2 grows by that of the instrument less that of the library."""
    wave, width = LIBRARY.wave.numpy()[50:-50], 8e-4
    out = spread(line(sigma=width), LIBRARY, wave, np.full(wave.size, resolution), zero() + scale, zero())[0].numpy()
    total = np.sqrt(width**2 + (scale / resolution / FWHM) ** 2 - LIBRARY_SIGMA**2)
    np.testing.assert_allclose(out, 1 - 0.6 * width / total * gaussian(np.log(4800.0), total, np.log(wave)), atol=1e-6)


@pytest.mark.parametrize("velocity", [-250.0, -30.0, 80.0, 300.0])
def test_velocity_moves_lines_to_the_red_when_positive(velocity):
    wave = LIBRARY.wave.numpy()[60:-60]
    depth = 1 - spread(line(), LIBRARY, wave, np.full(wave.size, 1800.0), zero() + 1, zero() + velocity)[0].numpy()
    centre = (depth * wave).sum() / depth.sum()
    still = 1 - spread(line(), LIBRARY, wave, np.full(wave.size, 1800.0), zero() + 1, zero())[0].numpy()
    assert (centre / ((still * wave).sum() / still.sum()) - 1) * C_KMS == pytest.approx(velocity, abs=0.3)   # (v/c)^2 / 2 = 0.15 km/s at 300


def test_width_that_varies_along_the_spectrum_is_the_direct_convolution():
    """MILES: constant in Angstrom, R = 1580 to 2260. To 0.2 % of the depth of the lines, at the library's pixels, where nothing is interpolated."""
    wave = LIBRARY.wave.numpy()[:-1]
    flux = LIBRARY.flux(torch.as_tensor(STARS)).double()
    for scale in (0.9, 1.0, 1.2):
        out = spread(flux, LIBRARY, wave, MILES.resolution(wave), zero(3) + scale, zero(3)).numpy()
        sigma = np.sqrt((scale / MILES.resolution(wave) / FWHM) ** 2 - LIBRARY_SIGMA**2)
        direct = convolved(flux.numpy(), np.log(wave), sigma)
        error, depth = np.abs(out - direct)[:, 60:-60], 1 - direct[:, 60:-60]
        assert error.max() < 0.002 * depth.max(axis=1).min()
        assert (error[depth > 0.05] / depth[depth > 0.05]).max() < 0.005


@pytest.mark.parametrize("survey", [LAMOST, MILES, DESI], ids=["lamost", "miles", "desi"])
def test_between_library_pixels_nothing_is_lost(survey):
    """Output pixels lie between those of the library; against a convolution evaluated at the pixel itself, in parts of the continuum."""
    wave = to_vacuum(survey.pixels, survey.medium)
    flux = LIBRARY.flux(torch.as_tensor(STARS)).double()
    out = spread(flux, LIBRARY, wave, survey.resolution(survey.pixels), zero(3) + 1, zero(3)).numpy()
    direct = convolved(flux.numpy(), np.log(wave), np.sqrt((1 / survey.resolution(survey.pixels) / FWHM) ** 2 - LIBRARY_SIGMA**2))
    assert np.abs(out - direct)[:, 10:-10].max() < 0.002
    assert np.abs(out - direct)[:, 10:-10].std() < 0.0002


@settings(max_examples=20)
@given(st.lists(st.floats(3, 56), min_size=1, max_size=6), st.floats(0.7, 3.0))
def test_sampling_is_scipys_cubic_spline(position, width):
    """Coefficients by division in Fourier space, against scipy's periodic interpolating spline."""
    x = np.arange(60.0)
    flux = np.exp(-0.5 * ((x - 30) / width) ** 2)
    spline = make_interp_spline(np.append(x, 60.0), np.append(flux, flux[0]), k=3, bc_type="periodic")
    coefficients = broaden(torch.as_tensor(flux)[None], 1.0, zero(), zero(), prefilter=True)
    np.testing.assert_allclose(sample(coefficients, np.array(position))[0], spline(position), atol=1e-9)


def test_spread_has_gradients():
    """In flux, scale and velocity, against differences: the chi-square fit lives on them."""
    pixels = MILES.pixels[200:230]
    wave = to_vacuum(pixels, "air")
    function = lambda flux, scale, velocity: spread(flux, LIBRARY, wave, MILES.resolution(wave), scale, velocity)     # noqa: E731
    flux = LIBRARY.flux(torch.as_tensor(SUN)).double().requires_grad_()
    scale, velocity = (zero() + 1.05).requires_grad_(), (zero() + 20).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, v: function(flux.detach(), s, v), (scale, velocity), eps=1e-5, atol=1e-7)
    function(flux, scale, velocity).sum().backward()
    assert torch.isfinite(flux.grad).all()
    assert (flux.grad != 0).any()


# the whole instrument ------------------------------------------------------------------------------------------------------------------------

def test_without_systematics_the_mean_of_many_is_the_library_through_the_line_spread():
    """Continuum times lines, convolved by hand, scaled to a mean of 1; noise averages out, by the errors that are stated."""
    stars = simulate("lamost_lrs", 400, seed=1, labels=np.repeat(SUN, 400, axis=0), strength=0.0)
    sun = torch.as_tensor(SUN)
    surface = (LIBRARY.flux(sun) * LIBRARY.continuum(sun)).double().numpy()
    truth = convolved(surface, np.log(stars.wave), np.sqrt((1 / 1800 / FWHM) ** 2 - LIBRARY_SIGMA**2))[0]
    truth /= truth.mean()
    inner = slice(8, -8)
    mean = np.average(stars.flux, axis=0, weights=stars.ivar)
    np.testing.assert_allclose(mean[inner], truth[inner], atol=0.02)
    pull = (stars.flux - truth)[:, inner] * np.sqrt(stars.ivar[:, inner])
    dim = stars.label("snr") < 30                                            # where noise is larger than the straight lines' error
    assert pull[dim].std() == pytest.approx(1, abs=0.02)
    assert abs(pull[dim].mean()) < 0.01
    snr = stars.label("snr")
    np.testing.assert_allclose(np.sqrt(stars.ivar[:, inner] * truth[inner]) / snr[:, None], 1, atol=0.03)   # photon noise: ivar = snr^2 / flux


def test_signal_to_noise_is_drawn_evenly_in_its_logarithm():
    snr = simulate("lamost_lrs", 600, seed=0, labels=np.repeat(SUN, 600, axis=0)).label("snr")
    assert (snr >= 10).all()
    assert (snr <= 200).all()
    share = (np.log(snr) - np.log(10)) / np.log(20)
    assert np.abs(np.sort(share) - (np.arange(600) + 0.5) / 600).max() < 1.63 / 600**0.5                    # Kolmogorov-Smirnov, 1 %


def instrument(flux, n=256, survey=NOISELESS, **systematics):
    """``n`` copies of one library-pixel spectrum through an almost noiseless instrument with only the named systematics."""
    opacity = -torch.log(torch.as_tensor(flux, dtype=torch.float32))[None]
    source = lambda rows: opacity.expand(len(range(n)[rows]), -1)                                             # noqa: E731
    stars = observe(source, np.repeat(SUN, n, axis=0), survey, LIBRARY, np.random.default_rng(0), replace(PERFECT, **systematics))
    continuum = LIBRARY.continuum_at(to_vacuum(stars.wave, stars.medium), torch.as_tensor(SUN)).numpy()
    return replace(stars, flux=stars.flux / continuum * continuum.mean())


def test_scatter_of_velocity_is_as_declared():
    stars = instrument(line(depth=0.5)[0], velocity=60.0)
    depth = 1 - stars.flux / stars.flux[:, :100].mean(1, keepdims=True)
    centre = (depth * stars.wave).sum(1) / depth.sum(1)
    velocity = (centre / 4800 - 1) * C_KMS
    assert velocity.std() == pytest.approx(60, rel=0.12)
    assert abs(velocity.mean()) < 4 * 60 / 256**0.5


def test_scatter_of_the_line_spread_is_as_declared():
    stars = instrument(line(sigma=1.2e-4)[0], spread=0.1)
    depth, x = 1 - stars.flux / stars.flux[:, :100].mean(1, keepdims=True), np.log(stars.wave) - np.log(4800)
    near = np.abs(x) < 2e-3
    width = np.sqrt((depth * x**2)[:, near].sum(1) / depth[:, near].sum(1) - 1.2e-4**2 + LIBRARY_SIGMA**2) * FWHM * 1800
    assert width.std() == pytest.approx(0.1, rel=0.2)
    assert width.mean() == pytest.approx(1, abs=0.06)


def test_tilt_and_calibration_are_smooth_and_as_declared():
    flat = np.ones(LN.size)
    ln_flux = np.log(instrument(flat, tilt=0.3).flux)
    assert (ln_flux[:, -1] - ln_flux[:, 0]).std() / 2 == pytest.approx(0.3, rel=0.12)                        # the window's ends lie at -+1
    t = np.linspace(-1, 1, ln_flux.shape[1])
    assert np.abs(ln_flux - np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, ln_flux.T, 1))).max() < 1e-4
    ln_flux = np.log(instrument(flat, calibration=0.02).flux)
    assert ln_flux[:, [0, -1]].std() == pytest.approx(0.02, rel=0.15)                                        # declared at the ends; less inside
    assert 0.005 < ln_flux[:, 400:-400].std() < 0.02
    np.testing.assert_allclose(instrument(flat).flux.mean(1), 1, atol=1e-4)


def test_line_errors_scale_with_the_opacity():
    """ln(flux) scatters by 'lines' times itself (less what the line spread averages away); a pixel without a line is not touched."""
    weak, strong = (np.log(instrument(np.full(LN.size, depth), lines=0.1).flux).std() for depth in (0.9, 0.5))
    assert strong / weak == pytest.approx(np.log(0.5) / np.log(0.9), rel=0.05)
    assert 0.5 < strong / (0.1 * -np.log(0.5)) < 1
    assert np.abs(instrument(np.ones(LN.size), lines=0.1).flux - 1).max() < 1e-4


@pytest.mark.parametrize("name", SURVEYS)
def test_what_comes_back_says_what_it_is(name):
    stars, survey = simulate(name, 3, seed=0), SURVEYS[name]
    assert (stars.survey, stars.medium, stars.frame, stars.normalization, stars.noise) == (name, survey.medium, "rest", "none", "simulated")
    library = load_library(survey.library)
    assert stars.provenance["library_sha256"] == library.sha256
    assert stars.provenance["systematics"]["velocity"] == survey.systematics.velocity
    np.testing.assert_array_equal(stars.wave, survey.pixels)
    np.testing.assert_array_equal(stars.mask, np.broadcast_to(survey.unusable(), stars.flux.shape))
    assert stars.labels["teff"].unit == "K"
    assert [str(v) for v in stars.labels["star"]] == ["sim0000000", "sim0000001", "sim0000002"]
    labels = torch.as_tensor(np.stack([stars.label(k) for k in LABELS], 1))
    assert library.contains(labels).all()


def test_given_labels_are_the_ones_used():
    stars = simulate("miles", 3, seed=0, labels=STARS)
    np.testing.assert_array_equal(np.stack([stars.label(k) for k in LABELS], 1), STARS)


# errors --------------------------------------------------------------------------------------------------------------------------------------

def test_unknown_survey():
    with pytest.raises(MismatchError, match="No survey 'sdss'; declared are: lamost_lrs, miles"):
        simulate("sdss", 1, seed=0)


def test_labels_of_another_shape():
    with pytest.raises(LabelError, match=r"labels has shape \(3, 5\); expected \(2, 5\): teff, logg, feh, alpha_fe, c_fe."):
        simulate("miles", 2, seed=0, labels=STARS)


@pytest.mark.parametrize(("column", "value", "says"), [(0, 9000.0, "teff = 9000 K"), (2, 0.8, r"feh = \+0.80"), (4, 0.5, r"c_fe = \+0.50")])
def test_labels_outside_the_library(column, value, says):
    labels = STARS.copy()
    labels[1, column] = value
    with pytest.raises(LabelError, match=f"1 of 3 stars lie outside the library. Star 1 has .*{says}.* nearest allowed"):
        simulate("miles", 3, seed=0, labels=labels)


def test_labels_that_are_no_number():
    with pytest.raises(LabelError, match="A label is NaN or infinite"):
        simulate("miles", 3, seed=0, labels=np.where(STARS == 4800, np.nan, STARS))


@pytest.mark.parametrize("n", [0, -3])
def test_no_stars(n):
    with pytest.raises(LabelError, match=f"{n} stars asked for; at least 1 can be simulated."):
        simulate("miles", n, seed=0)


def test_two_surveys_see_the_same_stars():
    first = simulate("lamost_lrs", 6, seed=0)
    second = simulate("apogee", 6, seed=1, labels=first.labels)
    for name in (*LABELS, "star"):
        np.testing.assert_array_equal(np.asarray(first.labels[name]), np.asarray(second.labels[name]))
    assert second.survey == "apogee"
    with pytest.raises(LabelError, match="The table of labels has 6 rows and lacks c_fe; expected 6 rows with teff"):
        simulate("apogee", 6, seed=1, labels=first.labels["teff", "logg", "feh", "alpha_fe", "snr", "star"])


def test_strength_may_differ_from_star_to_star():
    sun = np.tile([5777.0, 4.44, 0, 0, 0], (400, 1))
    mixed = simulate("pretraining", 400, seed=1, labels=sun, strength=np.repeat([0.0, 1.0], 200))
    flux = normalize(mixed).flux
    calm, rough = flux[:200].std(0), flux[200:].std(0)
    assert np.median(rough / calm) > 1.5
    np.testing.assert_array_equal(simulate("miles", 5, seed=3, strength=np.full(5, 0.5)).flux, simulate("miles", 5, seed=3, strength=0.5).flux)
    assert mixed.provenance["strength"] == [0, 1]


@pytest.mark.parametrize("strength", [-0.1, np.ones(3)])
def test_strength_that_means_nothing(strength):
    with pytest.raises(SpectrumError, match=r"strength has shape \(\d,\) and a least value of .*for all or each of 5 stars"):
        simulate("miles", 5, seed=3, strength=strength)
