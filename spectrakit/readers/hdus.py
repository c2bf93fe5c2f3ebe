"""FITS files as header-data units: sizes and checksums verified first, then plain headers, arrays in native byte order, and tables."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from ..errors import DataFileError
from . import container
from .container import ANEW, Source

CARD = re.compile(rb"(BITPIX|Z?NAXIS\d*|PCOUNT|GCOUNT|TFIELDS) *= *(-?\d+)")
BLOCK = 2880  # bytes: FITS comes in these


@dataclass(frozen=True)
class Hdu:
    """One FITS header-data unit: upper-case ``name``, ``header`` as a dict, ``data`` an array in native byte order, a Table (names in lower case) or None."""

    name: str
    header: dict
    data: np.ndarray | Table | None


def read(source: Source) -> list[Hdu]:
    """The header-data units of a FITS file, checksums verified where the file has them.

    Raises
    ------
    DataFileError
        Truncated, a checksum that does not hold, larger than ``container.LIMIT`` once unpacked, or anything that astropy cannot read.
    """
    from astropy.io import fits

    def parse() -> list[Hdu]:
        _check_structure(source.data)
        with fits.open(io.BytesIO(source.data), memmap=False, checksum=True) as hdus:
            if sum(_size(hdu.header) for hdu in hdus) > container.LIMIT:
                raise container.too_large(source.path)
            return [Hdu(hdu.name.strip().upper(), _header(hdu.header), _native(hdu)) for hdu in hdus]

    return container.guarded(source, parse, "FITS file")


def log_grid(hdu: Hdu, start: str, step: str, n: int, source: Source) -> np.ndarray:
    """Wavelengths (n,) in Angstrom of a header that has log10 of the first and the step; ``DataFileError`` for what cannot be a spectrograph's."""
    values = [hdu.header.get(key) for key in (start, step)]
    if not all(isinstance(value, float | int) for value in values) or not (3 < values[0] < 4.5 and 0 < values[1] * n < 1):
        raise DataFileError(f"{source.path.name}: header keywords {start}, {step} are {values[0]!r}, {values[1]!r}; expected log10 of the first wavelength (A) and "
                            f"its step. {ANEW}")
    return 10 ** (values[0] + values[1] * np.arange(n))


def first(hdu: Hdu, keys: tuple[str, ...], missing: float | int = -9999.0) -> float:
    """The first of these header keywords that is a number, NaN without one or where it is ``missing``: for labels that a file need not have."""
    for key in keys:
        value = hdu.header.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float("nan") if value == missing else float(value)
    return float("nan")


def whole(hdu: Hdu, key: str, missing: int) -> int:
    """A header keyword as a whole number, ``missing`` without one."""
    value = hdu.header.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else missing


def named(hdus: list[Hdu], name: str, source: Source) -> Hdu:
    """The unit of this name; ``DataFileError`` lists those that are there."""
    for hdu in hdus:
        if hdu.name == name and hdu.data is not None:
            return hdu
    raise DataFileError(f"{source.path.name} has no unit {name} with data; it has: {', '.join(u.name or '(unnamed)' for u in hdus)}. {ANEW}")


def columns(found: Table, names: tuple[str, ...], source: Source) -> list:
    """Columns of a table in the order of ``names``; ``DataFileError`` names the missing ones."""
    missing = [name for name in names if name not in found.colnames]
    if missing:
        raise DataFileError(f"{source.path.name} lacks the column {', '.join(missing)}; it has: {', '.join(found.colnames)}. {ANEW}")
    return [found[name] for name in names]


def _check_structure(data):
    """Units must follow each other and end within the file: from sizes that are negative, endless or beyond it astropy reads in circles or too little."""
    at, number = 0, 0
    while at < len(data):
        sizes, at = _sizes(data, at)
        shape = [sizes.get(f"NAXIS{i + 1}", -1) for i in range(min(sizes.get("NAXIS", -1), 1000))]
        counts = [sizes.get(name, 0) for name in ("NAXIS", "ZNAXIS", "TFIELDS")]
        if "NAXIS" not in sizes or min([*shape, *counts]) < 0 or max(counts) > 999:
            raise ValueError(f"the header of unit {number} has impossible sizes")
        size = abs(sizes.get("BITPIX", 8)) // 8 * sizes.get("GCOUNT", 1) * (sizes.get("PCOUNT", 0) + (math.prod(shape) if shape else 0))
        if not 0 <= size <= len(data) - at:
            raise ValueError(f"unit {number} should have {size} bytes of data, {len(data) - at} are there")
        at, number = at + -(-size // BLOCK) * BLOCK, number + 1


def _sizes(data, at):
    """What a header that starts at ``at`` says of the size of its unit, and where it ends."""
    sizes = {}
    while at + BLOCK <= len(data):
        for i in range(at, at + BLOCK, 80):
            card = data[i : i + 80]
            if card.rstrip() == b"END":
                return sizes, at + BLOCK
            if found := CARD.match(card):
                sizes[found[1].decode()] = int(found[2])
        at += BLOCK
    raise ValueError("a header has no end")


def _size(header):
    """Bytes of a unit's data once unpacked; for a tiled, compressed image the header gives the size of the image, not of the tiles."""
    shape = [header[f"NAXIS{i + 1}"] for i in range(header["NAXIS"])]
    return abs(header["BITPIX"]) // 8 * (int(np.prod(shape, dtype=object)) if shape else 0) + header.get("PCOUNT", 0)


def _header(header):
    return {key: value.strip() if isinstance(value, str) else value for key, value in header.items() if key and not re.match("COMMENT|HISTORY", key)}


def _native(hdu):
    from astropy.io import fits
    if isinstance(hdu, fits.BinTableHDU):
        found = Table.read(hdu, mask_invalid=False, unit_parse_strict="silent", character_as_bytes=False)
        found.convert_bytestring_to_unicode()
        found.rename_columns(found.colnames, [name.lower() for name in found.colnames])
        return found
    return None if hdu.data is None else np.ascontiguousarray(hdu.data, hdu.data.dtype.newbyteorder("="))
