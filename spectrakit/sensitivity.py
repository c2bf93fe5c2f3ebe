"""Where a label really stands in a spectrum: the library's derivatives, through a survey's instrument and the normalisation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from .continuum import normalize
from .elements import Elements
from .errors import MismatchError, SpectrumError
from .library import LABELS, load_library
from .line_spread import spread
from .models.chi_square import STEP, UNIT
from .spectra import SpectraSet, label_table, to_vacuum
from .surveys import LRS_GRID, Survey, get_survey


@torch.no_grad()
def clean_spectra(survey: str | Survey, labels: Float[np.ndarray, "n 5"], recipe: str = "robust",
                  grid: Float[np.ndarray, " n_pix"] = LRS_GRID) -> Float[np.ndarray, "n n_pix"]:
    """Normalised flux of library stars (teff K, logg, feh, alpha_fe, c_fe) as the survey's instrument would deliver it without noise and systematics.

    Raises
    ------
    MismatchError
        Unknown survey, or a grid that it does not cover.
    """
    library = load_library(get_survey(survey).library)
    return _through(survey, library.flux_unchecked(torch.as_tensor(labels)), labels, recipe, grid)


def _through(survey, flux, labels, recipe, grid):
    """Flux over continuum on the library's pixels, (n, n_pix), as the instrument delivers it, normalised."""
    instrument = get_survey(survey)
    library, numbers, own = load_library(instrument.library), torch.as_tensor(labels), instrument.pixels
    wave, one = to_vacuum(own, instrument.medium), torch.ones(len(labels))
    flux = spread(flux, library, wave, instrument.resolution(own), one, 0 * one) * library.continuum_at(wave, numbers)
    flux = (flux / flux.mean(1, keepdim=True)).numpy()
    mask = np.broadcast_to(instrument.unusable(), flux.shape).copy()
    stars = SpectraSet(own, flux, np.full_like(flux, 1e8), mask, label_table(teff=labels[:, 0]), instrument.name, instrument.medium, instrument.frame,
                       instrument.resolution(own), "none", "simulated", {"origin": "library", "history": []})
    return normalize(stars, recipe, grid).flux


def jacobian(survey: str | Survey, labels: Float[np.ndarray, "n 5"], recipe: str = "robust",
             grid: Float[np.ndarray, " n_pix"] = LRS_GRID) -> Float[np.ndarray, "n 5 n_pix"]:
    """d flux / d label (1 / K, 1 / dex) of ``clean_spectra``: central differences of 20 K and 0.02 dex, the normalisation included.

    Raises
    ------
    LabelError
        Labels outside the library's hull.
    MismatchError
        As ``clean_spectra``.
    """
    load_library(get_survey(survey).library).check(torch.as_tensor(labels))
    step = np.array(STEP[:5]) * np.array(UNIT[:5])
    both = np.concatenate([labels[:, None] + np.diag(step), labels[:, None] - np.diag(step)], 1).reshape(-1, 5)
    plus, minus = clean_spectra(survey, both, recipe, grid).astype("f8").reshape(len(labels), 2, 5, -1).swapaxes(0, 1)
    return (plus - minus) / (2 * step[:, None])


def element_jacobian(survey: str | Survey, elements: Elements, recipe: str = "robust",
                     grid: Float[np.ndarray, " n_pix"] = LRS_GRID) -> Float[np.ndarray, "m n_elements n_pix"]:
    """d flux / d [X/H] (1 / dex) of the reference stars, one element at a time, as ``jacobian``; the photosphere stays as it is.

    Raises
    ------
    MismatchError
        As ``clean_spectra``; or the elements are of another range than the survey's library.
    """
    library = load_library(get_survey(survey).library)
    if elements.wave.shape != library.wave.shape or not torch.equal(elements.wave, library.wave):
        raise MismatchError(f"The elements were computed from {elements.wave[0]:.0f} to {elements.wave[-1]:.0f} A, the survey's library reaches from "
                            f"{library.wave[0]:.0f} to {library.wave[-1]:.0f} A. Load those of the library {get_survey(survey).library!r}.")
    step, columns = 0.1, []
    for response in elements.response.unbind(1):
        plus, minus = (_through(survey, elements.flux + sign * step * response, elements.labels, recipe, grid).astype("f8") for sign in (1, -1))
        columns.append((plus - minus) / (2 * step))
    return np.stack(columns, 1)


def marginal(jacobian: Float[np.ndarray, "n k n_pix"], ivar: Float[np.ndarray, "n n_pix"]) -> Float[np.ndarray, "n k n_pix"]:
    """What each label alone does to the spectrum, in sigma per unit of the label: the part of ``d flux / d label * sqrt(ivar)`` that no combination of the
    other labels can imitate.

    With F the Fisher matrix of the labels, rows of F^-1 J sqrt(ivar) / diag(F^-1). The squares of a row sum to 1 / (F^-1)_ll, the inverse of the
    Cramer-Rao variance of that label when all are unknown.

    Raises
    ------
    SpectrumError
        Two labels do the same to a spectrum, or one does nothing: there is no such part.
    """
    white = jacobian * np.sqrt(ivar)[:, None]
    size = np.linalg.norm(white, axis=2, keepdims=True)
    unit = white / np.where(size > 0, size, 1)
    fisher = unit @ unit.swapaxes(1, 2)
    worst = np.linalg.eigvalsh(fisher)[:, 0]
    if (worst < 1e-10).any():
        raise SpectrumError(f"In {(worst < 1e-10).sum()} of {len(worst)} spectra (first: {worst.argmin()}) labels cannot be told apart: one has no effect, or "
                            "that of others. Leave that label out.")
    inverse = np.linalg.inv(fisher)
    return size * (inverse @ unit) / np.diagonal(inverse, axis1=1, axis2=2)[..., None]


def sensitivity(stars: SpectraSet) -> Float[np.ndarray, "n 5 n_pix"]:
    """``marginal`` of each star at its labels (teff, logg, feh, alpha_fe, c_fe), in its survey, normalisation and noise, signed; 0 where masked.

    Raises
    ------
    MismatchError
        Spectra that are not normalised, on a grid or of a survey that the library does not cover.
    LabelError
        A label is missing, or outside the library's hull.
    """
    if stars.normalization == "none":
        raise MismatchError("These spectra are not continuum normalised (normalization='none'); normalise them first: what a label does depends on it.")
    labels = np.stack([stars.label(name) for name in LABELS], 1)
    return marginal(jacobian(stars.survey, labels, stars.normalization, stars.wave), np.where(stars.mask, 0, stars.ivar))


def positives(sensitivity: Float[np.ndarray, "*n n_pix"], share: float = 0.1) -> Bool[np.ndarray, "*n n_pix"]:
    """The ``share`` of pixels with the largest absolute sensitivity, in each row.

    Raises
    ------
    SpectrumError
        The sensitivity is NaN or infinite somewhere: leave these pixels out.
    """
    if not np.isfinite(sensitivity).all():
        raise SpectrumError(f"{(~np.isfinite(sensitivity)).sum()} of {sensitivity.size} sensitivities are NaN or infinite; leave these pixels out.")
    count = round(share * sensitivity.shape[-1])
    order = np.argsort(-np.abs(sensitivity), axis=-1, kind="stable")
    chosen = np.zeros(sensitivity.shape, bool)
    np.put_along_axis(chosen, order[..., :count], True, axis=-1)
    return chosen
