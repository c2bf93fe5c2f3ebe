"""Do scores of pixels find the pixels they should? Area under the ROC, a null of circular shifts, and a correction for asking often."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from .errors import MismatchError, SpectrumError


@dataclass(frozen=True)
class ShiftTest:
    """Mean area under the ROC of ``n`` stars, 68 % bootstrap interval over these, and what shifted scores reach.

    ``p`` : share of all ``n_shifts`` + 1 circular positions, the true one included, with an area at least as large; so at least 1 / (``n_shifts`` + 1).
    """

    auc: float
    low: float
    high: float
    null_mean: float
    null_95: float
    p: float
    n_shifts: int
    n: int

    def to_dict(self) -> dict:
        """One flat table row."""
        return asdict(self)


def roc_auc(scores: Float[np.ndarray, "n n_pix"], positive: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, " n"]:
    """Area under the ROC of each star: the chance that a positive pixel has a higher score than another one; ties count half. 0.5 knows nothing.

    Raises
    ------
    SpectrumError
        Shapes differ, a score is NaN or infinite, or a star has no positive pixel or nothing else.
    """
    return shifted_auc(scores, positive)[:, 0]


def shifted_auc(scores: Float[np.ndarray, "n n_pix"], positive: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n n_pix"]:
    """``roc_auc`` with the scores moved by k pixels to the blue, for every k, what leaves at the blue end coming back at the red one.

    The area is linear in the ranks of the scores (Mann & Whitney 1947), so all shifts together are one correlation.

    Raises
    ------
    SpectrumError
        As ``roc_auc``.
    """
    from scipy.stats import rankdata
    if scores.shape != positive.shape or not np.isfinite(scores).all():
        raise SpectrumError(f"scores has shape {scores.shape} with {(~np.isfinite(scores)).sum()} NaN or infinite, positive {positive.shape}; expected one finite "
                            "score a pixel. Leave pixels without a score out of both.")
    n_pos, n_pix = positive.sum(1), scores.shape[1]
    if (n_pos == 0).any() or (n_pos == n_pix).any():
        raise SpectrumError(f"Star {int(np.argmax((n_pos == 0) | (n_pos == n_pix)))} has only one kind of pixel; an area needs positive ones and others.")
    ranks = rankdata(scores, axis=1)
    total = np.fft.irfft(np.fft.rfft(ranks, axis=1) * np.fft.rfft(positive, axis=1).conj(), n_pix, axis=1)
    return (total - (n_pos * (n_pos + 1) / 2)[:, None]) / (n_pos * (n_pix - n_pos))[:, None]


def shift_test(scores: Float[np.ndarray, "n n_pix"], positive: Bool[np.ndarray, "n n_pix"], wave: Float[np.ndarray, " n_pix"], seed: int = 0,
               n_boot: int = 1000) -> ShiftTest:
    """Is the mean area over stars larger than that of scores shifted in log wavelength, the same way in all stars?

    A shift keeps how lines cluster and how smooth the scores are, and destroys only that they are at the same place. All n_pix - 1 shifts are taken: together
    with the true position they form a group, which makes the test exact for scores to which all places are alike (Hemerik & Goeman 2018, TEST 27, 811). So
    scores as wide as 20 pixels rarely get a p below 20 / n_pix, however good, and a trend along the spectrum that scores and lines share counts as well.
    One-sided: scores that avoid lines have p near 1.

    Parameters
    ----------
    wave : Angstrom, in even steps of log wavelength, up to gaps; the shift is along this list of pixels.
    seed : of the bootstrap over stars (``numpy.random.default_rng``).

    Raises
    ------
    SpectrumError
        As ``roc_auc``.
    MismatchError
        The steps of ln(wave) are not even.
    """
    step = np.diff(np.log(wave))
    typical = np.median(step)
    if (step < 0.99 * typical).any() or (step > 1.01 * typical).mean() > 0.01:
        raise MismatchError(f"The steps of ln(wave) run from {step.min():.3g} to {step.max():.3g}, typically {typical:.3g}; a shift in log wavelength needs even "
                            "ones. Resample the scores.")
    areas = shifted_auc(scores, positive)
    every = areas.mean(0)
    p = float((every >= every[0] - 1e-12).mean())
    means = areas[np.random.default_rng(seed).integers(len(areas), size=(n_boot, len(areas))), 0].mean(1)
    low, high = np.quantile(means, (0.16, 0.84))
    return ShiftTest(float(every[0]), float(low), float(high), float(every[1:].mean()), float(np.quantile(every[1:], 0.95)), p, len(every) - 1, len(areas))


def holm(p: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """p-values corrected for ``m`` questions asked (Holm 1979, Scand. J. Statist. 6, 65): rejecting those below 0.05 errs in at most 5 % of such families.

    Raises
    ------
    SpectrumError
        A p-value outside 0 to 1, or NaN.
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise SpectrumError(f"The p-values run from {p.min():g} to {p.max():g}; expected 0 to 1.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return adjusted
