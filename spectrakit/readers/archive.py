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
from ..objects import STARS
from ..spectra import SpectraSet, label_table
from ..surveys import get_survey
from . import local, originals
from .assembly import nothing_stellar
from .noise import estimate_ivar


def read(manifest: Manifest) -> SpectraSet:
    """All spectra of a manifest, (n, n_pix), with every row kept: unlabelled stars and objects that are no stars too.

    They come from the file under ``SPECTRAKIT_DATA``, or where that is not and the manifest has public originals, from these (``readers.originals``).

    A pixel is masked where flux is not finite or exactly 0 (no data), where the survey flags it or gives ``ivar`` <= 0, and, for spectra
    without measured errors, where flux <= 0: that is a defect of a library spectrum, which has no noise to speak of.

    Raises
    ------
    DataFileError
        As ``readers.local.content`` and ``readers.fetch.fetch_all``; the file lacks an array that the manifest names; the manifest is of no spectra.
    """
    if manifest.kind != "spectra":
        files = ", ".join(entry["file"] for entry in manifest.public())
        raise DataFileError(f"{manifest.name!r} cannot be read by name. " + (manifest.query["read"] if manifest.query else
                            f"It is files: fetch({manifest.name!r}, FILE), FILE one of {files}." if files else f"Its files are listed on {manifest.home}."))
    if manifest.originals and local.find(manifest.file("spectra")["file"]) is None:
        try:
            return originals.read(manifest, lambda arrays, notes: assemble(arrays, manifest, "originals", notes))
        except DataFileError as error:
            raise DataFileError(f"{local.missing(manifest, manifest.file('spectra')['file'])} Nor did the originals come: {error}") from error
    return assemble(_arrays(local.content(manifest, "spectra"), manifest), manifest, manifest.file("spectra")["sha256"], [])


def assemble(arrays: dict[str, np.ndarray], manifest: Manifest, sha256: str, notes: list[str]) -> SpectraSet:
    """The set that a manifest's declarations make of its arrays."""
    flux = _array(arrays, "flux", manifest).astype("f8")
    ivar, mask = _noise(arrays, flux, manifest)
    wave = (_array(arrays, "wave", manifest).astype("f8") * u.Unit(manifest.wave_unit)).to_value(u.AA)
    labels, more = _labels(arrays, manifest)
    provenance = {"origin": manifest.title, "manifest": manifest.name, "sha256": sha256, "label_scale": manifest.scale, "history": [*notes, *more]}
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
    if "object_class" in columns:
        columns["object_class"] = np.char.lower(columns["object_class"])
    labels = label_table(**columns)
    nothing_stellar(labels, (*STARS, "unknown"))  # what a pipeline could not classify may be a star of the literature, with its labels; it stays marked
    return labels, notes


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
