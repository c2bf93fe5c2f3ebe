"""A file as plain parts: its bytes within a size limit, what they are by their content, and the table or arrays in them.

Everything that parses foreign bytes is here and in ``hdus``, so that a damaged file ends in one ``DataFileError`` and the survey modules meet sound
arrays only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..errors import DataFileError

LIMIT = 2**30  # bytes of an unpacked file: a laptop's memory, and far below what a gzip bomb unpacks to
ANEW = "Copy or download it anew, and compare its size with the origin's."
BROKEN = r"(?s).*(truncated|[Cc]hecksum|[Dd]atasum|Error validating header|corrupted|extra bytes)"


@dataclass(frozen=True)
class Source:
    """One file: its path, the SHA-256 of the file as it lies, and its content, unpacked if it was gzipped."""

    path: Path
    sha256: str
    data: bytes = field(repr=False)


def load(path: Path) -> Source:
    """The file's content, unpacked if gzipped.

    Raises
    ------
    DataFileError
        Missing, no file, unreadable, empty, not whole (gzip), or larger than ``LIMIT`` bytes once unpacked.
    """
    if not path.is_file():
        raise DataFileError(f"There is no file {path}. Check the path" + (", which is a folder: name one file in it." if path.is_dir() else "."))
    try:
        if path.stat().st_size > LIMIT:
            raise too_large(path)
        packed = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"{path} cannot be read ({error.strerror}). Check its permissions, or copy it anew.") from error
    data = _gunzip(path, packed) if packed.startswith(b"\x1f\x8b") else packed
    if not data:
        raise DataFileError(f"{path} is empty. {ANEW}")
    return Source(path, hashlib.sha256(packed).hexdigest(), data)


def kind(source: Source) -> str:
    """``"fits"``, ``"npz"``, ``"safetensors"``, ``"votable"``, ``"ecsv"`` or ``"csv"``, by the content; the file's name plays no part.

    Raises
    ------
    DataFileError
        A web page, or nothing that the kit knows.
    """
    head = source.data[:1024].lstrip()
    if source.data.startswith(b"SIMPLE  ="):
        return "fits"
    if source.data.startswith(b"PK\x03\x04"):
        return "npz"
    if source.data[8:9] == b"{" and int.from_bytes(source.data[:8], "little") < len(source.data):
        return "safetensors"
    if is_page(head):
        raise DataFileError(f"{source.path.name} is a web page (HTML), not data: the server answered with an error or a login page. Look at it in a browser, "
                            "and download the file anew.")
    if b"<votable" in head.lower():
        return "votable"
    if head.startswith(b"# %ECSV"):
        return "ecsv"
    if b"\0" not in head and _is_text(source.data):
        return "csv"
    raise DataFileError(f"{source.path.name} starts with {source.data[:8]!r}, which is none of FITS, npz, safetensors, VOTable, ECSV or CSV text. "
                        f"{ANEW}")


def is_page(head: bytes) -> bool:
    """True for the beginning of a web page: what a server sends instead of a file when it cannot or will not."""
    lower = head.lstrip().lower()
    return lower.startswith(b"<!doctype html") or b"<html" in lower


def table(source: Source, kind: str) -> Table:
    """The table of a VOTable, ECSV or CSV file.

    Raises
    ------
    DataFileError
        Not such a table: truncated, rows of unequal length, no rows.
    """
    def parse() -> Table:
        if kind == "votable":
            return Table.read(io.BytesIO(source.data), format="votable")
        text = source.data.decode("utf-8-sig")
        if not text.endswith("\n"):  # a number cut short is a number still
            raise ValueError("its last line does not end; if the file is whole, add a line break")
        return Table.read(text, format="ascii.ecsv" if kind == "ecsv" else "ascii.csv")

    found = guarded(source, parse, {"votable": "VOTable", "ecsv": "ECSV table", "csv": "CSV table"}[kind])
    if not len(found):
        raise DataFileError(f"{source.path.name} holds a table without rows: {', '.join(found.colnames)}. {ANEW}")
    return found


def arrays(source: Source) -> dict[str, np.ndarray]:
    """The arrays of an npz file; pickled objects are refused.

    Raises
    ------
    DataFileError
        Truncated, corrupted (its CRCs are checked), pickled, or larger than ``LIMIT`` once unpacked.
    """
    def parse() -> dict[str, np.ndarray]:
        with zipfile.ZipFile(io.BytesIO(source.data)) as members:
            if sum(member.file_size for member in members.infolist()) > LIMIT:
                raise too_large(source.path)
        with np.load(io.BytesIO(source.data), allow_pickle=False) as content:
            return {name: content[name] for name in content.files}

    return guarded(source, parse, "npz file")


def same_shape(source: Source, **arrays: np.ndarray) -> None:
    """``DataFileError`` unless these arrays have one shape, with at least two pixels on the last axis."""
    shapes = {name: np.shape(value) for name, value in arrays.items()}
    if len(set(shapes.values())) > 1 or next(iter(shapes.values()))[-1:] < (2,):
        raise DataFileError(f"{source.path.name}: shapes that do not belong together: {', '.join(f'{n} {s}' for n, s in shapes.items())}. {ANEW}")


def guarded(source: Source, parse: Callable, what: str):
    """What ``parse()`` gives; anything it raises or warns of that means damage becomes a ``DataFileError`` with the file's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=BROKEN)
        try:
            return parse()
        except DataFileError:
            raise
        except Exception as error:  # on damaged bytes the parsers raise nearly every kind there is
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise DataFileError(f"{source.path.name} is truncated or damaged, or no {what} ({reason}). Nothing was read from it. {ANEW}") from error


def _gunzip(path, packed):
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            data = stream.read(LIMIT + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataFileError(f"{path.name} is truncated or damaged: its gzip stream breaks off or fails its check ({error}). {ANEW}") from error
    if len(data) > LIMIT:
        raise too_large(path)
    return data


def too_large(path: Path) -> DataFileError:
    """The error for a file beyond ``LIMIT``."""
    return DataFileError(f"{path.name} takes more than {LIMIT / 2**20:.0f} MiB once unpacked, more than is read at once. If the file is right, cut out the rows "
                         "you need first, for example with astropy.table.Table.")


def _is_text(data):
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


