"""Gaia XP: what GaiaXPy does to coefficients, what dust does, and the way back from a spectrum to coefficients, against real ones."""

import numpy as np
import pytest
import torch
from dust_extinction.parameter_averages import F19
from hypothesis import given, settings
from hypothesis import strategies as st

import spectrakit as sk
from spectrakit import gaia_xp
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.library import load_library

DESIGN = gaia_xp.load_design()
XP = load_library("xp")


def real():
    """Real coefficients over G flux and their colours, 0.6 < BP-RP < 1.5."""
    from spectrakit.readers import local
    data = np.load(local.find("gaia_xp.npz"))
    coeff = data["coeff"].astype("f8")
    with np.errstate(invalid="ignore"):
        g, bp, rp = DESIGN.magnitudes(coeff).T
    keep = (bp - rp > 0.6) & (bp - rp < 1.5)
    return coeff[keep], (bp - rp)[keep], g[keep], data


def test_the_sun_has_the_suns_colour():
    """BP-RP = 0.818 (Creevey et al. 2023, A&A 674, A39). The library of this range has strong lines only and is too blue, by less than 0.12."""
    labels = torch.tensor([[5777.0, 4.44, 0, 0, 0]], dtype=torch.float64)
    surface = (XP.flux(labels) * XP.continuum(labels)).double().numpy()
    sun = gaia_xp.observe(surface, XP.wave.numpy(), np.zeros(1), np.full(1, 3.1), np.full(1, 9.0), np.random.default_rng(0))
    assert 0.70 < sun["bp_rp"][0] < 0.83
    assert sun["g"][0] == pytest.approx(9.0, abs=0.01)


@settings(max_examples=20)
@given(st.floats(0, 1.5), st.floats(2.5, 5.5))
def test_dust_follows_the_law(ebv, r_v):
    """A_V = R_V E(B-V) at 5500 A, E(B-V) between B and V, and another published law to a few per cent."""
    wave = np.array([4400.0, 5500.0, 8000.0])
    magnitudes = -2.5 * np.log10(gaia_xp.extinguish(wave, np.array([ebv]), np.array([r_v])))[0]
    assert magnitudes[1] == pytest.approx(r_v * ebv, rel=0.02, abs=1e-9)
    assert magnitudes[0] - magnitudes[1] == pytest.approx(ebv, rel=0.12, abs=1e-9)
    import astropy.units as u
    np.testing.assert_allclose(magnitudes, r_v * ebv * F19(Rv=r_v)(wave * u.AA), rtol=0.08, atol=1e-9)


@pytest.mark.parametrize(("ebv", "r_v"), [(-0.1, 3.1), (0.1, 2.0), (0.1, 6.0)])
def test_dust_outside_the_law_is_refused(ebv, r_v):
    with pytest.raises(SpectrumError, match="E.B-V. must be at least 0 and R_V between 2.3 and 5.6"):
        gaia_xp.extinguish(np.array([5000.0, 5500.0]), np.array([ebv]), np.array([r_v]))


def test_a_black_body_comes_out_as_it_went_in():
    """The independent truth is the input: GaiaXPy's design undoes what the instrument does, but for wiggles where the signal is low (see docs)."""
    wave = np.arange(3300.0, 10300.0, 2.0)
    for teff in (4000.0, 5000.0, 7000.0):
        flux = gaia_xp.black_body(wave, teff)[None] @ gaia_xp.instrument(wave) @ DESIGN.flux.T
        ratio = flux[0] / gaia_xp.black_body(gaia_xp.WAVE, teff)
        for low, high, worst in ((4300, 6000, 0.045), (6000, 6700, 0.035), (6700, 9900, 0.025)):
            assert np.abs(ratio - 1)[(gaia_xp.WAVE > low) & (gaia_xp.WAVE < high)].max() < worst, (teff, low)


@pytest.mark.parametrize(("line", "low", "high"), [(5000, 110, 170), (5800, 180, 230), (7600, 90, 130), (9500, 150, 200)])
def test_lines_are_as_wide_as_published(line, low, high):
    """A line 20 A wide comes out at a resolving power of 25-70 (Carrasco et al. 2021, A&A 652, A86; Montegriffo et al. 2023) and keeps its light."""
    wave = np.arange(3300.0, 10300.0, 2.0)
    spectra = np.stack([np.ones(wave.size), 1 - 0.3 * np.exp(-0.5 * ((wave - line) / 8) ** 2)])
    light = -np.diff(spectra @ gaia_xp.instrument(wave) @ DESIGN.flux.T, axis=0)[0]
    fine = np.linspace(line - 250, line + 250, 5001)
    profile = np.interp(fine, gaia_xp.WAVE, light)
    half = fine[profile > profile.max() / 2]
    assert low < np.ptp(half) < high
    assert np.mean(half) == pytest.approx(line, abs=20)


def test_the_grid_does_not_matter():
    """Coarser and shorter grids give the same coefficients: what lies beyond their ends is almost dark and taken for a black body of 5000 K."""
    grids = [np.arange(3200.0, 10900.0, 2.0), np.arange(3345.0, 10235.0, 5.0), 3331 * np.exp(1.5e-4 * np.arange(7490))]
    coeff = np.concatenate([gaia_xp.black_body(wave)[None] @ gaia_xp.instrument(wave) for wave in grids])
    assert np.abs(coeff / coeff[0, 0] - coeff[0] / coeff[0, 0]).max() < 2e-5
    hot = np.concatenate([gaia_xp.black_body(wave, 7000.0)[None] @ gaia_xp.instrument(wave) for wave in grids])
    assert np.abs(hot / hot[0, 0] - hot[0] / hot[0, 0]).max() < 1e-3


@pytest.mark.parametrize("wave", [np.arange(3500.0, 10300.0, 5.0), np.arange(3300.0, 9000.0, 5.0), np.arange(10300.0, 3300.0, -5.0)])
def test_a_spectrum_that_does_not_cover_the_instrument_is_refused(wave):
    with pytest.raises(MismatchError, match="Gaia XP needs increasing wavelengths from 3400 to 10200 A"):
        gaia_xp.instrument(wave)


def test_a_dark_spectrum_is_refused():
    wave, one = XP.wave.numpy(), np.ones(2)
    surface = np.stack([np.ones(wave.size), np.full(wave.size, np.nan)])
    with pytest.raises(SpectrumError, match="Spectrum 1 has no light in G, BP or RP, or NaN"):
        gaia_xp.observe(surface, wave, 0 * one, 3.1 * one, 12 * one, np.random.default_rng(0))


def test_343_points_come_back():
    stars = sk.simulate("gaia_xp", 64, seed=0)
    flux = np.asarray(stars.labels["coeff"]) @ DESIGN.flux.T
    again = gaia_xp.to_coefficients(flux) @ DESIGN.flux.T
    assert np.median(np.abs(again / flux - 1)) < 1e-4


def test_noise_is_as_stated():
    """The same star many times: coefficients scatter by their errors, fluxes by the diagonal of the errors carried through."""
    labels = np.repeat([[5777.0, 4.44, 0.0, 0.0, 0.0]], 400, axis=0)
    from spectrakit.spectra import label_table
    table = label_table(**dict(zip(("teff", "logg", "feh", "alpha_fe", "c_fe"), labels.T, strict=True)), ebv=np.zeros(400), g=np.full(400, 14.0))
    stars = sk.simulate("gaia_xp", 400, seed=0, labels=table, strength=0.0)
    coeff, error = (np.asarray(stars.labels[name]) for name in ("coeff", "coeff_err"))
    assert ((coeff - coeff.mean(0)) / error).std() == pytest.approx(1, abs=0.02)
    assert ((stars.flux - stars.flux.mean(0)) * np.sqrt(stars.ivar)).std() == pytest.approx(1, abs=0.05)


def test_fainter_stars_have_larger_relative_errors():
    sun = gaia_xp.black_body(XP.wave.numpy(), 5800.0)[None] @ gaia_xp.instrument(XP.wave.numpy())
    g = np.array([9.0, 12.0, 15.0])
    coeff = np.repeat(sun * 10 ** (0.4 * (DESIGN.magnitudes(sun)[:, 0] - g[:, None])), 200, axis=0)
    relative = gaia_xp.coefficient_errors(coeff, np.random.default_rng(0)).reshape(3, 200, 110).mean(1) / gaia_xp.g_flux(g)[:, None]
    assert (np.diff(relative[:, 0]) > 0).all()
    assert (relative[:, 54] < 0.3 * relative[:, 0]).all()


@pytest.mark.requires_data("gaia_xp")
def test_errors_are_those_of_real_sources():
    """Median over the sources and orders of each half magnitude within 10 %, from G = 11.5 to 17.5."""
    *_, data = real()
    known = np.isfinite(data["coeff_err"]).all(1)
    coeff, error = data["coeff"][known].astype("f8"), data["coeff_err"][known]
    ln, g = np.log(gaia_xp.coefficient_errors(coeff, np.random.default_rng(0)) / error), DESIGN.magnitudes(coeff)[:, 0]
    for low in np.arange(11.5, 17.5, 0.5):
        some = ln[(g > low) & (g < low + 0.5)]
        assert len(some) > 20
        for arm in np.split(some, 2, axis=1):
            assert abs(np.median(arm)) < 0.1, (low, np.median(arm))


@pytest.mark.requires_data("gaia_xp")
def test_the_design_is_gaiaxpys_and_real_coefficients_come_back_within_their_errors():
    """92 % and 94 % of the BP and RP coefficients of sources with errors, G > 10, within one error; the flux to 0.01 %."""
    *_, data = real()
    np.testing.assert_allclose(DESIGN.flux, data["design"], atol=1e-9 * np.abs(data["design"]).max())
    coeff = data["coeff"].astype("f8")
    known = np.isfinite(data["coeff_err"]).all(1) & (DESIGN.magnitudes(coeff)[:, 0] > 10)
    flux = coeff[known] @ DESIGN.flux.T
    found = gaia_xp.to_coefficients(flux)
    assert (np.abs(found - coeff[known]) < data["coeff_err"][known]).mean() > 0.9
    assert np.median(np.abs(found @ DESIGN.flux.T / flux - 1)) < 1e-4


@pytest.mark.requires_data("gaia_xp_calspec")
def test_calspec_through_the_instrument_is_xp():
    """HST spectra of 49 stars against Gaia's of the same: within 2 % in the median; from 6600 to 9000 A they scatter less than without it."""
    from spectrakit.readers import local
    data = np.load(local.find("gaia_xp_calspec.npz"))
    xp, hst = (data[name].astype("f8") for name in ("flux_xp", "flux_calspec"))
    whole = np.isfinite(xp * hst).all(1)
    level = lambda ratio: ratio / np.median(ratio[:, 50:300], 1)[:, None]                                        # noqa: E731
    seen, raw = level(hst[whole] @ gaia_xp.instrument(gaia_xp.WAVE) @ DESIGN.flux.T / xp[whole]), level(hst[whole] / xp[whole])
    for low, high in ((4300, 6300), (6600, 9000), (9000, 10000)):
        part = (gaia_xp.WAVE > low) & (gaia_xp.WAVE < high)
        assert abs(np.median(seen[:, part]) - 1) < 0.02
    part = (gaia_xp.WAVE > 6600) & (gaia_xp.WAVE < 9000)
    assert np.median(np.abs(seen[:, part] - 1)) < 0.9 * np.median(np.abs(raw[:, part] - 1))


@pytest.mark.requires_data("gaia_xp")
@pytest.mark.parametrize(("low", "least"), [(0.75, 105), (0.9, 105), (1.05, 104), (1.2, 98)])
def test_simulated_coefficients_lie_among_real_ones_of_the_same_colour(low, least):
    """How many of 110 medians lie within one robust sigma of the real stars'; docs/gaia_xp.md names the others."""
    coeff, colour, g, _ = real()
    x, there = coeff / gaia_xp.g_flux(g)[:, None], (colour > low) & (colour < low + 0.15)
    stars = sk.simulate("gaia_xp", 3000, seed=0)
    y = np.asarray(stars.labels["coeff"]) / gaia_xp.g_flux(np.asarray(stars.labels["g"]))[:, None]
    here = (np.asarray(stars.labels["bp_rp"]) > low) & (np.asarray(stars.labels["bp_rp"]) < low + 0.15)
    sigma = 1.4826 * np.median(np.abs(x[there] - np.median(x[there], 0)), 0)
    assert here.sum() > 100
    assert (np.abs(np.median(y[here], 0) - np.median(x[there], 0)) < sigma).sum() >= least


@pytest.mark.parametrize("at", [4000, 4850, 5500, 6200, 6900, 7700, 8600, 9500])
def test_declared_widths_are_those_of_a_narrow_line(at):
    """One step of the fine spectrum seen in the 343 points: full width at half maximum against the survey's declaration."""
    column = (DESIGN.flux @ DESIGN.response)[:, int(np.argmin(np.abs(DESIGN.wave - at)))]
    fine = np.arange(at - 400, at + 400.5)
    seen = np.interp(fine, gaia_xp.WAVE, column)
    peak = int(np.argmax(seen))
    below = np.flatnonzero(seen < seen[peak] / 2)
    width = fine[below[below > peak][0]] - fine[below[below < peak][-1]]
    assert at / gaia_xp.GAIA_XP.resolution(np.array([float(at)]))[0] == pytest.approx(width, rel=0.05)
