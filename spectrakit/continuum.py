"""Taking the continuum out, the same way for simulated and real spectra, over the same wavelengths.

A continuum depends on the range it was fitted over. Library, LAMOST, DESI, MILES and STELIB share 3960-5640 A (vacuum), so every recipe here uses
these pixels and no others (15157-16950 A in the H band): bluer or redder ones may be present and change nothing. (SpecCLIP fits 3700-5700 A;
against this window that shifts the blue end by 2 %, in single stars by 9 %.)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.polynomial.legendre import legvander

from .errors import MismatchError, SpectrumError
from .gaia_xp import relative
from .resample import resample
from .spectra import SpectraSet, to_vacuum
from .surveys import COMMON, H_BAND, LRS_GRID

DEGREE = 5
LEAST = 0.8                        # share of usable pixels; STELIB stars with a third missing get [Fe/H] wrong by 1 dex
LINES = 0.1                        # typical relative scatter of line-blanketed pixels about the polynomial
BALMER = ((4030.0, 4160.0), (4270.0, 4410.0), (4800.0, 4940.0))


def normalize(stars: SpectraSet, recipe: str = "robust", grid: Float[np.ndarray, " n_new"] = LRS_GRID) -> SpectraSet:
    """Flux over continuum on ``grid`` (vacuum Angstrom), rest-frame or heliocentric as it came.

    Parameters
    ----------
    recipe : ``"robust"`` or ``"specclip"``, see ``robust_continuum`` and ``specclip_continuum``; for Gaia XP ``"550nm"``, which keeps the continuum
        and the 343 points (``gaia_xp.relative``).

    Raises
    ------
    MismatchError
        Already normalised; an unknown recipe; or the spectra do not cover the grid and 3960-5640 A.
    SpectrumError
        A spectrum with less than 80 % of its pixels usable (``coverage`` tells which), with a continuum that is not positive, or without any
        structure.
    """
    if stars.normalization != "none":
        raise MismatchError(f"These spectra are normalised already ({stars.normalization!r}); doing it twice changes every line. Start from the raw flux.")
    if recipe == "550nm":
        return relative(stars)
    if recipe not in RECIPES:
        raise MismatchError(f"No recipe {recipe!r}; there are: {', '.join(RECIPES)}, 550nm.")
    s = stars.to_vacuum()
    span = _span(grid)
    if s.wave[0] > span[0] + 2 or s.wave[-1] < span[1] - 2:
        raise MismatchError(f"The spectra cover {s.wave[0]:.0f}-{s.wave[-1]:.0f} A; the continuum is fitted over {span[0]:.0f}-{span[1]:.0f} A, all of it.")
    inside = (s.wave >= span[0]) & (s.wave <= span[1])
    wave, mask = s.wave[inside], s.mask[:, inside]
    flux, ivar = np.where(mask, 0, s.flux[:, inside]).astype("f8"), np.where(mask, 0, s.ivar[:, inside]).astype("f8")
    mask = mask | (ivar <= 0)
    _check_usable(mask, "before normalising")
    continuum = RECIPES[recipe](wave, flux, ivar, mask)
    _check_continuum(continuum)
    flux, ivar, mask = _onto(wave, flux / continuum, ivar * continuum**2, mask, grid)
    _check_usable(mask, "on the new grid", least=0.5)             # one bad pixel spoils both new ones it touches
    _check_structure(flux, mask)
    resolution = np.interp(grid, s.wave, s.resolution)
    return s.with_flux(grid, flux, ivar, mask, resolution, normalization=recipe, step=f"continuum: {recipe}, {span[0]:.0f}-{span[1]:.0f} A; {grid.size} pixels")


def coverage(stars: SpectraSet) -> Float[np.ndarray, " n"]:
    """Share of pixels between 3960 and 5640 A (vacuum), in the H band 15157 and 16950 A, that are usable, in each spectrum: 0 to 1.

    Raises
    ------
    MismatchError
        The spectra have no pixel there.
    """
    wave = to_vacuum(stars.wave, stars.medium)
    low, high = _span(wave)
    inside = (wave >= low) & (wave <= high)
    if not inside.any():
        raise MismatchError(f"The spectra cover {wave[0]:.0f}-{wave[-1]:.0f} A, nothing of the {low:.0f}-{high:.0f} A over which a continuum is fitted.")
    return 1.0 - (stars.mask | (np.where(stars.mask, 0, stars.ivar) <= 0))[:, inside].mean(1)


def robust_continuum(wave: Float[np.ndarray, " n_pix"], flux: Float[np.ndarray, "n n_pix"], ivar: Float[np.ndarray, "n n_pix"],
                     mask: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n n_pix"]:
    """Weighted least-squares Legendre polynomial of degree 5.

    The weight of a pixel is 1 / (noise^2 + (0.1 local level)^2): the second term is the scatter that lines cause, so a precise pixel inside a
    line does not pull harder than its neighbours. Pixels more than 4 of these sigmas above the fit (cosmic rays, emission) are left out and the
    fit repeated. Nothing else is rejected: the fit is linear in the flux, so noise does not move it, at the price of a pseudo-continuum that
    runs through the lines, the same for simulated and real stars.
    """
    basis = _basis(wave)
    used, level = ~mask, np.broadcast_to(_level(flux, mask), flux.shape)
    variance = np.divide(1, ivar, out=np.full(flux.shape, np.inf), where=used)
    for _ in range(3):
        sigma2 = variance + (LINES * level) ** 2
        level = _fit(basis, flux, np.where(used, 1 / sigma2, 0))
        level = np.maximum(level, 0.05 * _level(flux, mask))
        used = used & (flux - level <= 4 * np.sqrt(sigma2))
    return _fit(basis, flux, np.where(used, 1 / sigma2, 0))


def specclip_continuum(wave: Float[np.ndarray, " n_pix"], flux: Float[np.ndarray, "n n_pix"], ivar: Float[np.ndarray, "n n_pix"],
                       mask: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n n_pix"]:
    """SpecCLIP's upper envelope (Zhao et al. 2026, arXiv:2507.01939): a fifth-degree polynomial fitted ten times, flux below it replaced by it.

    As published: median filter of 7 pixels, Balmer lines of stars that peak bluer than 4500 A bridged between the maxima near their edges, no
    errors used. Not inherited: there the bridge counts pixels of a cut array in the uncut one (100 A off for a spectrum that starts at 3600 A).
    Inherent: noise lifts the envelope, by 0.2 % at S/N 300, 1.3 % at 50, 3.3 % at 20, 5.9 % at 10, so line depths depend on the noise.
    """
    from scipy.ndimage import median_filter
    basis = _basis(wave)
    filled = _fill(wave, flux, mask)
    work = median_filter(filled, size=(1, 7), mode="nearest")
    weight = np.ones_like(work)
    for row in np.flatnonzero(wave[_fit(basis, work, weight).argmax(1)] < 4500):
        work[row] = _bridge(wave, work[row])
    for _ in range(10):
        work = np.maximum(work, _fit(basis, work, weight))
    return _fit(basis, work, weight)


RECIPES = {"robust": robust_continuum, "specclip": specclip_continuum}


def fill_masked(stars: SpectraSet) -> Float[np.ndarray, "n n_pix"]:
    """The flux (n, n_pix) with masked pixels bridged by straight lines between usable ones; what was under the mask is not read.

    Raises
    ------
    SpectrumError
        A spectrum has no usable pixel at all.
    """
    empty = stars.mask.all(1)
    if empty.any():
        raise SpectrumError(f"{empty.sum()} of {len(stars)} spectra are masked altogether (first: spectrum {empty.argmax()}); leave them out.")
    return _fill(stars.wave, np.where(stars.mask, 0, stars.flux), stars.mask)


def _span(wave):
    return H_BAND if wave[-1] > H_BAND[0] and wave[0] > COMMON[1] else COMMON


def _basis(wave):
    low, high = _span(wave)
    return legvander(2 * (wave - low) / (high - low) - 1, DEGREE)


def _fit(basis, flux, weight):
    n, k = len(flux), basis.shape[1]
    normal = (weight @ (basis[:, :, None] * basis[:, None]).reshape(-1, k * k)).reshape(n, k, k)
    return np.linalg.solve(normal, ((weight * flux) @ basis)[..., None])[..., 0] @ basis.T


def _level(flux, mask):
    return (np.where(mask, 0, flux).sum(1) / np.maximum((~mask).sum(1), 1))[:, None]


def _fill(wave, flux, mask):
    filled = np.array(flux, "f8")
    for row in np.flatnonzero(mask.any(1)):
        filled[row, mask[row]] = np.interp(wave[mask[row]], wave[~mask[row]], flux[row, ~mask[row]])
    return filled


def _bridge(wave, flux):
    flux = flux.copy()
    for low, high in BALMER:
        ends = [(wave > edge - 10) & (wave < edge + 10) for edge in (low, high)]
        inside = (wave >= low) & (wave <= high)
        flux[inside] = np.interp(wave[inside], [low, high], [flux[near].max() for near in ends])
    return flux


def _onto(wave, flux, ivar, mask, grid):
    start = int(np.argmin(np.abs(wave - grid[0])))
    same = wave[start:start + grid.size]
    if same.size == grid.size and np.allclose(same, grid, rtol=1e-10, atol=0):
        pixels = slice(start, start + grid.size)
        return flux[:, pixels], ivar[:, pixels], mask[:, pixels]
    return resample(wave, flux, ivar, mask, grid)


def _check_usable(mask, when, least=LEAST):
    share = 1 - mask.mean(1)
    if (share < least).any():
        row = int(share.argmin())
        raise SpectrumError(f"{(share < least).sum()} of {len(mask)} spectra have less than {least:.0%} of their pixels usable {when} (spectrum {row}: "
                            f"{share[row]:.0%}): a polynomial has nothing to hold on to in the gap. Leave them out: stars[sk.coverage(stars) >= {LEAST}].")


def _check_continuum(continuum):
    bad = ~(np.isfinite(continuum) & (continuum > 0)).all(1)
    if bad.any():
        raise SpectrumError(f"The continuum of {bad.sum()} spectra is not positive (first: spectrum {bad.argmax()}); flux over it would have no meaning. "
                            "Check the sky subtraction, or leave them out.")


def _check_structure(flux, mask):
    flat = np.where(mask, np.nan, flux)
    bad = np.nanmax(flat, 1) - np.nanmin(flat, 1) < 1e-4
    if bad.any():
        raise SpectrumError(f"{bad.sum()} spectra are constant (first: spectrum {bad.argmax()}): no line, nothing to analyse. Leave them out.")


def require_normalized(stars: SpectraSet, recipe: str, grid) -> SpectraSet:
    """The spectra normalised by ``recipe`` on ``grid``: done here when they are raw, refused when they were made for something else."""
    if stars.normalization == "none":
        return normalize(stars, recipe, grid)
    if stars.normalization != recipe:
        raise MismatchError(f"The spectra were normalised by {stars.normalization!r}, this model was trained on {recipe!r}; give it the raw spectra.")
    if stars.wave.shape != grid.shape or not np.allclose(stars.wave, grid, rtol=1e-9):
        raise MismatchError(f"The spectra have {stars.wave.size} pixels over {stars.wave[0]:.1f}-{stars.wave[-1]:.1f} A, this model needs {grid.size} over "
                            f"{grid[0]:.1f}-{grid[-1]:.1f} A; give it the raw spectra and it resamples them itself.")
    if stars.medium != "vacuum":
        raise MismatchError("The spectra are on air wavelengths, this model on vacuum; use stars.to_vacuum() before normalising.")
    return stars
