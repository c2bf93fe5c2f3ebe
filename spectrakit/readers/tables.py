"""Plain CSV (one spectrum, a row a pixel) and npz files (n spectra on one grid), whose every unit is stated by the reader's caller: nothing is guessed.

There is no data model: ``columns`` and the other keywords are the data model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy import units as u

from ..errors import DataFileError, MismatchError
from ..spectra import FRAMES, LABEL_UNITS, MEDIA, SpectraSet
from .assembly import CGS, assemble
from .container import Source, same_shape

EXAMPLE = ('read("star.csv", columns={"wave": ("lambda", "nm"), "flux": ("f", "W / (m2 nm)"), "sigma": ("err", "W / (m2 nm)")}, survey="mine", medium="air", '
           'frame="heliocentric", resolution=2000.0, normalization="none")')
STATED = ("columns", "survey", "medium", "frame", "resolution", "normalization")
KNOWN = ("wave", "flux", "sigma", "ivar", "mask")


def read(source: Source, content: Mapping, stated: dict) -> SpectraSet:
    """The spectra of plain arrays.

    Parameters
    ----------
    content : name -> values: the columns of a CSV file (n_pix), or the arrays of an npz file: (n_pix) wavelengths, (n_pix) or (n, n_pix) the rest.
    stated : ``columns``: "wave", "flux", and "sigma" or "ivar" -> (column, unit); "mask" -> (column, None), where anything but 0 is unusable.
        ``survey``, ``medium``, ``frame``, ``resolution`` (one resolving power), ``normalization``: as of ``SpectraSet``. ``labels`` (npz, may be left
        out): name -> (array of n, unit; None for text and identifiers).

    Raises
    ------
    DataFileError
        Something is not stated, or is stated of a column that is not there.
    MismatchError
        A unit that does not fit its quantity.
    """
    lacking = [name for name in STATED if stated.get(name) is None]
    unknown = sorted(set(stated) - {*STATED, "labels"})
    if lacking or unknown:
        raise DataFileError(f"{source.path.name} is a plain table, which does not say what its numbers mean; "
                            + (f"state {', '.join(lacking)}" if lacking else f"{', '.join(unknown)} is no keyword here") + f". Example: {EXAMPLE}")
    columns = stated["columns"]
    _check_columns(columns, stated, source)
    wave_unit, flux_unit = _unit(columns, "wave"), _unit(columns, "flux")
    if wave_unit.physical_type != "length":
        raise MismatchError(f'The unit of "wave" is {columns["wave"][1]!r}; expected a length, such as "nm" or "Angstrom".')
    if flux_unit.is_equivalent(u.Jy):
        raise MismatchError(f'The unit of "flux" is {columns["flux"][1]!r}, per frequency; expected flux per wavelength. Convert it first.')
    to_cgs = flux_unit.to(u.Unit(CGS)) if flux_unit.is_equivalent(u.Unit(CGS)) else 1.0
    flux = np.atleast_2d(_values(content, columns["flux"][0], source))
    wave = (_values(content, columns["wave"][0], source) * wave_unit).to_value(u.AA)
    ivar = np.broadcast_to(_ivar(content, columns, flux_unit, source), flux.shape)
    mask = np.atleast_2d(_values(content, columns["mask"][0], source)) != 0 if "mask" in columns else np.zeros(flux.shape, bool)
    same_shape(source, flux=flux, mask=mask)
    return assemble(source, wave, flux * to_cgs, ivar / to_cgs**2, {"mask": mask}, _labels(content, stated.get("labels") or {}, len(flux), source),
                    survey=stated["survey"], medium=stated["medium"], frame=stated["frame"], normalization=stated["normalization"],
                    resolution=np.full(wave.shape, float(stated["resolution"])), origin="plain table, meaning stated by its reader",
                    flux_unit=CGS if to_cgs != 1 else flux_unit.to_string() or "dimensionless")


def _check_columns(columns, stated, source):
    errors = [name for name in ("sigma", "ivar") if name in columns]
    if not {"wave", "flux"} <= set(columns) or len(errors) != 1 or not set(columns) <= set(KNOWN):
        raise DataFileError(f"{source.path.name}: columns names {', '.join(columns) or 'nothing'}; expected wave, flux, one of sigma and ivar, and perhaps mask. "
                            f"Without errors a spectrum cannot be weighted: state one, the kit does not invent it. Example: {EXAMPLE}")
    for name, entry in {**columns, **(stated.get("labels") or {})}.items():
        if isinstance(entry, str) or len(entry) != 2:
            raise DataFileError(f"{name!r} is {entry!r}; expected (column, unit). Example: {EXAMPLE}")
    for name, allowed in (("medium", MEDIA), ("frame", FRAMES)):
        if stated[name] not in allowed:
            raise MismatchError(f"{name} is {stated[name]!r}; expected one of {', '.join(map(repr, allowed))}.")


def _unit(columns, name):
    text = columns[name][1]
    unit = u.Unit(text, parse_strict="silent") if text is not None else None
    if unit is None or isinstance(unit, u.UnrecognizedUnit):
        raise MismatchError(f'The unit of "{name}" is {text!r}; expected one that astropy knows: "Angstrom", "erg / (s cm2 Angstrom)", or "" for none.')
    return unit


def _ivar(content, columns, flux_unit, source):
    """Inverse variance in flux_unit^-2."""
    name = "sigma" if "sigma" in columns else "ivar"
    unit, expected = _unit(columns, name), flux_unit if name == "sigma" else flux_unit**-2
    if not unit.is_equivalent(expected):
        raise MismatchError(f'The unit of "{name}" is {columns[name][1]!r}; expected {expected.to_string() or "dimensionless"}, or one that converts to it.')
    value = np.atleast_2d(_values(content, columns[name][0], source)) * unit.to(expected)
    if name == "ivar":
        return value
    with np.errstate(divide="ignore"):
        return np.where(value > 0, np.where(value > 0, value, 1.0) ** -2.0, np.where(np.isnan(value), np.nan, 0))


def _values(content, column, source):
    if column not in content:
        raise DataFileError(f"{source.path.name} has no column {column!r}; it has: {', '.join(content)}. Correct what was stated.")
    try:
        return np.ma.filled(np.ma.asarray(content[column]).astype("f8"), np.nan)
    except (ValueError, TypeError) as error:
        raise DataFileError(f"{source.path.name}: column {column!r} is not numbers ({error}). Correct what was stated, or the file.") from error


def _labels(content, labels, n, source):
    stem = source.path.name.split(".")[0]
    table = {"spectrum": ([stem if n == 1 else f"{stem}[{i}]" for i in range(n)], None, "file and row"), "object_class": ([""] * n, None, "not stated")}
    for name, (column, unit) in labels.items():
        if column not in content:
            raise DataFileError(f"{source.path.name} has no column {column!r}; it has: {', '.join(content)}. Correct what was stated.")
        if np.shape(content[column]) != (n,):
            raise DataFileError(f"{source.path.name}: label {name!r} has shape {np.shape(content[column])}; expected ({n},), one a spectrum.")
        if name in LABEL_UNITS and (unit is None or u.Unit(unit, parse_strict="silent") != LABEL_UNITS[name]):
            raise MismatchError(f"Label {name!r} is stated in {unit!r}; expected {LABEL_UNITS[name]}: convert it first.")
        table[name] = (np.asarray(content[column]), unit, f"column {column} of {source.path.name}")
    return table
