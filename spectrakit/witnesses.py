"""Labels by several ways, and what speaks against them: none of the ways knows when it is wrong, but they are not wrong alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from astropy.table import QTable, Table

from .continuum import normalize
from .library import LABELS
from .models.foundation import HEAD_LABELS, FoundationModel
from .models.physical import PhysicalFit
from .novelty import Pretrained
from .simulation import simulate
from .spectra import LABEL_UNITS, SpectraSet
from .surveys import get_survey

CHI2 = 2.0      # reduced, against noise and stated model error: residuals 1.4 times as large as both together explain
APART = 4.0     # sigma between two witnesses, in the worst of four labels: sigma is a mean over all S/N, and there are a dozen comparisons
PHYSICAL = "physical"


def measure(spectra: SpectraSet, models: Mapping[str, FoundationModel]) -> tuple[Table, dict[str, np.ndarray]]:
    """Labels of normalised spectra by ``models`` and by the physical fit, and which of the signs of a wrong label each spectrum has.

    Returns
    -------
    Table of n rows: ``feh_small``, ``feh_small_sigma`` ... for each label and witness; ``snr``, median of flux / error, a pixel; ``distance`` of the first
    model's embedding from the pretraining spectra (``novelty``); ``chi2``, reduced, of the physical fit; ``apart``, sigma, the largest difference of two
    witnesses in teff, logg, feh and alpha_fe.

    Reason -> (n,) boolean, True where it holds: S/N below that of all pretraining spectra; farther from them than 99 % of their like; ``chi2`` above 2;
    a label at the edge of the library; ``apart`` above 4.

    Raises
    ------
    MismatchError
        Spectra that a model or the library was not made for: not normalised, in air, too narrow.
    SpectrumError
        Spectra of what is no star (``labels["object_class"]``).
    """
    physical = PhysicalFit().fit_labels(spectra)
    embedding = {name: model.embed(spectra) for name, model in models.items()}
    witnesses = {name: {label: model.from_embedding(embedding[name], label) for label in HEAD_LABELS} for name, model in models.items()}
    witnesses[PHYSICAL] = {label: (np.array(physical[label]), np.array(physical[f"{label}_error"])) for label in LABELS}
    table = QTable()
    for name, found in witnesses.items():
        for label, (value, sigma) in found.items():
            table[f"{label}_{name}"], table[f"{label}_{name}_sigma"] = value * LABEL_UNITS[label], sigma * LABEL_UNITS[label]
    differences = [np.abs(a[label][0] - b[label][0]) / np.hypot(a[label][1], b[label][1]) for a, b in combinations(witnesses.values(), 2) for label in HEAD_LABELS]
    first = next(iter(models))
    known, least = Pretrained.of(models[first]), get_survey(models[first].card.survey).snr[0]
    table["snr"] = spectra.snr
    table["distance"], table["chi2"], table["apart"] = known.distance(embedding[first]), np.array(physical["chi2"]), np.max(differences, axis=0)
    return Table(table), {f"S/N below {least:g}": table["snr"] < least, "far from pretraining": table["distance"] > known.limit,
                          "library does not fit": table["chi2"] > CHI2, "at the edge of the library": np.array(physical["at_edge"]),
                          "witnesses disagree": table["apart"] > APART}


def library_spectra(labels: np.ndarray, like: SpectraSet) -> SpectraSet:
    """The library at these labels (n, 5) without noise or errors, as sharp as the spectra ``like``, normalised as they are: to lay over them."""
    fwhm = tuple(zip(like.wave.tolist(), (like.wave / like.resolution).tolist(), strict=True))
    seen = simulate(replace(get_survey("lamost_lrs"), fwhm=fwhm, snr=(1e5, 1e5)), len(labels), seed=0, labels=labels, strength=0.0)
    return normalize(seen, like.normalization, like.wave)
