"""Labels of one catalogue brought to the spectra of another, by position or by name; what was dropped is counted, with the reason.

>>> match = by_position(desi, apogee, {"feh": ("fe_h", "dex")}, radius=1.0, scale="ASPCAP of DR17")
>>> match.stars, match.dropped

A spectrum gets labels only if it is of a star as far as its survey knows, and if exactly one row of the catalogue can be meant: where two rows lie within the
radius, or two different stars claim one row, none is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.table import Column, Table
from jaxtyping import Float, Int

from . import manifests
from .errors import LabelError, MismatchError
from .objects import STARS, is_star
from .spectra import LABEL_UNITS, SpectraSet
from .splits import Split, splits
from .surveys import COMMON

Columns = Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True, eq=False)
class Match:
    """Spectra with labels, and what became of the others.

    stars : the matched spectra in their old order, the new columns among ``labels``.
    rows : (n,) row of the catalogue that each has its labels from.
    separation : (n,) arcseconds between the two positions; NaN after a match by name.
    dropped : reason -> number of spectra; together with ``len(stars)`` all that were given.
    unused : reason -> number of catalogue rows.
    """

    stars: SpectraSet
    rows: Int[np.ndarray, " n"]
    separation: Float[np.ndarray, " n"]
    dropped: dict[str, int]
    unused: dict[str, int]


def by_position(stars: SpectraSet, catalogue: Table, columns: Columns, *, radius: float | int, scale: str,
                position: tuple[str, str] = ("ra", "dec")) -> Match:
    """Labels of the catalogue row within ``radius`` arcseconds; all spectra of one star may share a row.

    Parameters
    ----------
    stars : with ``star``, ``ra`` and ``dec`` (degrees, ICRS) among its labels.
    columns : new label -> (column of the catalogue, its unit; None for text and identifiers).
    scale : what the labels' zero points are called, ``provenance["label_scale"]``.
    position : the catalogue's columns of right ascension and declination (degrees, ICRS). Two epochs apart, fast stars are elsewhere: ``moved``.

    Raises
    ------
    LabelError
        A column is missing; a unit does not fit; the stars have a label of that name already.
    """
    _check(stars, catalogue, columns, (*position,), ("star", "ra", "dec"))
    here, there = _coordinates(stars.labels, ("ra", "dec")), _coordinates(catalogue, position)
    placed, with_row = (np.flatnonzero(~np.isnan(axes[0])) for axes in (here, there))
    i, j, angle = _pairs([axis[placed] for axis in here], [axis[with_row] for axis in there], radius)
    count = np.bincount(placed[i], minlength=len(stars))
    row, separation = np.zeros(len(stars), int), np.full(len(stars), np.nan)
    row[placed[i]], separation[placed[i]] = with_row[j], angle
    reasons = {"no position": np.isnan(here[0]), f"no row within {radius:g} arcsec": count == 0, f"several rows within {radius:g} arcsec": count > 1}
    kept, dropped = _kept(stars, row, reasons)
    found = _labelled(stars, kept, catalogue[row[kept]], columns, scale, f"by position within {radius:g} arcsec")
    unused = {"no position": len(catalogue) - len(with_row), "no spectrum": len(with_row) - len(np.unique(row[kept]))}
    return Match(found, row[kept], separation[kept], dropped, _counted(unused))


def by_name(stars: SpectraSet, catalogue: Table, columns: Columns, *, names: tuple[str, str], scale: str) -> Match:
    """Labels of the catalogue row with the same name; ``names``: the label of the stars and the catalogue's column. Spaces around a name do not count.

    Raises
    ------
    LabelError
        As ``by_position``.
    """
    _check(stars, catalogue, columns, (names[1],), ("star", names[0]))
    here, there = (np.char.strip(np.ma.filled(np.ma.asarray(column).astype(str), "")) for column in (stars.labels[names[0]], catalogue[names[1]]))
    known, first, count = np.unique(["", *there], return_index=True, return_counts=True)  # never empty, and no name is no name
    at = np.clip(np.searchsorted(known, here), 0, len(known) - 1)
    row, same = np.maximum(first[at] - 1, 0), known[at] == here
    kept, dropped = _kept(stars, row, {"no name": here == "", "no row of that name": ~same, "several rows of that name": count[at] > 1})
    found = _labelled(stars, kept, catalogue[row[kept]], columns, scale, f"by name, {names[0]} = {names[1]}")
    return Match(found, row[kept], np.full(len(kept), np.nan), dropped, _counted({"no spectrum": len(catalogue) - len(np.unique(row[kept]))}))


def moved(catalogue: Table, years: float | int) -> Table:
    """The catalogue with ``ra``, ``dec`` (degrees) moved by ``pmra`` (times cos dec), ``pmdec`` (mas / yr) over ``years``; rows without motion stay."""
    motion = [np.nan_to_num(np.ma.filled(np.ma.asarray(catalogue[name]).astype("f8"), 0.0)) * years for name in ("pmra", "pmdec")]
    there = SkyCoord(*_coordinates(catalogue, ("ra", "dec")), unit="deg").spherical_offsets_by(*(step * u.mas for step in motion))
    return Table({**{name: catalogue[name] for name in catalogue.colnames}, "ra": there.ra.deg, "dec": there.dec.deg})


def cut(catalogue: Table, cuts: list[dict]) -> tuple[Table, dict[str, int]]:
    """The rows that pass all ``cuts`` of a manifest (``load(name).query["cuts"]``), and how many each cut took from those before it.

    Raises
    ------
    LabelError
        The catalogue lacks a column.
    """
    dropped = {}
    for entry in cuts:
        if entry["column"] not in catalogue.colnames:
            raise LabelError(f"The catalogue has no column {entry['column']!r}, which a cut needs ({entry['why']}); it has: {', '.join(catalogue.colnames)}.")
        keep = _passes(np.ma.asarray(catalogue[entry["column"]]), entry)
        dropped[f"{entry['column']} {entry['keep']} {entry.get('value', '')}".strip()] = int((~keep).sum())
        catalogue = catalogue[keep]
    return catalogue, dropped


def one_per_star(catalogue: Table, star: str, best: str) -> tuple[Table, dict[str, int]]:
    """Of the rows with one value of ``star`` that with the largest ``best``, in the catalogue's order; and how many rows that dropped."""
    order = np.argsort(-np.ma.filled(np.ma.asarray(catalogue[best]).astype("f8"), -np.inf), kind="stable")
    _, first = np.unique(np.asarray(catalogue[star])[order], return_index=True)
    kept = np.sort(order[first])
    return catalogue[kept], {f"another row of the star has a larger {best}": len(catalogue) - len(kept)}


@dataclass(frozen=True, eq=False)
class DesiApogee:
    """labelled : DESI spectra, one a star, with ``feh``, ``teff``, ``logg`` of APOGEE. split : its rows for training, validation, test.
    unlabelled : other bright DESI stars. dropped : step -> reason -> number.
    """

    labelled: SpectraSet
    split: Split
    unlabelled: SpectraSet
    dropped: dict[str, dict[str, int]]


def desi_apogee(desi: SpectraSet, apogee: Table, *, seed: int, radius: float | int = 1.0, n_train: int = 89, n_valid: int = 9,
                n_unlabelled: int = 164) -> DesiApogee:
    """The few-label set of Zhao et al. 2025 (arXiv 2507.20972) by the steps it is known by: DESI stars with APOGEE labels, and others without.

    Cuts on APOGEE and on DESI are those of the manifests ``apogee_dr17`` and ``desi_edr``; where the paper's own are not known (labels, radius) they are
    this kit's choice. S/N is the median of flux * sqrt(ivar) in 3960-5640 A.

    Parameters
    ----------
    desi : read from SPARCL or coadds, normalised or not. apogee : rows of allStar, lower-case names.
    seed : of the split by star and of the choice among the unlabelled.

    Raises
    ------
    MismatchError
        Too few stars for the numbers asked for.
    """
    rng = np.random.default_rng(seed)
    catalogue, cuts = cut(apogee, manifests.load("apogee_dr17").query["cuts"])
    catalogue, repeats = one_per_star(catalogue, "apogee_id", "snr")
    columns = {"feh": ("fe_h", "dex"), "teff": ("teff", "K"), "logg": ("logg", "dex")}
    match = by_position(desi, catalogue, columns, radius=radius, scale="ASPCAP of DR17")
    labelled, more = _brightest(match.stars)
    others, repeated = _brightest(desi[is_star(desi) & ~np.isin(desi.labels["star"], match.stars.labels["star"])])
    limit = manifests.load("desi_edr").query["cuts"][0]["value"]
    bright = np.flatnonzero(_snr(others) >= limit)
    if len(labelled) <= n_train + n_valid or len(bright) < n_unlabelled:
        raise MismatchError(f"{len(labelled)} stars with labels and {len(bright)} without and S/N >= {limit}; expected more than {n_train + n_valid} and at least "
                            f"{n_unlabelled}. Ask for fewer, or retrieve more spectra.")
    split = splits(labelled.labels["star"], n_train, n_valid, 1, rng)[0]
    unlabelled = others[np.sort(rng.choice(bright, n_unlabelled, replace=False))]
    return DesiApogee(labelled, split, unlabelled, {"APOGEE, cuts": cuts, "APOGEE, repeats": repeats, "DESI, no labels": match.dropped, "DESI, repeats": more,
                                                    "DESI unlabelled, repeats": repeated, "DESI unlabelled, S/N": {f"S/N < {limit}": len(others) - len(bright)}})


def by_position_hats(spectra, catalogue, *, star: str, row: str, radius: float | int) -> tuple[Table, dict[str, int]]:
    """``by_position`` for catalogues too large for one machine's memory: two HATS catalogues (``lsdb.Catalog``) matched partition by partition by Dask.

    Parameters
    ----------
    spectra, catalogue : with their own positions; ``catalogue`` with a margin of at least ``radius``, or pairs across borders are missed.
    star, row : the columns that identify a star and a row.

    Returns
    -------
    A Table with columns ``star``, ``row``, ``separation`` (arcseconds), one row a star; and the counts of stars that were dropped, by reason.

    Raises
    ------
    MismatchError
        ``catalogue`` has no such margin.
    """
    margin = getattr(catalogue.margin, "hc_structure", None)
    if margin is None or margin.catalog_info.margin_threshold < radius:
        raise MismatchError(f"The catalogue has no margin of {radius:g} arcsec: pairs across the borders of its partitions would be missed. Open it with its margin "
                            "catalogue, or make it with a larger margin_threshold.")
    found = spectra.crossmatch(catalogue, n_neighbors=2, radius_arcsec=radius, suffixes=("_spectra", "_row"))
    found = found[[f"{star}_spectra", f"{row}_row", "_dist_arcsec"]].compute()
    stars, rows, angle = (found[name].to_numpy() for name in found.columns)
    _, back, count = np.unique(stars, return_inverse=True, return_counts=True)
    several = count[back] > 1
    claims = Table({"row": rows[~several], "star": stars[~several]})
    _, again, claimed = np.unique(claims["row"], return_inverse=True, return_counts=True)
    clear = claimed[again] == 1
    dropped = {f"no row within {radius:g} arcsec": len(spectra) - len(count), f"several rows within {radius:g} arcsec": int((count > 1).sum()),
               "its row is claimed by another star": int((~clear).sum())}
    return Table({"star": stars[~several][clear], "row": rows[~several][clear], "separation": angle[~several][clear].astype("f8")}), _counted(dropped)


def _check(stars, catalogue, columns, needed, labels):
    for what, table, names in (("stars have", stars.labels, labels), ("catalogue has", catalogue, (*needed, *(column for column, _ in columns.values())))):
        for name in names:
            if name not in table.colnames:
                raise LabelError(f"The {what} no column {name!r}; there are: {', '.join(table.colnames)}.")
    for name, (_, unit) in columns.items():
        if name in stars.labels.colnames:
            raise LabelError(f"The stars have a label {name!r} already, which would be overwritten. Give the new one another name, or remove the old one.")
        if name in LABEL_UNITS and not u.Unit(unit or "").is_equivalent(LABEL_UNITS[name]):
            raise LabelError(f"Label {name!r} is stated in {unit!r}; expected {LABEL_UNITS[name]}, or one that converts to it.")


def _coordinates(table, names):
    """Right ascension and declination in degrees; NaN in both where either is missing or impossible."""
    ra, dec = (np.ma.filled(np.ma.asarray(getattr(table[name], "value", table[name])).astype("f8"), np.nan) for name in names)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    return np.where(good, ra, np.nan), np.where(good, dec, np.nan)


def _pairs(here, there, radius):
    """(index, index, arcseconds) of all pairs closer than ``radius``; both sides as right ascension and declination."""
    if not (len(here[0]) and len(there[0])):
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    i, j, angle, _ = search_around_sky(SkyCoord(*here, unit="deg"), SkyCoord(*there, unit="deg"), radius * u.arcsec)
    return i, j, angle.to_value(u.arcsec)


def _kept(stars, row, reasons):
    """The spectra for which no reason holds; and reason -> number, each spectrum counted once, for the first that holds."""
    names = np.asarray(stars.labels["star"]).astype(str)
    classes = np.asarray(stars.labels["object_class"]).astype(str) if "object_class" in stars.labels.colnames else np.full(len(stars), "")
    reasons = {**{f"no star: {kind}": classes == kind for kind in np.unique(classes) if kind not in STARS}, **reasons}
    free = ~np.any(list(reasons.values()), axis=0)
    claims = {(int(row[k]), names[k]) for k in np.flatnonzero(free)}
    claimed, count = np.unique([r for r, _ in claims], return_counts=True)
    reasons["its row is claimed by another star"] = free & np.isin(row, claimed[count > 1])
    dropped, left = {}, np.ones(len(stars), bool)
    for reason, held in reasons.items():
        dropped[reason] = (left & held).sum()
        left &= ~held
    return np.flatnonzero(left), _counted(dropped)


def _labelled(stars, kept, rows, columns, scale, how):
    """The kept spectra with the columns of the catalogue rows that are theirs."""
    labels = stars.labels[kept]
    for name, (column, unit) in columns.items():
        labels[name] = _label(name, rows[column], unit, column)
    note = f"labels {', '.join(columns)} {how}: {len(kept)} of {len(stars)} spectra"
    return replace(stars[kept], labels=labels, provenance={**stars.provenance, "label_scale": scale, "history": [*stars.provenance.get("history", []), note]})


def _label(name, values, unit, column):
    said = f"catalogue column {column}"
    if unit is None:
        return Column(np.asarray(values), description=said)
    values = u.Quantity(np.ma.filled(np.ma.asarray(getattr(values, "value", values)).astype("f8"), np.nan), unit)
    return Column(values.to_value(LABEL_UNITS.get(name, unit)), unit=LABEL_UNITS.get(name, unit), description=said)


def _passes(column, entry):
    known, value = ~np.ma.getmaskarray(column), entry.get("value")
    column = column.data
    if entry["keep"] == "without bits":
        return known & ((column.astype("i8") & sum(1 << bit for bit in np.atleast_1d(value).tolist())) == 0)
    if entry["keep"] == "finite":
        return known & np.isfinite(column.astype("f8"))
    return known & {"at least": np.greater_equal, "at most": np.less_equal, "equal": np.equal}[entry["keep"]](column, value)


def _brightest(stars):
    """Of each star the spectrum with the highest S/N."""
    table = Table({"star": np.asarray(stars.labels["star"]), "S/N": _snr(stars), "row": np.arange(len(stars))})
    kept, dropped = one_per_star(table, "star", "S/N")
    return stars[np.asarray(kept["row"])], dropped


def _snr(stars):
    inside = (stars.wave > COMMON[0]) & (stars.wave < COMMON[1])
    flux, ivar, mask = stars.flux[:, inside], stars.ivar[:, inside], stars.mask[:, inside]
    return np.ma.filled(np.ma.median(np.ma.masked_array(flux * np.sqrt(np.where(mask, 0, ivar)), mask), axis=1).astype(float), 0.0)


def _counted(reasons):
    return {reason: int(n) for reason, n in reasons.items() if n}
