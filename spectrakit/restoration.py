"""What stands in the hidden parts of a spectrum? A masked transformer's answer, and those of two rivals that know less.

The rivals: a straight line, which knows no star, and principal components, which know that lines go together, linearly. All three get the same
visible pixels; a network trained as published (``TransformerConfig.leak``) is told the mean and standard deviation of the whole spectrum besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .errors import MismatchError, SpectrumError
from .models.spectrum_transformer import SpectrumTransformer

BATCH = 256


def hidden_pixels(encoder: SpectrumTransformer, hidden: Bool[Tensor, "n n_tok"]) -> Bool[np.ndarray, "n n_pix"]:
    """True for pixels that hidden windows alone show: windows overlap, and what a visible neighbour shows is not hidden."""
    _check_tokens(encoder, hidden)
    return (_cover(encoder, hidden[:, 1:]) > 0) & ~encoder.shown(hidden).cpu().numpy()


@torch.no_grad()
def restore(encoder: SpectrumTransformer, flux: Float[np.ndarray, "n n_pix"], hidden: Bool[Tensor, "n n_tok"]) -> Float[np.ndarray, "n n_pix"]:
    """The spectra with their hidden pixels (``hidden_pixels``) as the network restores them, in the unit of ``flux``; the others as given.

    A pixel in two hidden windows is the mean of both answers. Standardised and put back with ``encoder.statistics``.

    Parameters
    ----------
    hidden : tokens that are set to zero, the statistics token first, as ``encoder.draw_chunks`` makes them.

    Raises
    ------
    MismatchError
        ``hidden`` is not (n, n_tok).
    SpectrumError
        A spectrum with no visible pixel; what ``encoder.tokenize`` refuses.
    """
    gone = hidden_pixels(encoder, hidden)
    _check_visible(flux, gone)
    c, device, out = encoder.config, encoder.embedding.weight.device, np.array(flux, "f8")
    for start in range(0, len(flux), BATCH):
        rows = slice(start, start + BATCH)
        x, hide = torch.as_tensor(out[rows], dtype=torch.float32, device=device), hidden[rows].to(device)
        std, mean = encoder.statistics(x, hide)
        windows = encoder.restore(encoder.encode(encoder.tokenize(x, hide), hide))[:, 1:, c.n_statistics:].float()
        total = torch.zeros_like(x).scatter_add_(1, encoder.pixels.flatten().expand(len(x), -1), windows.flatten(1))
        answer = (total * std).cpu().numpy() / np.maximum(_cover(encoder, hide[:, 1:]), 1) + mean.cpu().numpy()
        out[rows] = np.where(gone[rows], answer, out[rows])
    return out


def interpolate(flux: Float[np.ndarray, "n n_pix"], gone: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n n_pix"]:
    """The spectra with straight lines over the pixels that are ``gone``, from the last visible pixel to the next."""
    _check_visible(flux, gone)
    pixel, filled = np.arange(flux.shape[1]), np.array(flux, "f8")
    for row in np.flatnonzero(gone.any(1)):
        filled[row, gone[row]] = np.interp(pixel[gone[row]], pixel[~gone[row]], flux[row, ~gone[row]])
    return filled


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Probabilistic principal components: a spectrum is mean + W z + noise, z standard normal, the noise alike in all pixels.

    Hidden pixels are expected to be mean + W z with the z most probable given the visible ones: least squares with the training set's prior, so that
    few visible pixels do not drive many components. Source: Tipping & Bishop 1999 (J. R. Stat. Soc. B 61, 611), the maximum-likelihood W and noise from
    scikit-learn's ``PCA``.

    mean, components, variance : of the training set, the variance that of each component, largest first.
    noise : variance per pixel that the components leave.
    """

    mean: Float[np.ndarray, " n_pix"]
    components: Float[np.ndarray, "k n_pix"]
    variance: Float[np.ndarray, " k"]
    noise: float

    @classmethod
    def fit(cls, flux: Float[np.ndarray, "n n_pix"], n_components: int) -> PrincipalComponents:
        """From training spectra without gaps, more of them than components."""
        from sklearn.decomposition import PCA
        if not 0 < n_components < min(flux.shape):
            raise SpectrumError(f"{n_components} components from {flux.shape[0]} spectra of {flux.shape[1]} pixels; expected at least 1 and fewer than both.")
        found = PCA(n_components, svd_solver="covariance_eigh").fit(np.asarray(flux, "f8"))
        return cls(found.mean_, found.components_, found.explained_variance_, float(found.noise_variance_))

    def first(self, k: int) -> PrincipalComponents:
        """The first ``k`` components alone; the variance of the others goes to the noise."""
        n_pix, fitted = self.mean.size, len(self.variance)
        if not 0 < k <= fitted:
            raise SpectrumError(f"{k} components asked for; {fitted} were fitted.")
        noise = (self.variance[k:].sum() + self.noise * (n_pix - fitted)) / (n_pix - k)
        return replace(self, components=self.components[:k], variance=self.variance[:k], noise=float(noise))

    def restore(self, flux: Float[np.ndarray, "n n_pix"], gone: Bool[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n n_pix"]:
        """The spectra with the pixels that are ``gone`` as expected from all others, which stay as given."""
        _check_visible(flux, gone)
        loadings = (self.components * np.sqrt(np.maximum(self.variance - self.noise, 0))[:, None]).T          # (n_pix, k)
        filled = np.array(flux, "f8")
        for row in np.flatnonzero(gone.any(1)):
            seen = loadings[~gone[row]]
            normal = seen.T @ seen + self.noise * np.eye(seen.shape[1])
            z = np.linalg.solve(normal, seen.T @ (filled[row] - self.mean)[~gone[row]])
            filled[row, gone[row]] = (self.mean + loadings @ z)[gone[row]]
        return filled

    def best(self, flux: Float[np.ndarray, "n n_pix"], gone: Bool[np.ndarray, "n n_pix"], candidates: tuple[int, ...]) -> PrincipalComponents:
        """The number of components that restores these validation spectra with the smallest rms error; they must be other stars than are tested on."""
        options = [self.first(k) for k in candidates]
        return min(options, key=lambda option: np.square(option.restore(flux, gone) - flux)[gone].mean())


def compare(errors: Mapping[str, Float[np.ndarray, "n n_pix"]], counted: Bool[np.ndarray, "n n_pix"], star: np.ndarray, *, n_boot: int = 400, level: float = 0.68,
            seed: int = 0):
    """Rms and median absolute error of each method over the ``counted`` pixels, and how much smaller or larger those of the *first* method are.

    Parameters
    ----------
    errors : restored minus true flux, or that over sigma, by method.
    star : (n,) whose spectrum it is. The percentile-bootstrap intervals (``level``) are over stars: pixels of a star share its errors. All methods
        share the resamples, so what a star has of difficulty cancels in a difference.

    Returns
    -------
    pandas table, a row a method: ``rms``, ``median`` and ``rms_less``, ``median_less`` (the first method's less this one's; negative: the first is
    better), each with ``_low`` and ``_high``; ``n`` spectra, ``n_stars``.

    Raises
    ------
    SpectrumError
        Fewer than three stars, or a counted error that is not finite.
    """
    import pandas as pd
    names, group = np.unique(np.asarray(star), return_inverse=True)
    if len(names) < 3:
        raise SpectrumError(f"{len(names)} stars: an interval over stars needs at least 3.")
    if not all(np.isfinite(error[counted]).all() for error in errors.values()):
        raise SpectrumError("A counted error is NaN or infinite; count usable pixels alone: gone & ~mask.")
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_boot)
    weight = np.concatenate([np.ones((1, len(group)), int), draws[:, group]])                                  # row 0: every star once
    figures = {name: np.stack([_rms(error, counted, weight), _median(error, counted, weight)]) for name, error in errors.items()}
    first, rows = next(iter(figures.values())), []
    for name, found in figures.items():
        row = {"method": name}
        for kind, values in zip(("rms", "median", "rms_less", "median_less"), (*found, *(first - found)), strict=True):
            low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
            row |= {kind: values[0], f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row | {"n": len(group), "n_stars": len(names)})
    return pd.DataFrame(rows)


def _rms(error, counted, weight):
    """(n_draws,) with each spectrum counted ``weight`` (n_draws, n) times."""
    return np.sqrt(weight @ np.square(np.where(counted, error, 0.0)).sum(1) / (weight @ counted.sum(1)))


def _median(error, counted, weight):
    """(n_draws,) of the absolute errors: the smallest that half of the weight does not exceed."""
    size, row = np.abs(error[counted]), np.nonzero(counted)[0]
    order = np.argsort(size)
    size, row = size[order], row[order]
    return np.array([size[np.searchsorted(total := np.cumsum(draw[row]), total[-1] / 2)] for draw in weight])


def _cover(encoder, windows: Tensor) -> np.ndarray:
    """(n, n_pix): how many of the chosen windows (n, n_windows) show each pixel."""
    pixels = encoder.pixels.to(windows.device).flatten().expand(len(windows), -1)
    count = torch.zeros(len(windows), encoder.config.n_pix, device=windows.device)
    return count.scatter_add_(1, pixels, windows.float()[..., None].expand(-1, -1, encoder.config.window).flatten(1)).cpu().numpy()


def _check_visible(flux, gone):
    if flux.shape != gone.shape:
        raise MismatchError(f"flux is {flux.shape}, the hidden pixels are {gone.shape}; expected the same (n, n_pix).")
    if gone.all(1).any():
        raise SpectrumError(f"{gone.all(1).sum()} spectra have no visible pixel (first: {gone.all(1).argmax()}); nothing can be restored from nothing.")


def _check_tokens(encoder, hidden):
    if hidden.ndim != 2 or hidden.shape[1] != encoder.config.n_tok:
        raise MismatchError(f"hidden is {tuple(hidden.shape)}; expected (n, {encoder.config.n_tok}): one flag a token, the statistics token first.")
