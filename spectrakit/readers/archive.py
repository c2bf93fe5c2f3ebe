"""The spectra of a manifest: its npz file, and the declarations that give the arrays a meaning, as a SpectraSet."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

import numpy as np
from astropy import units as u
from astropy.table import Table

from ..errors import DataFileError
from ..manifests import Manifest
from ..spectra import SpectraSet, label_table
from ..surveys import get_survey
from . import local
from .noise import estimate_ivar


def read(manifest: Manifest) -> SpectraSet:
    """All spectra of a manifest, (n, n_pix), with every row kept: unlabelled stars and objects that are no stars too.

    A pixel is masked where flux is not finite or exactly 0 (no data), where the survey flags it or gives ``ivar`` <= 0, and, for spectra
    without measured errors, where flux <= 0: that is a defect of a library spectrum, which has no noise to speak of.

    Raises
    ------
    DataFileError
        As ``readers.local.content``; or the file lacks an array that the manifest names.
    """
    arrays = _arrays(local.content(manifest, "spectra"), manifest)
    flux = _array(arrays, "flux", manifest).astype("f8")
    ivar, mask = _noise(arrays, flux, manifest)
    wave = (_array(arrays, "wave", manifest).astype("f8") * u.Unit(manifest.wave_unit)).to_value(u.AA)
    labels, notes = _labels(arrays, manifest)
    provenance = {"origin": manifest.title, "manifest": manifest.name, "sha256": manifest.file("spectra")["sha256"], "label_scale": manifest.scale, "history": notes}
    return SpectraSet(wave=wave, flux=np.where(mask, 0, flux), ivar=ivar, mask=mask, labels=labels, survey=manifest.name, medium=manifest.medium,
                      frame=manifest.frame, resolution=_resolution(wave, manifest), normalization="none", noise=manifest.noise["kind"], provenance=provenance)


def _resolution(wave, manifest):
    (kind, value), = manifest.resolution.items()
    if kind == "survey":
        return get_survey(value).resolution(wave)
    return wave / value if kind == "fwhm" else np.full(wave.size, float(value))


def _noise(arrays, flux, manifest):
    mask = ~np.isfinite(flux) | (flux == 0)
    if manifest.noise["kind"] == "estimated":
        mask |= ~(flux > 0)
        return estimate_ivar(flux, mask, correlation=manifest.noise["correlation"], floor=manifest.noise["floor"]), mask
    ivar = _array(arrays, "ivar", manifest).astype("f8") if "error" not in manifest.noise else _array(arrays, manifest.noise["error"], manifest).astype("f8") ** -2
    mask |= ~np.isfinite(ivar) | (ivar <= 0)
    if "flags" in manifest.noise:
        mask |= _array(arrays, manifest.noise["flags"], manifest).astype(bool)
    return np.where(mask, 0, ivar), mask


def _labels(arrays, manifest):
    extra = manifest.file("labels")
    table = _table(local.content(manifest, "labels")) if extra and local.find(extra["file"]) else None
    notes = [f"{extra['file']} not found: its labels are empty"] if extra and table is None else []
    columns = {}
    for name, entry in manifest.labels.items():
        column = entry.get("column", name)
        value = _joined(arrays, table, column, "f8" if "unit" in entry else "U") if "file" in entry else _array(arrays, column, manifest)
        if "missing" in entry:
            value = np.where(value == entry["missing"], np.nan, value)
        columns[name] = value.astype("f8") * u.Unit(entry["unit"]) if "unit" in entry else value
    return label_table(**columns), notes


def _joined(arrays, table, column, kind):
    """A column of the label file brought to the spectra by star key; NaN or empty for stars that are not in it."""
    empty = np.nan if kind == "f8" else ""
    if table is not None and not {"key", column} <= set(table.colnames):
        raise DataFileError(f"The label file has no column 'key' or {column!r}; it has: {', '.join(table.colnames)}. Correct the manifest.")
    known = {} if table is None else dict(zip(table["key"], np.ma.filled(np.ma.asarray(table[column]).astype(kind), empty), strict=True))
    return np.array([known.get(key, empty) for key in arrays["key"]], kind)


def _table(data):
    return Table.read(gzip.decompress(data).decode("utf-8").splitlines(), format="ascii.csv")


def _arrays(data, manifest):
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        file = manifest.file("spectra")["file"]
        raise DataFileError(f"{file} is not a readable npz file ({error}). Copy it anew from {manifest.whence()}.") from error


def _array(arrays, name, manifest):
    if name not in arrays:
        raise DataFileError(f"{manifest.file('spectra')['file']} has no array {name!r}, which the manifest {manifest.name!r} needs; "
                            f"it has: {', '.join(arrays)}. Correct the manifest's column names.")
    return arrays[name]
