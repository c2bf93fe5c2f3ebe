"""The kit's own file: one safetensors file with arrays, label columns, and everything else as JSON; the round trip is exact."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from uuid import uuid4

import numpy as np
from astropy.table import Column, MaskedColumn, Table

from ..errors import DataFileError, LabelError
from ..spectra import ABOUT, SpectraSet

FORMAT = "spectrakit.SpectraSet/1"
ARRAYS = ("wave", "flux", "ivar", "mask", "resolution")


def write(stars: SpectraSet, path: str | os.PathLike) -> Path:
    """Write a set to ``path`` (``.safetensors``), under a temporary name first, so that a broken-off write leaves nothing half-done.

    Raises
    ------
    DataFileError
        Another suffix, a folder that cannot be written to, or a provenance that is not JSON-able.
    LabelError
        A label column that is neither numbers, booleans nor text.
    """
    from safetensors.numpy import save
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataFileError(f"Cannot write {path.name!r}: a SpectraSet is written as .safetensors; change the name.")
    arrays = {name: getattr(stars, name) for name in ARRAYS}
    columns = [_packed(arrays, stars.labels[name]) for name in stars.labels.colnames]
    arrays = {name: _plain(value) for name, value in arrays.items()}
    about = {name: getattr(stars, name) for name in ABOUT}
    try:
        text = json.dumps({"format": FORMAT, "about": about, "labels": columns})
    except TypeError as error:
        raise DataFileError(f"The provenance cannot be written as JSON ({error}); keep text, numbers, lists and dicts in it.") from error
    try:
        _replace(path, save(arrays, {"spectrakit": text, "sha256": _digest(text, arrays)}))
    except OSError as error:
        raise DataFileError(f"Cannot write {path}: {error.strerror}. Choose a folder that exists and can be written to.") from error
    return path


def read(path: str | os.PathLike) -> SpectraSet:
    """The set that ``write`` put there.

    Raises
    ------
    DataFileError
        The file is missing, truncated, corrupted (a SHA-256 over content is kept in it), or a safetensors file of another kind.
    """
    from safetensors import SafetensorError, safe_open
    path = Path(path)
    if not path.is_file():
        raise DataFileError(f"There is no file {path}; expected one that SpectraSet.write made. Check the path.")
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DataFileError(f"{path} is truncated or corrupted, or no safetensors file ({error}). Write or copy it anew.") from error
    text = meta.get("spectrakit", "")
    if f'"{FORMAT}"' not in text:
        raise DataFileError(f"{path} is a safetensors file, but not a {FORMAT}; expected one that SpectraSet.write made.")
    if _digest(text, arrays) != meta.get("sha256"):
        raise DataFileError(f"{path} is corrupted: its content does not have the SHA-256 written with it. Write or copy it anew.")
    content = json.loads(text)
    labels = Table([_unpacked(arrays, entry) for entry in content["labels"]])
    return SpectraSet(**{name: arrays[name] for name in ARRAYS}, labels=labels, **content["about"])


def _packed(arrays, column):
    """The JSON description of a label column; numbers go to ``arrays``, text stays in the JSON."""
    entry = {"name": column.name, "dtype": column.dtype.str, "unit": None if column.unit is None else column.unit.to_string(),
             "description": column.description}
    value = np.ma.asarray(getattr(column, "value", column))
    if value.dtype.kind not in "biufU":
        raise LabelError(f"Label {column.name!r} has type {column.dtype}; expected numbers, booleans or text (str): convert the column first.")
    if isinstance(value.mask, np.ndarray) or isinstance(column, MaskedColumn):
        arrays[f"labels.{column.name}.masked"] = np.ma.getmaskarray(value)
    if value.dtype.kind == "U":
        return {**entry, "text": value.data.tolist()}
    arrays[f"labels.{column.name}"] = value.data
    return entry


def _unpacked(arrays, entry):
    key = f"labels.{entry['name']}"
    value = np.array(entry["text"], entry["dtype"]) if "text" in entry else arrays[key]
    about = {"name": entry["name"], "unit": entry["unit"], "description": entry["description"]}
    masked = arrays.get(f"{key}.masked")
    return Column(value, **about) if masked is None else MaskedColumn(value, mask=masked, **about)


def _plain(value):
    """Contiguous and in this machine's byte order: safetensors writes the buffer as it lies, strides or not."""
    return np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))


def _digest(text, arrays):
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _replace(path, data):
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
