"""What one survey sees against what the other one predicts: residuals in sigma, the dust between them, and stars that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from .errors import MismatchError
from .gaia_xp import AT_550, extinguish
from .models.aligned import AlignedModel
from .models.alignment import OTHER
from .pairs import Pairs
from .spectra import SpectraSet


def residuals(observed: SpectraSet, predicted: SpectraSet) -> Float[np.ndarray, "n n_pix"]:
    """(observed - predicted) / sigma, with the variances of both added; NaN where the observation is masked.

    Raises
    ------
    MismatchError
        Other numbers of stars, other pixels, or another normalisation.
    """
    if observed.flux.shape != predicted.flux.shape or not np.allclose(observed.wave, predicted.wave, rtol=1e-9):
        raise MismatchError(f"Observed are {observed.flux.shape}, predicted {predicted.flux.shape} fluxes, or the pixels differ; residuals need the same stars "
                            "on the same grid: sk.normalize(observed).")
    if observed.normalization != predicted.normalization:
        raise MismatchError(f"Observed is normalised by {observed.normalization!r}, predicted by {predicted.normalization!r}; "
                            f"use sk.normalize(observed, {predicted.normalization!r}).")
    bad = observed.mask | (observed.ivar <= 0)
    variance = 1 / np.where(bad, np.nan, observed.ivar) + 1 / predicted.ivar
    return (np.where(bad, np.nan, observed.flux) - predicted.flux) / np.sqrt(variance)


def remove_dust(observed: SpectraSet, predicted: SpectraSet) -> tuple[SpectraSet, Float[np.ndarray, " n"]]:
    """Gaia XP spectra brought to the reddening of their predictions, and E(B-V) (mag) they had more than those: one number a star, R_V = 3.1.

    Normalised lines carry no dust, so a prediction from them has the mean reddening of the training stars. The number is the least-squares fit of
    ln(observed / predicted) by the extinction curve of Gordon et al. 2023, weighted by flux (the prediction's relative errors are alike).
    """
    step = 0.1
    curve = -np.log(extinguish(observed.wave, np.array([step]), np.array([3.1]))[0]) / step                 # of optical depth per mag
    curve = curve - curve[AT_550]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(observed.flux / predicted.flux)
    use = ~observed.mask & np.isfinite(ratio) & (predicted.flux > 0.05)
    weight = np.where(use, predicted.flux, 0.0)
    ebv = -(weight * np.where(use, ratio, 0.0)) @ curve / (weight @ curve**2)
    factor = np.exp(ebv[:, None] * curve)
    history = [*observed.provenance.get("history", []), "dust brought to that of the prediction"]
    return replace(observed, flux=observed.flux * factor, ivar=observed.ivar / factor**2, provenance={**observed.provenance, "history": history}), ebv


def translation_errors(model: AlignedModel, pairs: Pairs, to: str = "xp", dust: bool = True) -> Float[np.ndarray, "n n_pix"]:
    """Observed minus predicted flux of survey ``to`` (``"xp"`` or ``"lrs"``), masked pixels 0; with ``dust`` the XP spectra's own reddening is taken out first."""
    if to not in OTHER:
        raise MismatchError(f"to={to!r}; expected 'xp' or 'lrs'.")
    observed, predicted = getattr(pairs, to), model.translate(getattr(pairs, OTHER[to]))
    if dust and to == "xp":
        observed, _ = remove_dust(observed, predicted)
    return np.where(observed.mask, 0.0, observed.flux - predicted.flux)


def anomaly(model: AlignedModel, pairs: Pairs, reference: Pairs, to: str = "xp", dust: bool = True) -> Float[np.ndarray, " n"]:
    """How badly the two spectra of a star fit each other: squared Mahalanobis distance of its translation error, about 1 a pixel for ordinary stars.

    Mean and covariance of the errors are those of ``reference``, ordinary stars of the same quality that are not among ``pairs`` (shrunk after
    Ledoit & Wolf 2004): a binary is told from a bad prediction only by comparison. Larger is stranger; what is strange is for the user to say, by
    the scores of other ordinary stars.
    """
    from sklearn.covariance import LedoitWolf
    ordinary = translation_errors(model, reference, to, dust)
    scale = ordinary.std(0).clip(1e-6)
    return LedoitWolf().fit(ordinary / scale).mahalanobis(translation_errors(model, pairs, to, dust) / scale) / ordinary.shape[1]
