"""Files of a manifest on this machine: found through one environment variable, checked by hash before anything parses them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..errors import DataFileError
from ..manifests import Manifest

VARIABLE = "SPECTRAKIT_DATA"


def find(file: str) -> Path | None:
    """``$SPECTRAKIT_DATA/real/<file>`` or ``$SPECTRAKIT_DATA/<file>``, the first that exists; None without either."""
    root = os.environ.get(VARIABLE)
    places = [Path(root) / "real" / file, Path(root) / file] if root else []
    return next((place for place in places if place.is_file()), None)


def content(manifest: Manifest, role: str) -> bytes:
    """The bytes of the manifest's file with this role, after size and SHA-256 were found right.

    Raises
    ------
    DataFileError
        The file is missing, cannot be read, is truncated, or is another file than the manifest describes.
    """
    entry = manifest.file(role)
    path = find(entry["file"])
    if path is None:
        raise DataFileError(missing(manifest, entry["file"]))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"{path} cannot be read ({error.strerror}). Check its permissions, or copy it anew.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        size = f"{len(data)} of {entry['bytes']} bytes: truncated" if len(data) < entry["bytes"] else f"{len(data)} bytes, expected {entry['bytes']}"
        raise DataFileError(f"{path} is not the file that the manifest {manifest.name!r} describes ({size}). SHA-256 expected {entry['sha256']}, "
                            f"found {found}. Nothing was read from it: copy the file anew. Origin: {manifest.whence()}.")
    return data


def missing(manifest: Manifest, file: str) -> str:
    """What to say when the file is nowhere."""
    root = os.environ.get(VARIABLE)
    if not root:
        state = "is not set"
    else:
        state = f"is {root!r}, which " + (f"holds neither real/{file} nor {file}" if Path(root).is_dir() else "is no folder")
    return (f"{file}, the data of {manifest.name!r}, was not found: {VARIABLE} {state}. Set it to a folder that holds real/{file} or {file}. "
            f"Public origin of the data: {manifest.whence()}.")
