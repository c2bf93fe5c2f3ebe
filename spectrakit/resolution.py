"""Spectra at a lower resolution than they were taken at: another instrument's, or the one a model was made for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array, diags_array

from .errors import MismatchError, SpectrumError
from .line_spread import FWHM
from .spectra import SpectraSet

LEAST = 0.9        # share of the kernel's weight on usable pixels: a new pixel that knows less is masked


def degrade(stars: SpectraSet, resolution: float | int | Float[np.ndarray, " n_pix"]) -> SpectraSet:
    """The same spectra, on the same pixels, at a lower resolving power (wave / FWHM): one number, or one a pixel.

    Raw spectra are to be degraded before they are normalised onto a coarser grid; ``np.minimum(stars.resolution, 1800)`` leaves alone what is lower.

    Notes
    -----
    Convolution with a sampled Gaussian whose variance over the pixels is exactly the difference of the two line spreads', also where it is narrower
    than a pixel. Unusable pixels (masked, or ``ivar`` = 0) are left out of the mean; where they carry
    more than a tenth of the weight, ends of the grid included, the new pixel is masked. ``ivar`` is that of each pixel by itself: neighbours become
    correlated, which it cannot express.

    Raises
    ------
    MismatchError
        The spectra have a lower resolution than asked for somewhere.
    SpectrumError
        The line spread is narrower than a pixel, so that the pixels do not hold the spectrum, or the pixels' spacing jumps.
    """
    wave, own, new = stars.wave, stars.resolution, np.broadcast_to(np.asarray(resolution, "f8"), stars.wave.shape)
    lower = ~(own >= 0.999 * new)
    if lower.any():
        i = int(lower.argmax())
        raise MismatchError(f"A resolving power of {new[i]:.0f} is asked for at {wave[i]:.0f} A, the spectra have {own[i]:.0f} there and can only be degraded. "
                            f"Ask for less, or leave these pixels as they are: degrade(stars, np.minimum(stars.resolution, {new[i]:.0f})).")
    step = np.gradient(wave)
    _check_pixels(wave, own, step)
    variance = (wave / FWHM / step) ** 2 * np.maximum(new**-2.0 - own**-2.0, 0)                     # in pixels^2
    kernel, good = _kernel(variance), ~stars.mask & (np.where(stars.mask, 0, stars.ivar) > 0)
    apply = lambda matrix, values: (matrix @ np.where(good, values, 0).astype("f8").T).T             # noqa: E731
    weight = apply(kernel, 1.0)
    mask = weight < LEAST
    share = np.where(mask, 1.0, weight)
    noise = apply(kernel.power(2), 1 / np.where(good, stars.ivar, 1).astype("f8"))
    flux, ivar = np.where(mask, 0, apply(kernel, stars.flux) / share), np.where(mask, 0, share**2 / np.where(mask, 1, noise))
    return stars.with_flux(wave, flux, ivar, mask, np.minimum(own, new), normalization=stars.normalization,
                           step=f"degraded to a resolving power of {new.min():.0f}-{new.max():.0f}")


def _kernel(variance: Float[np.ndarray, " n_pix"]) -> csr_array:
    """Row i holds the weights exp(-k^2 / 2 s) of the pixels i + k, s such that their variance, and not the curve's, is that of row i."""
    n_pix, reach = len(variance), int(np.ceil(5 * np.sqrt(variance.max()))) + 4
    k, trial = np.arange(-reach, reach + 1)[:, None], np.geomspace(0.02, 1.0, 200)               # from 1 on the two are the same to 1e-7
    weight = np.exp(-(k**2) / (2 * trial))
    s = np.where(variance < 1, np.interp(variance, (weight * k**2).sum(0) / weight.sum(0), trial), variance)
    weight = np.exp(-(k**2) / (2 * s))
    weight = weight / weight.sum(0)
    near = np.abs(k[:, 0]) < n_pix
    rows = [w[max(0, -o):n_pix - max(0, o)] for o, w in zip(k[near, 0], weight[near], strict=True)]
    return diags_array(rows, offsets=k[near, 0]).tocsr()


def _check_pixels(wave, own, step) -> None:
    jump = np.abs(np.diff(np.log(np.diff(wave)))) > 0.1
    if jump.any():
        i = int(jump.argmax()) + 1
        raise SpectrumError(f"The spacing of the pixels jumps at {wave[i]:.0f} A ({wave[i] - wave[i - 1]:.2f} and {wave[i + 1] - wave[i]:.2f} A); a line "
                            "spread in pixels has no meaning there. Degrade the parts by themselves.")
    narrow = wave / own < step
    if narrow.any():
        i = int(narrow.argmax())
        raise SpectrumError(f"The line spread at {wave[i]:.0f} A is {wave[i] / own[i]:.2f} A wide, a pixel {step[i]:.2f} A: lines fall between such pixels. "
                            "Degrade the spectra on the survey's own pixels, before they are normalised onto a coarser grid.")
