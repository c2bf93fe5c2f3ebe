"""Gaia XP: what GaiaXPy does to coefficients, what dust does, and the way back from a spectrum to coefficients, against real ones."""

import numpy as np
import pytest
import torch
from dust_extinction.parameter_averages import F19
from hypothesis import given, settings
from hypothesis import strategies as st

import spectrakit as sk
from spectrakit import gaia_xp
from spectrakit.errors import SpectrumError
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


def test_line_spread_keeps_flux_and_has_the_declared_width():
    wave = np.arange(3300.0, 10300.0, 1.0)
    kernel = gaia_xp.line_spread(wave)
    np.testing.assert_allclose(kernel.sum(1), 1)
    row = int(np.flatnonzero(gaia_xp.WAVE == 8600)[0])
    mean = (kernel[row] * wave).sum()
    assert mean == pytest.approx(8600, abs=0.1)
    assert 2.3548 * np.sqrt((kernel[row] * (wave - mean) ** 2).sum()) == pytest.approx(160, rel=0.001)


def test_coefficients_reproduce_the_spectrum_they_were_made_from():
    stars = sk.simulate("gaia_xp", 64, seed=0, strength=0.0)
    clean = gaia_xp.to_coefficients(np.asarray(stars.labels["coeff"]) @ DESIGN.flux.T)
    again = gaia_xp.to_coefficients(clean @ DESIGN.flux.T)
    inner = (gaia_xp.WAVE > 4200) & (gaia_xp.WAVE < 9700)
    error = np.abs(again @ DESIGN.flux.T / (clean @ DESIGN.flux.T) - 1)[:, inner]
    assert np.median(error) < 0.003
    with pytest.raises(SpectrumError, match="The mean flux of spectrum 1 is not positive"):
        gaia_xp.to_coefficients(np.stack([clean[0] @ DESIGN.flux.T, -clean[0] @ DESIGN.flux.T]))


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
    g = np.array([9.0, 12.0, 15.0])
    relative = gaia_xp.coefficient_errors(np.repeat(g, 200), np.random.default_rng(0)).reshape(3, 200, 110).mean(1) / gaia_xp.g_flux(g)[:, None]
    assert (np.diff(relative[:, 0]) > 0).all()
    assert (relative[:, 54] < 0.3 * relative[:, 0]).all()


@pytest.mark.requires_data("gaia_xp")
def test_real_coefficients_come_back_within_their_errors():
    coeff, _, _, data = real()
    found = gaia_xp.to_coefficients(coeff @ DESIGN.flux.T)
    np.testing.assert_allclose(DESIGN.flux, data["design"], atol=1e-9 * np.abs(data["design"]).max())
    flux = coeff @ DESIGN.flux.T
    assert np.median(np.abs((found - coeff) @ DESIGN.flux.T) / np.abs(flux).mean(1)[:, None]) < 0.001


@pytest.mark.requires_data("gaia_xp")
@pytest.mark.parametrize("low", [0.75, 0.9, 1.05, 1.2])
def test_simulated_coefficients_lie_among_real_ones_of_the_same_colour(low):
    """Median within one robust sigma of the real stars: at least 95 of 110 (see docs/gaia_xp.md for those that are not)."""
    coeff, colour, g, _ = real()
    x, there = coeff / gaia_xp.g_flux(g)[:, None], (colour > low) & (colour < low + 0.15)
    stars = sk.simulate("gaia_xp", 3000, seed=0)
    y = np.asarray(stars.labels["coeff"]) / gaia_xp.g_flux(np.asarray(stars.labels["g"]))[:, None]
    here = (np.asarray(stars.labels["bp_rp"]) > low) & (np.asarray(stars.labels["bp_rp"]) < low + 0.15)
    sigma = 1.4826 * np.median(np.abs(x[there] - np.median(x[there], 0)), 0)
    assert here.sum() > 100
    assert (np.abs(np.median(y[here], 0) - np.median(x[there], 0)) < sigma).sum() >= 95
