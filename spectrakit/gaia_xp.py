"""Gaia's XP spectrophotometer: a star's light through dust, the line spread of BP and RP, and 110 coefficients with their errors.

Gaia publishes a spectrum as 55 + 55 coefficients of bases; the 343-point spectrum from 3360 to 10200 A is linear in them, ``flux = coeff @ design.T``.
The way back is not: that matrix has a condition number of 6e14. Over the whole detector and arm by arm it is good-natured, and there a regularised
inversion gives ``response``: one matrix from a fine spectrum to the coefficients, line spread included. See ``docs/gaia_xp.md`` for what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from astropy.table import Table
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from .errors import MismatchError, SpectrumError
from .spectra import SpectraSet
from .surveys import GAIA_XP
from .weights import load_tensors

WAVE = GAIA_XP.wave
AT_550 = 107                                           # the point at 550 nm
N_BP = 55                                              # coefficients of BP, then as many of RP
BANDS = ("G", "BP", "RP")
ASSET = files("spectrakit") / "assets" / "gaia_xp_design.safetensors"
G_FLUX = 25.6873668671                                 # mag; coefficients over 10**(0.4 (G_FLUX - G)) do not depend on brightness
# ln(error) = ln(a x + b + c x^2) / 2 + p k + q k^2 - r max(55 k - 50, 0) with x = 10**(0.4 (15 - BP)) or RP and k = order / 54
ERRORS = {"BP": (2.727, 0.3915, 0.8406, -1.115, -0.473, 0.288), "RP": (0.5884, 0.1766, 0.02594, 0.665, -2.054, 0.210)}
ERROR_SCATTER = 0.085                                  # of ln(error), from source to source: the number of transits
COVER = (3400.0, 10200.0)                              # A a spectrum must cover; beyond its ends it goes on like a black body of 5000 K
TRUST, LEVEL = 3e-4, 1e-21                             # error of a 343-point spectrum, relative to its level; W / m2 / nm of an FGK star per G flux
TAIL = 50.0                                            # A at either end that set the level there


@dataclass(frozen=True, eq=False)
class Design:
    """flux : (343, 110) W / m2 / nm per unit coefficient. bands : (3, 110) flux in G, BP, RP per unit coefficient. zero_point : (3,) mag (Vega).
    scatter : (110,) of coefficient / G flux of real stars, a smooth law. response : (110, m) coefficients per flux (W / m2 / nm) and A, at ``wave``
    (m,) vacuum A."""

    flux: Float[np.ndarray, "343 110"]
    bands: Float[np.ndarray, "3 110"]
    zero_point: Float[np.ndarray, " 3"]
    scatter: Float[np.ndarray, " 110"]
    wave: Float[np.ndarray, " m"]
    response: Float[np.ndarray, "110 m"]

    def magnitudes(self, coeff: Float[np.ndarray, "n 110"]) -> Float[np.ndarray, "n 3"]:
        """G, BP and RP (Vega system of Gaia DR3)."""
        return self.zero_point - 2.5 * np.log10(coeff @ self.bands.T)


@cache
def load_design() -> Design:
    """The matrices shipped with the package; measured with GaiaXPy (De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3)."""
    tensors, _ = load_tensors(ASSET)
    return Design(*(tensors[name].double().numpy() for name in ("design", "bands", "zero_point", "scatter", "wave", "response")))


def g_flux(g: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Electrons per second of a star of this G; coefficients over it do not depend on brightness (Leung & Bovy 2024, MNRAS 527, 1494)."""
    return 10 ** (0.4 * (G_FLUX - g))


def complete(table: Table, mean_ebv: float, rng: np.random.Generator) -> None:
    """Give the stars what a table of labels may lack: E(B-V) (exponential), R_V = 3.1, and a magnitude G between 9 and 15.5."""
    n = len(table)
    for name, draw in (("ebv", lambda: rng.exponential(mean_ebv, n)), ("r_v", lambda: np.full(n, 3.1)), ("g", lambda: rng.uniform(9.0, 15.5, n))):
        if name not in table.colnames:
            table[name] = draw()


def extinguish(wave: Float[np.ndarray, " n_pix"], ebv: Float[np.ndarray, " n"], r_v: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n_pix"]:
    """Share of the light that dust lets through: Gordon et al. 2023 (ApJ 950, 86), because it is one law from the ultraviolet to the infrared,
    measured for R_V from 2.3 to 5.6. E(B-V) in mag.

    Raises
    ------
    SpectrumError
        Negative E(B-V), or R_V outside 2.3-5.6.
    """
    from astropy import units as u
    from dust_extinction.parameter_averages import G23
    if not ((ebv >= 0).all() and (r_v >= 2.3).all() and (r_v <= 5.6).all()):
        raise SpectrumError("E(B-V) must be at least 0 and R_V between 2.3 and 5.6, the range of the extinction law.")
    curves, row = np.unique(r_v, return_inverse=True)
    curve = np.stack([G23(Rv=value)(wave * u.AA) for value in curves])[row]
    return np.exp(curve * (-0.4 * np.log(10) * ebv * r_v)[:, None])


def black_body(wave: Float[np.ndarray, " n_pix"], teff: float = 5000.0) -> Float[np.ndarray, " n_pix"]:
    """Planck's law per unit wavelength, in any unit."""
    return wave**-5.0 / np.expm1(1.438777e8 / (wave * teff))


def instrument(wave: Float[np.ndarray, " n_pix"]) -> Float[np.ndarray, "n_pix 110"]:
    """Matrix from a spectrum at ``wave`` (vacuum A; flux in W / m2 / nm) to the 110 coefficients; noise-free, and linear.

    Raises
    ------
    MismatchError
        The wavelengths do not increase, or do not cover 3400-10200 A.
    """
    return _instrument(wave.tobytes())


@lru_cache(maxsize=8)
def _instrument(grid: bytes) -> Float[np.ndarray, "n_pix 110"]:
    wave, design = np.frombuffer(grid), load_design()
    if not (np.diff(wave) > 0).all() or wave[0] > COVER[0] or wave[-1] < COVER[1]:
        raise MismatchError(f"The spectrum covers {wave[0]:.0f}-{wave[-1]:.0f} A; Gaia XP needs increasing wavelengths from {COVER[0]:.0f} to {COVER[1]:.0f} A.")
    nodes = np.concatenate([design.wave[design.wave < wave[0]], wave, design.wave[design.wave > wave[-1]]])
    share = CubicSpline(design.wave, design.response, axis=1)(np.clip(nodes, *design.wave[[0, -1]])) * np.gradient(nodes)
    inside = (nodes >= wave[0]) & (nodes <= wave[-1])
    matrix = share[:, inside].T.copy()
    for end, beyond in ((wave <= wave[0] + TAIL, nodes < wave[0]), (wave >= wave[-1] - TAIL, nodes > wave[-1])):
        matrix[end] += share[:, beyond] @ black_body(nodes[beyond]) / black_body(wave[end])[:, None] / end.sum()
    return matrix


@cache
def gain() -> Float[np.ndarray, "110 343"]:
    """Matrix from 343 points to coefficients: least squares with a Gaussian prior about zero. It holds for stars of any brightness."""
    design = load_design()
    wide = design.flux * design.scatter
    return design.scatter[:, None] * np.linalg.solve(wide.T @ wide + (TRUST * LEVEL) ** 2 * np.eye(wide.shape[1]), wide.T)


def to_coefficients(flux: Float[np.ndarray, "n 343"]) -> Float[np.ndarray, "n 110"]:
    """The most probable coefficients of 343-point spectra (W / m2 / nm), noise-free to 0.03 %: those of real stars come back within their errors.

    The prior is Gaussian about zero, as wide as the coefficients of real stars. For spectra at full resolution there is ``instrument``.
    """
    return flux @ gain().T


def coefficient_errors(coeff: Float[np.ndarray, "n 110"], rng: np.random.Generator) -> Float[np.ndarray, "n 110"]:
    """Standard errors of these coefficients: a law in the light of each arm and the order, fitted to 2,030 real sources, with their scatter of 9 %.

    Photons, background and a floor of calibration; valid for 6 < G < 17.7.
    """
    k, ln = np.arange(N_BP) / (N_BP - 1), []
    for magnitude, (a, b, c, p, q, r) in zip(load_design().magnitudes(coeff)[:, 1:].T, ERRORS.values(), strict=True):
        x = 10 ** (0.4 * (15 - magnitude))[:, None]
        ln.append(np.log(a * x + b + c * x**2) / 2 + p * k + q * k**2 - r * np.maximum(N_BP * k - 50, 0))
    return np.exp(np.concatenate(ln, axis=1) + ERROR_SCATTER * rng.standard_normal((len(coeff), 1)))


def observe(surface: Float[np.ndarray, "n n_pix"], wave: Float[np.ndarray, " n_pix"], ebv: Float[np.ndarray, " n"], r_v: Float[np.ndarray, " n"],
            g: Float[np.ndarray, " n"], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Stars through dust and instrument.

    Parameters
    ----------
    surface : flux per wavelength in any unit, at ``wave`` (vacuum A, the xp library's grid).
    ebv, r_v : (n,) reddening (mag) and the shape of its law.
    g : (n,) apparent G (mag) that each star shall have.

    Returns
    -------
    ``coeff``, ``coeff_err`` (n, 110); ``flux`` = coeff @ design.T (n, 343) in W / m2 / nm and its ``ivar``, from the diagonal errors; ``g``,
    ``bp_rp`` (mag) of the noisy coefficients.

    Raises
    ------
    SpectrumError
        A spectrum without light in one of the bands; E(B-V) or R_V outside the law.
    MismatchError
        The wavelengths do not cover the instrument.
    """
    design = load_design()
    coeff = (surface * extinguish(wave, ebv, r_v)) @ instrument(wave)
    dark = ~(coeff @ design.bands.T > 0).all(1)
    if dark.any():
        raise SpectrumError(f"Spectrum {int(dark.argmax())} has no light in G, BP or RP, or NaN; fluxes must be positive and finite.")
    coeff = coeff * 10 ** (0.4 * (design.magnitudes(coeff)[:, :1] - g[:, None]))
    error = coefficient_errors(coeff, rng)
    coeff = coeff + error * rng.standard_normal(coeff.shape)
    magnitudes = design.magnitudes(coeff)
    return {"coeff": coeff, "coeff_err": error, "flux": coeff @ design.flux.T, "ivar": 1 / (error**2 @ design.flux.T**2), "g": magnitudes[:, 0],
            "bp_rp": magnitudes[:, 1] - magnitudes[:, 2]}


def relative(stars: SpectraSet) -> SpectraSet:
    """Flux over its value at 550 nm (SpecCLIP's normalisation, Zhao et al. 2026, arXiv:2507.01939): brightness goes, colour and dust stay.

    Raises
    ------
    MismatchError
        Not the 343 points from 3360 to 10200 A.
    SpectrumError
        A spectrum without light at 550 nm: the division would turn it upside down.
    """
    if stars.wave.shape != WAVE.shape or not np.allclose(stars.wave, WAVE, rtol=0, atol=0.5):
        raise MismatchError(f"{stars.wave.size} pixels over {stars.wave[0]:.0f}-{stars.wave[-1]:.0f} A; Gaia XP is 343 points from 3360 to 10200 A. "
                            "Interpolate to gaia_xp.WAVE.")
    at = np.where(stars.mask[:, AT_550], np.nan, stars.flux[:, AT_550])[:, None]
    dark = ~(at > 0)[:, 0]
    if dark.any():
        raise SpectrumError(f"{dark.sum()} of {len(stars)} spectra have no positive flux at 550 nm (first: spectrum {dark.argmax()}); leave them out.")
    return stars.with_flux(stars.wave, stars.flux / at, stars.ivar * at**2, stars.mask, stars.resolution, normalization="550nm", step="flux over flux at 550 nm")
