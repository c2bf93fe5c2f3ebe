"""Spectra and labels as Arrow record batches, and back: what a block of ``spectrakit.store`` is made of."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np
import pyarrow as pa

from .errors import DataFileError, LabelError, SpectrumError
from .spectra import ABOUT, SpectraSet

FORMAT = "spectrakit.Store/1"
PIXELS = ("flux", "ivar", "mask")


def entry(column) -> dict:
    """What has to be known of a label column besides its values."""
    return {"name": column.name, "kind": "text" if column.dtype.kind == "U" else column.dtype.newbyteorder("=").str, "shape": list(column.shape[1:]),
            "unit": None if column.unit is None else column.unit.to_string(), "description": column.description}


def schema(first: SpectraSet) -> pa.Schema:
    """Of all blocks; its metadata hold what is the same for all spectra, as JSON with its SHA-256.

    Raises
    ------
    LabelError
        A label that has no place in a column.
    DataFileError
        A provenance that is not JSON-able.
    """
    entries = [entry(first.labels[name]) for name in first.labels.colnames]
    for found in entries:
        column = first.labels[found["name"]]
        if found["name"] in (*PIXELS, "crc32") or column.dtype.kind not in "biufU" or column.ndim > (1 if found["kind"] == "text" else 2):
            raise LabelError(f"Label {column.name!r} is {column.dtype} {column.shape}; expected numbers, booleans or text, one (or a row of numbers) a star, and a "
                             f"name that is none of {', '.join((*PIXELS, 'crc32'))}. Convert, rename or remove the column.")
    try:
        text = json.dumps({"format": FORMAT, "about": {name: getattr(first, name) for name in ABOUT}, "labels": entries, "wave": first.wave.tolist(),
                           "resolution": first.resolution.tolist()})
    except TypeError as error:
        raise DataFileError(f"The provenance cannot be written as JSON ({error}); keep text, numbers, lists and dicts in it.") from error
    n_pix = first.wave.size
    kinds = [("flux", pa.list_(pa.float32(), n_pix)), ("ivar", pa.list_(pa.float32(), n_pix)), ("mask", pa.list_(pa.uint8(), n_pix)), ("crc32", pa.uint32())]
    for found in entries:
        kind = pa.string() if found["kind"] == "text" else pa.from_numpy_dtype(np.dtype(found["kind"]))
        kinds.append((found["name"], pa.list_(kind, found["shape"][0]) if found["shape"] else kind))
    return pa.schema(kinds, metadata={"spectrakit": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def described(kind: pa.Schema) -> dict:
    """The JSON in a schema; empty for a schema of another kind, or when its SHA-256 is wrong."""
    meta = kind.metadata or {}
    text = meta.get(b"spectrakit", b"")
    return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == meta.get(b"sha256") else {}


def batch(stars: SpectraSet, kind: pa.Schema, number: int) -> pa.RecordBatch:
    """The set as one record batch, pixels in float32 with their CRC-32 a row; ``number`` is the set's, for messages."""
    pixels = [_float32(stars, name, number) for name in ("flux", "ivar")] + [stars.mask.astype("u1", order="C")]
    columns = [_lists(array) for array in pixels] + [pa.array(_crc_rows(pixels))]
    for name in stars.labels.colnames:
        column = _plain(stars.labels[name])
        columns.append(pa.array(column.tolist(), pa.string()) if column.dtype.kind == "U" else _lists(column) if column.ndim == 2 else pa.array(column))
    return pa.record_batch(columns, schema=kind)


def values(block: pa.RecordBatch, found: dict) -> np.ndarray:
    """A label column of a block."""
    column = block.column(found["name"])
    if found["kind"] == "text":
        return np.array(column.to_pylist(), str)
    return column.flatten().to_numpy().reshape(-1, *found["shape"]) if found["shape"] else column.to_numpy(zero_copy_only=False)


def crc_labels(block: pa.RecordBatch, labels: list[dict]) -> bytes:
    """CRC-32 over all label columns of a block, as the text that stands beside it."""
    crc = 0
    for found in labels:
        column = values(block, found)
        crc = zlib.crc32(json.dumps(column.tolist()).encode() if found["kind"] == "text" else np.ascontiguousarray(column), crc)
    return str(crc).encode()


def _crc_rows(pixels):
    """(n,) CRC-32 over flux, ivar and mask of a row."""
    crc = np.zeros(len(pixels[0]), "u4")
    for i, row in enumerate(zip(*pixels, strict=True)):
        found = 0
        for array in row:
            found = zlib.crc32(array, found)
        crc[i] = found
    return crc


def _lists(array):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).ravel()), array.shape[1])


def _plain(column):
    """A label's values in this machine's byte order; masked numbers become NaN, masked text empty."""
    value = np.ma.asarray(getattr(column, "value", column))
    if np.ma.getmaskarray(value).any() and value.dtype.kind not in "fU":
        raise LabelError(f"Label {column.name!r} is {column.dtype} and has masked rows, which whole numbers have no value for. Make it float, or fill it.")
    filled = np.ma.filled(value, np.nan if value.dtype.kind == "f" else "" if value.dtype.kind == "U" else None)
    return filled.astype(filled.dtype.newbyteorder("="))


def _float32(stars, name, number):
    wide = np.where(stars.mask, 0, getattr(stars, name))
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype("f4", order="C")  # a row's pixels side by side, however they lay in the set
    lost = ~np.isfinite(narrow) | ((wide != 0) & (np.abs(narrow) < np.finfo("f4").tiny))
    if lost.any():
        raise SpectrumError(f"{name} of set {number} has values that float32 cannot hold ({wide[lost][0]:.3g}); multiply flux by a constant first, and ivar by "
                            "its inverse square, as normalize does.")
    return narrow
