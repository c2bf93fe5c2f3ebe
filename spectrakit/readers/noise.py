"""Errors for spectra that come without: a stated estimate from the spectrum itself, flagged as such by the readers."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view

WINDOW = 200  # pixels: wide against a line, narrow against the change of sensitivity
QUIET = 0.1  # this fraction of the windows, the calmest, sets a spectrum's noise: there the lines are weakest


def estimate_ivar(flux: Float[np.ndarray, "n n_pix"], mask: Bool[np.ndarray, "n n_pix"], *, correlation: float,
                  floor: float) -> Float[np.ndarray, "n n_pix"]:
    """Inverse variance (n, n_pix) estimated from the pixel-to-pixel scatter of each spectrum; 0 under the mask.

    In windows of 200 pixels: level = median flux; scatter = 1.4826 MAD of the third difference / sqrt(20), which a smooth spectrum does
    not contribute to and which white noise of size sigma makes sigma. Then sigma is the largest of

    - ``correlation`` x the relative scatter of the quietest tenth of the windows x the local level: one relative error a spectrum, so that
      line-rich regions do not dominate;
    - the scatter of the window itself: where noise, not lines, dominates and the flux is low;
    - ``floor`` x the local level.

    Parameters
    ----------
    flux : (n, n_pix), positive where unmasked; under the mask anything.
    correlation : by how much noise that was smoothed (rebinned, brought to one resolution) exceeds what neighbouring pixels show.
    floor : smallest relative error, standing for calibration errors that no difference of pixels can see.

    Notes
    -----
    Honest limits. Weak lines count as noise: in line-rich, cool stars the result is an upper limit. In noise-dominated windows away from the
    quiet ones it is a lower limit, by at most the factor ``correlation``. Errors are correlated over about a resolution element, so chi-square
    over pixels is not chi-square distributed. Good for weights and for ranking spectra, not for absolute uncertainties.
    """
    clean = np.where(mask, np.nan, flux)
    level = _running(clean)
    scatter = 1.4826 * _running(np.abs(np.diff(clean, n=3, axis=1, prepend=np.nan, append=np.full((len(clean), 2), np.nan)))) / np.sqrt(20)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a spectrum without a usable window stays NaN, and gets ivar 0
        relative = correlation * np.nanquantile(scatter / level, QUIET, axis=1, keepdims=True)
    sigma = np.fmax(np.fmax(relative, floor) * level, scatter)
    sigma = np.array([_to_pixels(row, flux.shape[1]) for row in sigma])
    return np.where(mask | ~np.isfinite(sigma), 0, sigma**-2.0)


def _running(values):
    """Median in half-overlapping windows, (n, n_windows); NaN where less than half of a window is usable."""
    width = min(WINDOW, values.shape[1])
    windows = sliding_window_view(values, width, axis=1)[:, :: max(1, width // 2)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        median = np.nanmedian(windows, axis=-1)
    return np.where(np.isfinite(windows).mean(-1) >= 0.5, median, np.nan)


def _to_pixels(row, n_pix):
    width = min(WINDOW, n_pix)
    centre = (width - 1) / 2 + np.arange(row.size) * max(1, width // 2)
    good = np.isfinite(row)
    return np.interp(np.arange(n_pix), centre[good], row[good]) if good.any() else np.full(n_pix, np.nan)
