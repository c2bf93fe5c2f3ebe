"""Gaia's XP spectrophotometer: a star's light through dust, the line spread of BP and RP, and 110 coefficients with their errors.

Gaia publishes a spectrum as 55 + 55 coefficients of bases; the 343-point spectrum from 3360 to 10200 A is linear in them, ``flux = coeff @ design.T``.
The way back is not: the design's condition number is 6e14. ``to_coefficients`` therefore asks for the most probable coefficients, given the spectrum
and what coefficients of real stars of that colour are like. See ``docs/gaia_xp.md`` for what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from .errors import SpectrumError
from .surveys import GAIA_XP
from .weights import load_tensors

WAVE = GAIA_XP.wave
N_BP = 55                                              # coefficients of BP, then as many of RP
BANDS = ("G", "BP", "RP")
ASSET = files("spectrakit") / "assets" / "gaia_xp_design.safetensors"
G_FLUX = 25.6873668671                                 # mag; coefficients over 10**(0.4 (G_FLUX - G)) do not depend on brightness
ERRORS = {"BP": (-9.07, 0.37, 2.2), "RP": (-9.07, 0.44, 1.95)}    # ln(error over G flux): a - b ln(G flux / 1e4) - c (order / 54)**3
COLOURS = (0.4, 1.8)                                   # BP-RP over which the prior was fitted, mag
TRUST = 0.02                                           # relative error of a simulated spectrum against calibrated real ones


@dataclass(frozen=True, eq=False)
class Design:
    """flux : (343, 110) W / m2 / nm per unit coefficient. bands : (3, 110) flux in G, BP, RP per unit coefficient. zero_point : (3,) mag (Vega).
    mean : (4, 110) Legendre coefficients, in BP-RP, of the mean of coefficient / G flux of real stars; scatter : (110,) about it."""

    flux: Float[np.ndarray, "343 110"]
    bands: Float[np.ndarray, "3 110"]
    zero_point: Float[np.ndarray, " 3"]
    mean: Float[np.ndarray, "4 110"]
    scatter: Float[np.ndarray, " 110"]

    def magnitudes(self, coeff: Float[np.ndarray, "n 110"]) -> Float[np.ndarray, "n 3"]:
        """G, BP and RP (Vega system of Gaia DR3)."""
        return self.zero_point - 2.5 * np.log10(coeff @ self.bands.T)

    def usual(self, bp_rp: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 110"]:
        """Mean coefficients over G flux of stars of this colour; beyond the fitted range, of the nearest colour in it."""
        low, high = COLOURS
        return np.polynomial.legendre.legvander(2 * (np.clip(bp_rp, low, high) - low) / (high - low) - 1, 3) @ self.mean


@cache
def load_design() -> Design:
    """The matrices shipped with the package; measured with GaiaXPy (De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3)."""
    tensors, _ = load_tensors(ASSET)
    return Design(*(tensors[name].double().numpy() for name in ("design", "bands", "zero_point", "mean", "scatter")))


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
    curve = {value: G23(Rv=value)(wave * u.AA) for value in np.unique(r_v)}
    return 10 ** (-0.4 * (ebv * r_v)[:, None] * np.stack([curve[value] for value in r_v]))


def line_spread(wave: Float[np.ndarray, " n_pix"]) -> Float[np.ndarray, "343 n_pix"]:
    """Matrix from a fine spectrum at ``wave`` (A) to the 343 points: Gaussians of the declared widths, each row normalised."""
    fwhm = WAVE / GAIA_XP.resolution(WAVE)
    kernel = np.exp(-4 * np.log(2) * ((wave - WAVE[:, None]) / fwhm[:, None]) ** 2) * np.gradient(wave)
    return kernel / kernel.sum(1, keepdims=True)


@cache
def gain() -> Float[np.ndarray, "110 343"]:
    """Matrix from a spectrum's departure from the usual one to the coefficients' departure from theirs: least squares with a Gaussian prior."""
    design = load_design()
    level = np.abs(design.usual(np.array([np.mean(COLOURS)])) @ design.flux.T)[0]
    scaled = design.flux * (2 * design.scatter) / (TRUST * level[:, None])
    return (2 * design.scatter)[:, None] * np.linalg.solve(scaled.T @ scaled + np.eye(110), scaled.T) / (TRUST * level)


def to_coefficients(flux: Float[np.ndarray, "n 343"], rounds: int = 4) -> Float[np.ndarray, "n 110"]:
    """The most probable coefficients of noise-free 343-point spectra (W / m2 / nm).

    The prior is Gaussian about the usual coefficients of the colour, twice as wide as those of real stars; the colour is that of the result, found
    in a few rounds. Where the spectrum decides, the prior does not matter: 343 points come back to 0.2 % in the median.

    Raises
    ------
    SpectrumError
        A spectrum that is not positive on average.
    """
    design = load_design()
    if not (flux.mean(1) > 0).all():
        raise SpectrumError(f"The mean flux of spectrum {int((flux.mean(1) <= 0).argmax())} is not positive; it has no brightness to scale by.")
    colour = np.full(len(flux), np.mean(COLOURS))
    usual = design.usual(colour)
    scale = flux.sum(1) / (usual @ design.flux.T).sum(1)
    for _ in range(rounds):
        usual = design.usual(colour)
        coeff = scale[:, None] * (usual + (flux / scale[:, None] - usual @ design.flux.T) @ gain().T)
        magnitudes = design.magnitudes(coeff)
        scale, colour = g_flux(magnitudes[:, 0]), magnitudes[:, 1] - magnitudes[:, 2]
    return coeff


def coefficient_errors(g: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, "n 110"]:
    """Standard errors of the coefficients of sources of this G (mag): a law fitted to 2,030 real ones, 15 % scatter from source to source."""
    flux, k = g_flux(g)[:, None], np.arange(N_BP) / (N_BP - 1)
    ln = np.concatenate([a - b * np.log(flux / 1e4) - c * k**3 for a, b, c in ERRORS.values()], axis=1)
    return flux * np.exp(ln + 0.15 * rng.standard_normal((len(g), 1)))


def observe(surface: Float[np.ndarray, "n n_pix"], wave: Float[np.ndarray, " n_pix"], ebv, r_v, g: Float[np.ndarray, " n"],
            rng: np.random.Generator) -> dict[str, np.ndarray]:
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
    """
    design = load_design()
    coeff = to_coefficients((surface * extinguish(wave, ebv, r_v)) @ line_spread(wave).T)
    coeff = coeff * 10 ** (0.4 * (design.magnitudes(coeff)[:, :1] - g[:, None]))
    error = coefficient_errors(g, rng)
    coeff = coeff + error * rng.standard_normal(coeff.shape)
    magnitudes = design.magnitudes(coeff)
    return {"coeff": coeff, "coeff_err": error, "flux": coeff @ design.flux.T, "ivar": 1 / (error**2 @ design.flux.T**2), "g": magnitudes[:, 0],
            "bp_rp": magnitudes[:, 1] - magnitudes[:, 2]}
