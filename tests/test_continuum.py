"""Normalisation: one range whatever the spectra cover, nothing under the mask read, no bias by noise, and an error where there is no answer."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import Legendre
from scipy.interpolate import make_interp_spline

from spectrakit.continuum import RECIPES, coverage, fill_masked, normalize, require_normalized
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.shipped import load_model
from spectrakit.simulation import simulate
from spectrakit.spectra import SpectraSet, label_table, to_vacuum
from spectrakit.surveys import APOGEE, COMMON, LRS_GRID

RECIPE = pytest.mark.parametrize("recipe", RECIPES)
LAMOST, MILES = (replace(s, flux=s.flux.astype("f8"), ivar=s.ivar.astype("f8")) for s in (simulate("lamost_lrs", 4, seed=5), simulate("miles", 3, seed=6)))
TINY = load_model("tiny")
ARRAYS = ("wave", "flux", "ivar", "mask", "resolution")
JUNK = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 7.5])


def same(a, b):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True, err_msg=name)


def extended(stars, blue, red, value=1.0, ivar=1.0, mask=False):
    """The same spectra with more pixels on both sides, outside 3960-5640 A vacuum."""
    low, high = stars.wave[0] + 0.5 - np.arange(blue, 0, -1) * 0.9 - 2, stars.wave[-1] + 2 + np.arange(red) * 0.9
    pad = lambda array, what: np.concatenate([np.full((len(array), blue), what), array, np.full((len(array), red), what)], 1)   # noqa: E731
    return stars.with_flux(np.concatenate([low, stars.wave, high]), pad(stars.flux, value), pad(stars.ivar, ivar), pad(stars.mask, mask),
                           np.concatenate([np.full(blue, 1500.0), stars.resolution, np.full(red, 2000.0)]), normalization="none", step="extended")


def flat(snr, n=200, seed=0):
    """No line at all: flux 1 and noise."""
    flux = 1 + np.random.default_rng(seed).normal(0, 1 / snr, (n, LAMOST.wave.size))
    return replace(LAMOST[np.zeros(n, int)], flux=flux, ivar=np.full(flux.shape, float(snr**2)))


# the range -----------------------------------------------------------------------------------------------------------------------------------

@RECIPE
@settings(max_examples=25)
@given(blue=st.integers(0, 300), red=st.integers(0, 300), value=st.floats(-1e6, 1e6), ivar=st.floats(0, 1e6), mask=st.booleans())
def test_pixels_outside_the_common_range_change_nothing(recipe, blue, red, value, ivar, mask):
    """Down to 3690 A, where SpecCLIP's fit begins, and whatever is there."""
    same(normalize(extended(LAMOST, blue, red, value, ivar, mask), recipe), normalize(LAMOST, recipe))


@RECIPE
def test_pixels_outside_the_common_range_change_nothing_for_air_spectra(recipe):
    same(normalize(extended(MILES, 300, 500, 3.0), recipe), normalize(MILES, recipe))


def test_survey_with_its_own_blue_end_is_the_cut_one():
    """MILES from 3540 A, as its files have it, against the same stars cut to the common window before."""
    stars = simulate("miles", 2, seed=1)
    whole = extended(stars, 460, 1900, 0.4)
    assert to_vacuum(whole.wave, "air")[0] < 3545
    same(normalize(whole), normalize(stars))


@pytest.mark.parametrize(("cut", "says"), [(slice(60, None), r"cover 4015-5639 A; the continuum is fitted over 3960-5640 A, all of it"),
                                           (slice(0, -60), r"cover 3960-5562 A; the continuum")])
def test_spectra_that_do_not_reach_are_refused(cut, says):
    short = LAMOST.with_flux(LAMOST.wave[cut], LAMOST.flux[:, cut], LAMOST.ivar[:, cut], LAMOST.mask[:, cut], LAMOST.resolution[cut], normalization="none", step="")
    with pytest.raises(MismatchError, match=says):
        normalize(short)


# the mask ------------------------------------------------------------------------------------------------------------------------------------

@RECIPE
@settings(max_examples=12)
@given(share=st.floats(0, 0.12), chunk=st.integers(1, 15), seed=st.integers(0, 99), flux=JUNK, ivar=JUNK)
def test_what_is_under_the_mask_changes_nothing_downstream(recipe, share, chunk, seed, flux, ivar):
    """Bit for bit, up to the embedding of a model, given raw spectra or normalised ones."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((len(LAMOST), LAMOST.wave.size // chunk + 1)) < share, chunk, axis=1)[:, :LAMOST.wave.size]
    mask[mask.mean(1) > 0.45] = False
    model = TINY if recipe == TINY.card.recipe else None
    results = []
    for under in ((0.0, 1.0), (flux, ivar)):
        stars = replace(LAMOST, mask=mask, flux=np.where(mask, under[0], LAMOST.flux), ivar=np.where(mask, under[1], LAMOST.ivar))
        results.append(normalize(stars, recipe))
    same(*results)
    if model is not None:
        dirty = replace(results[1], flux=np.where(results[1].mask, flux, results[1].flux), ivar=np.where(results[1].mask, ivar, results[1].ivar))
        expected = model.embed(results[0])
        np.testing.assert_array_equal(model.embed(dirty), expected)
        np.testing.assert_array_equal(model.embed(stars), expected)


@settings(max_examples=20)
@given(flux=JUNK, ivar=JUNK, seed=st.integers(0, 99))
def test_what_is_under_the_mask_changes_nothing_after_resampling(flux, ivar, seed):
    mask = np.random.default_rng(seed).random(MILES.flux.shape) < 0.1
    clean = replace(MILES, mask=mask)
    same(normalize(clean), normalize(replace(clean, flux=np.where(mask, flux, MILES.flux), ivar=np.where(mask, ivar, MILES.ivar))))


@RECIPE
@pytest.mark.parametrize("value", [0.0, 50.0, -3.0])
def test_a_pixel_without_weight_is_a_masked_one(recipe, value):
    where = np.zeros(LAMOST.flux.shape, bool)
    where[:, 300:320] = True
    ivar = np.where(where, 0, LAMOST.ivar)
    unweighted = normalize(replace(LAMOST, ivar=ivar, flux=np.where(where, value, LAMOST.flux)), recipe)
    masked = normalize(replace(LAMOST, mask=where), recipe)
    np.testing.assert_array_equal(unweighted.mask, masked.mask)
    np.testing.assert_array_equal(np.where(masked.mask, 0, unweighted.flux), np.where(masked.mask, 0, masked.flux))


def test_filling_bridges_by_straight_lines():
    mask = np.zeros((1, 6), bool)
    mask[0, [0, 2, 3]] = True
    stars = SpectraSet(np.array([4000.0, 4001, 4002, 4004, 4005, 4006]), np.array([[np.nan, 1.0, np.inf, -9, 5, 6]]), np.ones((1, 6)), mask,
                       label_table(star=["a"]), "test", "vacuum", "rest", np.full(6, 1800.0), "robust", "measured", {"history": []})
    np.testing.assert_allclose(fill_masked(stars), [[1, 1, 2, 4, 5, 6]])
    with pytest.raises(SpectrumError, match=r"1 of 1 spectra are masked altogether \(first: spectrum 0\); leave them out."):
        fill_masked(replace(stars, mask=np.ones((1, 6), bool)))


# the continuum -------------------------------------------------------------------------------------------------------------------------------

def test_robust_continuum_is_the_weighted_polynomial_of_numpy():
    """Star by star: numpy's least squares with the stated weights, the stated rejection, three rounds and a last fit."""
    stars = simulate("lamost_lrs", 3, seed=9)
    stars.flux[1, 700] += 3                                                        # a cosmic ray
    stars.mask[2, 100:200] = True
    continuum = stars.flux / RECIPES["robust"](stars.wave, np.where(stars.mask, 0, stars.flux).astype("f8"), stars.ivar.astype("f8"), stars.mask)
    for i in range(3):
        good = ~stars.mask[i]
        w, f, noise2 = stars.wave[good], stars.flux[i, good].astype("f8"), 1 / stars.ivar[i, good].astype("f8")
        used, mean = np.ones(w.size, bool), f.mean()
        level = np.full(w.size, mean)
        for _ in range(3):
            sigma = np.sqrt(noise2 + (0.1 * level) ** 2)
            fit = Legendre.fit(w[used], f[used], 5, w=1 / sigma[used], domain=COMMON)
            level = np.maximum(fit(w), 0.05 * mean)
            used &= f - level <= 4 * sigma
        expected = Legendre.fit(w[used], f[used], 5, w=1 / sigma[used], domain=COMMON)
        np.testing.assert_allclose(stars.flux[i] / continuum[i], expected(stars.wave), rtol=1e-6)


def test_a_cosmic_ray_does_not_lift_the_robust_continuum():
    clean = simulate("lamost_lrs", 30, seed=5, labels=np.repeat([[5777.0, 4.4, 0, 0, 0]], 30, axis=0))
    clean = clean[clean.label("snr") > 60]
    hit = replace(clean, flux=clean.flux.copy())
    hit.flux[:, [200, 201, 900]] += 20 * clean.flux.mean()
    good = np.abs(LRS_GRID - clean.wave[200]) > 2
    good &= np.abs(LRS_GRID - clean.wave[900]) > 1
    assert len(clean) >= 4
    np.testing.assert_allclose(normalize(hit).flux[:, good], normalize(clean).flux[:, good], rtol=5e-3)


def test_a_polynomial_on_top_goes_into_the_continuum():
    """Reddening-like slopes, even steep ones, are taken out to what the weights leave."""
    stars = simulate("lamost_lrs", 4, seed=5, labels=np.repeat([[5777.0, 4.4, 0, 0, 0]], 4, axis=0))
    t = 2 * (stars.wave - COMMON[0]) / (COMMON[1] - COMMON[0]) - 1
    slope = np.exp(0.3 * t)
    tilted = replace(stars, flux=stars.flux * slope, ivar=stars.ivar / slope**2)
    np.testing.assert_allclose(normalize(tilted).flux, normalize(stars).flux, atol=0.03)


@RECIPE
@settings(max_examples=30)
@given(power=st.integers(-60, 60))
def test_units_of_flux_do_not_matter(recipe, power):
    """Flux in any unit, erg / s / cm2 / A included, with its errors: a power of two to the last bit."""
    scale = np.ldexp(1.0, power)
    a, b = normalize(LAMOST, recipe), normalize(replace(LAMOST, flux=LAMOST.flux * scale, ivar=LAMOST.ivar / scale**2), recipe)
    same(a, b)


@RECIPE
@settings(max_examples=20)
@given(scale=st.floats(1e-18, 1e18))
def test_units_of_flux_do_not_matter_for_any_factor(recipe, scale):
    b = normalize(replace(LAMOST, flux=LAMOST.flux.astype("f8") * scale, ivar=LAMOST.ivar.astype("f8") / scale**2), recipe)
    a = normalize(LAMOST, recipe)
    np.testing.assert_allclose(b.flux, a.flux, rtol=1e-6)
    np.testing.assert_allclose(b.ivar, a.ivar, rtol=1e-6)


@pytest.mark.parametrize(("snr", "lift"), [(10, 0.059), (20, 0.033), (50, 0.013), (300, 0.002)])
def test_noise_lifts_the_specclip_envelope_and_not_the_robust_fit(snr, lift):
    """The figures in the docstring of specclip_continuum, measured on spectra whose continuum is 1."""
    stars = flat(snr)
    envelope, robust = (1 / normalize(stars, recipe).flux.mean() - 1 for recipe in ("specclip", "robust"))
    assert envelope == pytest.approx(lift, rel=0.15, abs=0.0005)
    assert abs(robust) < 0.0005
    assert abs(robust) < envelope / 20


def test_errors_are_divided_by_the_continuum_too():
    stars = normalize(flat(40))
    assert (stars.flux.std() * np.sqrt(stars.ivar.mean())) == pytest.approx(1, abs=0.01)
    tripled = normalize(replace(flat(40), flux=3 * flat(40).flux, ivar=flat(40).ivar / 9))
    np.testing.assert_allclose(tripled.ivar, stars.ivar, rtol=1e-9)


# grids and media -----------------------------------------------------------------------------------------------------------------------------

def test_lamost_pixels_are_taken_over_not_interpolated():
    out = normalize(LAMOST)
    start = np.abs(LAMOST.wave - LRS_GRID[0]).argmin()
    ratio = LAMOST.flux[:, start:start + 1462] / out.flux                          # the continuum: smooth if no pixel was moved
    assert np.abs(np.diff(ratio, 2)).max() < 1e-4
    np.testing.assert_array_equal(out.wave, LRS_GRID)
    assert (out.normalization, out.medium, out.frame) == ("robust", "vacuum", "rest")
    assert out.provenance["history"][-1] == "continuum: robust, 3960-5640 A; 1462 pixels"
    np.testing.assert_allclose(out.resolution, 1800)


def test_miles_arrives_on_the_model_grid():
    """Air to vacuum, 0.9 A pixels to the model's, against scipy's cubic spline through the normalised MILES pixels."""
    stars = simulate("miles", 3, seed=2, strength=0.0)
    out, vacuum = normalize(stars), to_vacuum(stars.wave, "air")
    continuum = RECIPES["robust"](vacuum, stars.flux.astype("f8"), stars.ivar.astype("f8"), stars.mask)
    expected = make_interp_spline(vacuum, (stars.flux / continuum).T, k=3)(LRS_GRID).T
    np.testing.assert_allclose(out.flux, expected, atol=0.02)
    assert (out.flux - expected).std() < 0.003
    np.testing.assert_allclose(out.resolution, np.interp(LRS_GRID, vacuum, stars.resolution))
    assert out.medium == "vacuum"
    assert out.wave.size == 1462


@RECIPE
def test_air_spectra_are_converted(recipe):
    """The same fluxes with their wavelengths given in air (Morton 1991, independent of the package) or in vacuum."""
    s2 = (1e4 / LAMOST.wave) ** 2
    n = 1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2)
    air = replace(LAMOST, wave=LAMOST.wave / n, medium="air")
    a, b = normalize(air, recipe), normalize(LAMOST, recipe)
    np.testing.assert_allclose(a.flux, b.flux, atol=2e-3)
    assert a.medium == "vacuum"
    wrong = normalize(extended(replace(LAMOST, medium="air"), 3, 3, 1.0, 0.0), recipe)       # vacuum wavelengths called air: lines 1.3 A off
    assert np.abs(wrong.flux - b.flux).max() > 0.03


def test_a_grid_of_ones_own():
    grid = np.linspace(4100, 5500, 300)
    out = normalize(LAMOST, "robust", grid)
    assert out.flux.shape == (4, 300)
    expected = [np.interp(grid, LRS_GRID, row) for row in normalize(LAMOST).flux]
    assert (out.flux - expected).std() < 0.02


# errors --------------------------------------------------------------------------------------------------------------------------------------

def test_normalising_twice():
    with pytest.raises(MismatchError, match=r"normalised already \('robust'\); doing it twice changes every line. Start from the raw flux."):
        normalize(normalize(LAMOST))


def test_unknown_recipe():
    with pytest.raises(MismatchError, match="No recipe 'spline'; there are: robust, specclip, 550nm."):
        normalize(LAMOST, "spline")


@RECIPE
@pytest.mark.parametrize("how", ["mask", "ivar"])
def test_all_masked(recipe, how):
    mask, ivar = LAMOST.mask.copy(), LAMOST.ivar.copy()
    (mask if how == "mask" else ivar)[2] = how == "mask"
    with pytest.raises(SpectrumError, match=r"1 of 4 spectra have less than 80% of their pixels usable before normalising \(spectrum 2: 0%\): .* Leave them out: "):
        normalize(replace(LAMOST, mask=mask, ivar=ivar), recipe)


@RECIPE
def test_more_than_half_masked(recipe):
    mask = LAMOST.mask.copy()
    mask[[0, 3], :900] = True
    with pytest.raises(SpectrumError, match=r"2 of 4 spectra have less than 80% of their pixels usable before normalising \(spectrum 0: 41%\)"):
        normalize(replace(LAMOST, mask=mask), recipe)


@RECIPE
@pytest.mark.parametrize("change", [lambda f: -f, lambda f: f - 2.5 * np.linspace(0, 1, f.size) * f.mean(), lambda f: 0 * f], ids=["negative", "sinking", "zero"])
def test_continuum_that_is_not_positive(recipe, change):
    flux = LAMOST.flux.copy()
    flux[1] = change(flux[1])
    with pytest.raises(SpectrumError, match=r"The continuum of 1 spectra is not positive \(first: spectrum 1\); .* Check the sky subtraction, or leave them out."):
        normalize(replace(LAMOST, flux=flux), recipe)


@RECIPE
@pytest.mark.parametrize("value", [1.0, 3e-17])
def test_constant_flux(recipe, value):
    flux, ivar = LAMOST.flux.astype("f8"), LAMOST.ivar.astype("f8")
    flux[1], ivar[1] = value, 100 / value**2
    with pytest.raises(SpectrumError, match=r"1 spectra are constant \(first: spectrum 1\): no line, nothing to analyse. Leave them out."):
        normalize(replace(LAMOST, flux=flux, ivar=ivar), recipe)


def test_what_a_model_requires():
    raw, done = LAMOST, normalize(LAMOST)
    same(require_normalized(raw, "robust", LRS_GRID), done)
    assert require_normalized(done, "robust", LRS_GRID) is done
    with pytest.raises(MismatchError, match="normalised by 'robust', this model was trained on 'specclip'; give it the raw spectra."):
        require_normalized(done, "specclip", LRS_GRID)
    cut = done.with_flux(done.wave[1:], done.flux[:, 1:], done.ivar[:, 1:], done.mask[:, 1:], done.resolution[1:], normalization="robust", step="")
    with pytest.raises(MismatchError, match=r"have 1461 pixels over 4000.4-5598.9 A, this model needs 1462 over 3999.4-5598.9 A; give it the raw spectra and it"):
        require_normalized(cut, "robust", LRS_GRID)
    with pytest.raises(MismatchError, match="1462 pixels over 4000.4-5600.2 A, this model needs 1462"):
        require_normalized(replace(done, wave=LRS_GRID * 10**1e-4), "robust", LRS_GRID)
    with pytest.raises(MismatchError, match=r"on air wavelengths, this model on vacuum; use stars.to_vacuum\(\) before normalising."):
        require_normalized(replace(done, medium="air"), "robust", LRS_GRID)


def test_the_h_band_has_its_own_range():
    """Another polynomial over 15157-16950 A: pixels of the survey beyond change nothing, detector gaps stay masked."""
    stars = simulate("apogee", 3, seed=0)
    out = normalize(stars, grid=APOGEE.pixels)
    np.testing.assert_array_equal(out.mask, stars.mask)
    assert out.provenance["history"][-1].startswith("continuum: robust, 15157-16950 A")
    assert np.median(out.flux[~out.mask]) == pytest.approx(1, abs=0.02)
    with pytest.raises(MismatchError, match="cover 15157-16950 A; the continuum is fitted over 3960-5640 A, all of it."):
        normalize(stars)


def test_coverage_counts_the_window_alone():
    stars = simulate("miles", 2, seed=0)
    np.testing.assert_array_equal(coverage(stars), [1, 1])
    stars.mask[0, : len(stars.wave) // 4] = True
    stars.ivar[1, :187] = 0
    np.testing.assert_allclose(coverage(stars), [0.75, 0.9], atol=0.001)
    with pytest.raises(MismatchError, match="nothing of the 3960-5640 A over which a continuum is fitted"):
        coverage(replace(stars, wave=stars.wave + 3000))
    assert coverage(simulate("apogee", 1, seed=0))[0] == pytest.approx(0.926, abs=0.01)
    with pytest.raises(SpectrumError, match=r"1 of 2 spectra .* Leave them out: stars\[sk.coverage\(stars\) >= 0.8\]."):
        normalize(stars)
    assert len(normalize(stars[coverage(stars) >= 0.8])) == 1
