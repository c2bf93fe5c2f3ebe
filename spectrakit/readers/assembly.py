"""From a survey's arrays to a SpectraSet: masks counted by their reason, labels with unit and origin, nothing stellar for what is no star."""

from __future__ import annotations

import numpy as np
from astropy.table import Column, Table

from ..objects import STARS
from ..spectra import LABEL_UNITS, SpectraSet
from .container import Source

STELLAR = (*LABEL_UNITS, "m_h", "alpha_m")
CGS = "1e-17 erg / (s cm2 Angstrom)"


def assemble(source: Source, wave: np.ndarray, flux: np.ndarray, ivar: np.ndarray, bad: dict[str, np.ndarray], labels: dict[str, tuple], *,
             survey: str, frame: str, resolution: np.ndarray, origin: str, flux_unit: str, medium: str = "vacuum", normalization: str = "none",
             label_scale: str | None = None, notes: tuple[str, ...] = ()) -> SpectraSet:
    """One SpectraSet of what a survey's file holds.

    Parameters
    ----------
    bad : per reason a (n, n_pix) array, True = unusable. Flux or ivar that is not finite and ivar <= 0 are unusable besides. How many pixels each
        reason took is kept in ``provenance["masked"]``.
    labels : name -> (values, unit or None for text and identifiers, where the value comes from). Needs ``object_class``; rows that are neither
        ``"star"`` nor empty lose their stellar labels: a galaxy has no ``logg``.
    origin : survey, product and the page of its data model.
    flux_unit : of ``flux``, per Angstrom; kept in ``provenance["units"]``.
    """
    flux, ivar = np.asarray(flux, "f8"), np.asarray(ivar, "f8")
    reasons = {**bad, "flux or ivar is not finite": ~(np.isfinite(flux) & np.isfinite(ivar)), "ivar <= 0": ivar <= 0}
    mask = np.zeros(flux.shape, bool)
    for reason in reasons.values():
        mask |= reason
    counts = {name: int(reason.sum()) for name, reason in reasons.items() if reason.any()}
    provenance = {"origin": origin, "file": source.path.name, "sha256": source.sha256, "label_scale": label_scale, "masked": counts,
                  "units": {"wave": "Angstrom", "flux": flux_unit, "ivar": f"({flux_unit})^-2"}, "history": list(notes)}
    return SpectraSet(wave=np.asarray(wave, "f8"), flux=np.where(mask, 0, flux), ivar=np.where(mask, 0, ivar), mask=mask, labels=_labels(labels),
                      survey=survey, medium=medium, frame=frame, resolution=np.asarray(resolution, "f8"), normalization=normalization,
                      noise="measured", provenance=provenance)


def flags(mask: np.ndarray, bits: dict[str, int], harmless: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """A bit mask (n, n_pix) as one boolean array a name, without the ``harmless`` ones; a bit that has no name here counts as unusable too."""
    mask = np.asarray(mask).astype("i8")
    found = {name: (mask >> bit & 1).astype(bool) for name, bit in bits.items() if name not in harmless}
    return {**found, "a bit without a name": (mask & ~sum(1 << bit for bit in bits.values())) != 0}


def _labels(labels):
    table = Table()
    for name, (values, unit, origin) in labels.items():
        if unit is None and np.asarray(values).dtype.kind in "OSU":
            values = np.asarray(values, str)
        elif unit is not None:
            values = np.ma.filled(np.ma.asarray(getattr(values, "value", values)).astype("f8"), np.nan)
        table[name] = Column(np.array(values), unit=unit, description=origin)
    nothing_stellar(table)
    return table


def nothing_stellar(labels: Table, keep: tuple[str, ...] = STARS) -> None:
    """Take the stellar labels from the rows whose ``object_class`` is none of ``keep``, in place: a galaxy has no ``logg``."""
    if "object_class" not in labels.colnames:
        return
    other = ~np.isin(labels["object_class"], keep)
    for name in labels.colnames:
        if name.removesuffix("_err") in STELLAR:
            labels[name][other] = np.nan
