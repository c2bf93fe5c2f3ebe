"""Moving spectra to other wavelengths: interpolation that carries errors and masks with it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from .errors import SpectrumError

# A weight below this is rounding of the wavelengths, not a contribution: a neighbour is not masked for its sake.
ROUNDING = 1e-9


def resample(
    wave: Float[np.ndarray, " n_pix"], flux: Float[np.ndarray, "n n_pix"], ivar: Float[np.ndarray, "n n_pix"],
    mask: Bool[np.ndarray, "n n_pix"], new_wave: Float[np.ndarray, "*rows n_new"],
) -> tuple[Float[np.ndarray, "n n_new"], Float[np.ndarray, "n n_new"], Bool[np.ndarray, "n n_new"]]:
    """``(flux, ivar, mask)`` at ``new_wave``: the cubic through the four neighbouring pixels, a straight line where one of the outer two is unusable.

    Parameters
    ----------
    wave : (n_pix,) Angstrom, increasing.
    flux, ivar, mask : (n, n_pix). What lies under the mask, NaN included, is never read.
    new_wave : (n_new,) for all spectra, or (n, n_new) for each its own; Angstrom, in the same medium as ``wave``, in any order.

    Returns
    -------
    flux, ivar : (n, n_new) float64; both 0 where the new mask is set.
    mask : (n, n_new) True where one of the two pixels on either side is masked, or outside ``wave``. At a pixel only that pixel counts.

    Notes
    -----
    Why not a straight line throughout: surveys sample their line spread with barely 2.5 pixels. For a line that narrow the straight line errs by
    up to 8 % of the depth (it fills lines in, differently for every shift), the cubic by 3 %.
    The variance is what the weights give for independent pixels, sum of weight^2 / ivar; a contributing pixel with ``ivar`` = 0 gives 0.
    Neighbouring new pixels share old ones, so their errors are correlated, which no ``ivar`` can express: between two pixels the variance shrinks
    although no information was won. Flux is not conserved as an integral: a grid much coarser than ``wave`` is sampled, not averaged.

    Raises
    ------
    SpectrumError
        ``new_wave`` holds NaN, or has neither one row nor as many rows as there are spectra.
    """
    _check_grid(new_wave, len(flux))
    left, t, outside = _place(wave, new_wave)
    pixels = np.clip(np.stack([left - 1, left, left + 1, left + 2]), 0, wave.size - 1)
    inner = (t > 0) & (t < 1) & (left > 0) & (left < wave.size - 2)
    shape = (len(flux), new_wave.shape[-1])
    pixels, cubic = (np.broadcast_to(a if a.ndim == 3 else a[:, None], (4, *shape)) for a in (pixels, _cubic(wave, pixels, left, t)))
    return _combine(np.where(mask, 0, flux), np.where(mask, 0, ivar), mask, pixels, cubic, t, inner, np.broadcast_to(outside, shape))


def _check_grid(new_wave, n: int) -> None:
    if not np.isfinite(new_wave).all():
        raise SpectrumError("new_wave holds NaN or infinite wavelengths; expected finite Angstrom: check the velocity or grid it was made from.")
    if new_wave.ndim != 1 and len(new_wave) != n:
        raise SpectrumError(f"new_wave has shape {new_wave.shape} for {n} spectra; give (n_new,) for all, or one row a spectrum.")


def _combine(flux, ivar, mask, pixels, cubic, t, inner, outside):
    """Flux, ivar and mask of the weighted pixels: ``cubic`` where all four are usable and it is an ``inner`` one, straight between two elsewhere."""
    new_flux, variance, new_mask = np.zeros(outside.shape), np.zeros(outside.shape), outside.copy()
    with np.errstate(divide="ignore", over="ignore"):  # ivar = 0 is an infinite variance, and 1 / inf = 0 at the end
        sigma2 = 1 / ivar
        good = np.isfinite(np.take_along_axis(sigma2, pixels[0], axis=1)) & np.isfinite(np.take_along_axis(sigma2, pixels[3], axis=1)) & inner
        for pixel, curve, line in zip(pixels, cubic, (0, 1 - t, t, 0), strict=True):
            weight = np.where(good, curve, line)
            new_mask |= (line > 0) & np.take_along_axis(mask, pixel, axis=1)
            new_flux += weight * np.take_along_axis(flux, pixel, axis=1)
            variance += weight**2 * np.where(weight == 0, 0, np.take_along_axis(sigma2, pixel, axis=1))
        return np.where(new_mask, 0, new_flux), np.where(new_mask, 0, 1 / variance), new_mask


def _place(wave, new_wave):
    """Left neighbour, distance from it as a fraction of the step, and True outside the grid."""
    left = np.clip(np.searchsorted(wave, new_wave, side="right") - 1, 0, wave.size - 2)
    t = (new_wave - wave[left]) / (wave[left + 1] - wave[left])
    outside = (t < -ROUNDING) | (t > 1 + ROUNDING)
    return left, np.where(t < ROUNDING, 0.0, np.where(t > 1 - ROUNDING, 1.0, t)), outside


def _cubic(wave, pixels, left, t):
    """Lagrange's weights of the four pixels, (4, ...); meaningless where two of them are the same, at the ends of the grid."""
    x, at = wave[left] + t * (wave[left + 1] - wave[left]), wave[pixels]
    weights = np.ones(at.shape)
    for i in range(4):
        for j in range(4):
            if i != j:
                step = at[i] - at[j]
                weights[i] *= (x - at[j]) / np.where(step == 0, 1, step)
    return weights
