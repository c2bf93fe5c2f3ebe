"""How well can the labels of a star be known from its spectrum at all? Fisher information of the library seen through an instrument.

Near the truth the spectrum is linear in the labels. Then the errors of the best unbiased estimate are those of a least-squares fit with all that is unknown left
free, and no network does better (Cramer & Rao; for spectra: Ting et al. 2017, ApJ 843, 32, equation 6).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from . import population
from .errors import MismatchError
from .library import LABELS, Library, load_library
from .line_spread import spread
from .models.chi_square import UNIT, Instrument, Spectra, solve
from .spectra import SpectraSet
from .surveys import get_survey
from .threads import one_thread

PARAMETERS = (*LABELS, "velocity")               # K, dex, km/s: the order of rows and columns here
BLOCK = 32                                       # stars at a time: memory does not grow with n


def fisher(stars: SpectraSet, *, degree: int = 8, lines: float | int = 0.0, library: Library | None = None) -> Float[np.ndarray, "n 6 6"]:
    """Fisher information of each spectrum about teff, logg, feh, alpha_fe, c_fe and velocity, in units of K, dex, km/s to the power of -2.

    Evaluated at the labels of ``stars``, with its ``ivar`` as the noise. The continuum, a polynomial of ``degree`` times the library's spectrum, is free and
    eliminated, so that raw spectra and any normalisation will do. Prefer raw ones: resampling to another grid correlates the noise, which ``ivar`` does not say.

    Parameters
    ----------
    stars : with all five labels, true ones if the limit is to be one.
    lines : relative error of the library's opacity, of each 2 A by itself, as ``Systematics.lines`` declares it: further noise, with the covariance that it has.
        0: the library is exact, noise alone.
    library : the embedded optical one when None.

    Raises
    ------
    LabelError
        A label is missing, or a star lies outside the library.
    MismatchError
        Spectra that reach beyond the library, or are sharper.
    """
    library = load_library() if library is None else library
    labels = torch.as_tensor(np.stack([stars.label(name) for name in LABELS], 1))
    library.check(labels)
    # any normalisation is as good as another: the polynomial takes it up
    instrument = Instrument.of(replace(stars, normalization="any"), library, degree, (0.0,), spreads=(np.inf, np.inf), lines=0.0, floor=0.0)
    x = torch.cat([labels, torch.zeros(len(labels), 1)], 1) / labels.new_tensor(UNIT)
    use = ~stars.mask & (np.where(stars.mask, 0, stars.ivar) > 0)
    result = np.zeros((len(stars), len(PARAMETERS), len(PARAMETERS)))
    with torch.no_grad(), one_thread():
        for start in range(0, len(stars), BLOCK):
            rows = slice(start, start + BLOCK)
            spectra = Spectra.of(stars.flux[rows].astype("f8"), stars.ivar[rows].astype("f8"), use[rows])
            result[rows] = _block(instrument, spectra, x[rows], float(lines)).numpy()
    return result / np.outer(UNIT, UNIT)


def limit(information: Float[np.ndarray, "n 6 6"], prior: Float[np.ndarray, "5 5"] | None = None) -> Float[np.ndarray, "n 6"]:
    """Least standard deviation of each parameter, all the others unknown: the root of the diagonal of the inverse.

    Without ``prior``: of any *unbiased* estimate (Cramer-Rao). With it: the root mean square error, over stars drawn from a Gaussian population with this covariance
    of the five labels, below which *no* estimate stays, biased ones included (van Trees; Gill & Levit 1995, Bernoulli 1, 59). For one star it is the width of the
    posterior, not a bound: an estimate that shrinks towards the population's mean beats it near the mean and pays with a bias far from it (``shrinkage``).

    Raises
    ------
    MismatchError
        The information is not positive definite: a spectrum tells nothing about some parameter.
    """
    covariance = _invert(information if prior is None else information + _padded(prior))
    return np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))


def shrinkage(information: Float[np.ndarray, "n 6 6"], prior: Float[np.ndarray, "5 5"], name: str) -> Float[np.ndarray, " n"]:
    """Slope of the best estimate against the truth of label ``name`` where all else follows the population: 1 is unbiased, 0 always answers the population's mean.

    The estimate with a Gaussian prior is mean + K (truth - mean), K = (information + prior^-1)^-1 information; on average over stars of one value of the label,
    truth - mean is the regression of all labels on this one.
    """
    i = LABELS.index(name)
    gain = _invert(information + _padded(prior)) @ information
    along = np.append(prior[:, i] / prior[i, i], 0.0)
    return gain[:, i] @ along


def population_prior(survey: str, n: int = 20_000, seed: int = 0) -> Float[np.ndarray, "5 5"]:
    """Covariance of the five labels over the survey's population, K and dex: a prior for ``limit`` that is as wide as the stars are spread."""
    library = load_library(get_survey(survey).library)
    return np.cov(population.draw(get_survey(survey).population, n, np.random.default_rng(seed), library), rowvar=False)


def _padded(prior) -> np.ndarray:
    """Inverse of the prior's covariance; nothing is known about the velocity."""
    return np.pad(_invert(prior[None])[0], ((0, 1), (0, 1)))


def _invert(matrix) -> np.ndarray:
    """Scaled before it is inverted: K^-2 and dex^-2 differ by eight orders of magnitude."""
    diagonal = np.diagonal(matrix, axis1=1, axis2=2)
    if not (np.isfinite(matrix).all() and (diagonal > 0).all()):
        raise MismatchError("The information about some parameter is zero or not finite: the spectrum does not depend on it. Leave such stars out.")
    scale = 1 / np.sqrt(diagonal)
    scaled = matrix * scale[:, :, None] * scale[:, None]
    if (np.linalg.eigvalsh(scaled)[:, 0] < 1e-12).any():
        raise MismatchError("The information is not positive definite: two parameters cannot be told apart. Add a prior, or leave such stars out.")
    return np.linalg.inv(scaled) * scale[:, :, None] * scale[:, None]


def _block(instrument: Instrument, spectra: Spectra, x: Float[Tensor, "n 6"], lines: float) -> Float[Tensor, "n 6 6"]:
    model = instrument.model(x).double()
    columns, weight = model[:, None] * instrument.basis, spectra.weight(0.0)
    weighted = columns * weight[:, None]
    coefficient = solve(weighted @ columns.mT, weighted @ spectra.flux[..., None])[..., 0]
    continuum = coefficient @ instrument.basis
    design = torch.cat([instrument.jacobian(x) * continuum[:, None], columns], 1)
    opacity = instrument.library.opacity((x * x.new_tensor(UNIT))[:, :5]) if lines else [None] * len(x)
    parts = []
    for i, use in enumerate(spectra.use):
        root = torch.sqrt(spectra.variance[i, use])
        white = design[i][:, use] / root
        information = white @ white.T
        if lines:                                                                 # noise I + W^T W; its inverse by Woodbury's identity
            wrong = (lines * _line_errors(instrument, opacity[i]) * continuum[i])[:, use] / root
            known = wrong @ white.T
            root = torch.linalg.cholesky(torch.eye(len(wrong), dtype=wrong.dtype) + wrong @ wrong.T)
            information = information - known.T @ torch.cholesky_solve(known, root)
        parts.append(_eliminated(information))
    return torch.stack(parts)


def _eliminated(information: Float[Tensor, "m m"]) -> Float[Tensor, "6 6"]:
    """Of the first six parameters, the others being free: Schur's complement."""
    k = len(PARAMETERS)
    return information[:k, :k] - information[:k, k:] @ solve(information[k:, k:], information[k:, :k])


def _line_errors(instrument: Instrument, opacity: Float[Tensor, " n_lib"]) -> Float[Tensor, "knots n_pix"]:
    """Change of flux over continuum for a relative error of one in the opacity around each knot: the knots of ``simulation``, straight lines between them."""
    library = instrument.library
    n_pix = library.wave.numel()
    knots = round(float(torch.log(library.wave[-1] / library.wave[0])) * library.resolution / 2)
    hats = torch.nn.functional.interpolate(torch.eye(knots)[:, None], n_pix, mode="linear", align_corners=True)[:, 0]
    change = -(hats * opacity * torch.exp(-opacity)).float()[:, instrument.part]
    cut = replace(library, wave=library.wave[instrument.part])
    return spread(change, cut, instrument.wave, instrument.resolution, torch.ones(knots), torch.zeros(knots)).double()
