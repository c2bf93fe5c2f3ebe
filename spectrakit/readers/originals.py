"""A library from its own public files: fetched, checked, and brought to the arrays that ``archive`` gives a meaning.

MILES v9.1 as sdss/mangadap has it: one FITS image a star (4300 pixels, linear wavelengths by CRVAL1, CDELT1) and the table paramsMILES_v9.1.txt in columns of fixed
width; a number printed "022." there is 0221. STELIB v3.2: one FITS image a star, each with its own linear wavelengths, brought to 1 Angstrom by linear
interpolation. The stellar labels of STELIB are in header keywords that could not be checked, and are left out; those of MILES are in the table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import DataFileError
from ..manifests import Manifest
from ..spectra import SpectraSet
from . import container, fetch, hdus, native

VERSION = 1  # of what is made of the files; a new one makes cached sets again
PARAMS = "paramsMILES_v9.1.txt"
COLUMNS = {"name": slice(0, 22), "miles_id": slice(22, 28), "sptype": slice(36, 51), "teff": slice(51, 57), "logg": slice(57, 65), "feh": slice(65, 73),
           "label_refs": slice(73, 79)}
STELIB_WAVE = np.arange(3205.0, 9894.5)
NUMBERS = ("ra", "dec", "teff", "logg", "feh", "rv", "av", "vmag")  # in the headers of STELIB, see above


def read(manifest: Manifest, assemble: Callable[[dict, list[str]], SpectraSet]) -> SpectraSet:
    """The set that ``assemble(arrays, notes)`` makes of the manifest's public files; kept in the cache folder, so that the second call reads one file.

    Raises
    ------
    DataFileError
        As ``fetch.fetch_all``; or a file of another layout.
    """
    entries = manifest.public()
    digest = hashlib.sha256(repr((VERSION, manifest, entries)).encode()).hexdigest()
    kept = fetch.folder() / manifest.name / f"{manifest.name}-{digest[:12]}.safetensors"
    if kept.is_file():
        try:
            return native.read(kept)
        except DataFileError:  # a damaged copy of what can be made again
            kept.unlink(missing_ok=True)
    paths = fetch.fetch_all(manifest, entries)
    make, note = FORMATS[manifest.originals["format"]]
    return native.read(assemble(make(paths), [f"made of {len(paths)} public files: {note}"]).write(kept))


def miles(paths: list[Path]) -> dict[str, np.ndarray]:
    """``wave`` (n_pix,), ``flux`` (n, n_pix) and the columns of the parameter table, in the order of the stars' numbers."""
    table = parameters(next(path for path in paths if path.name == PARAMS))
    rows = {}
    for path in paths:
        if found := re.fullmatch(r"MILES_res2.50_star_m(\d{4})V.fits", path.name):
            rows[int(found[1])] = _image(path)
    numbers = sorted(rows)
    unknown = [number for number in numbers if number not in table]
    if unknown:
        raise DataFileError(f"{PARAMS} has no star {unknown[0]:04d}, of which there is a spectrum. {container.ANEW}")
    wave = rows[numbers[0]][0]
    for number in numbers:
        if not np.array_equal(rows[number][0], wave):
            raise DataFileError(f"The spectrum of star {number:04d} has other wavelengths than that of star {numbers[0]:04d}. {container.ANEW}")
    columns = {name: np.array([table[number][name] for number in numbers]) for name in next(iter(table.values()))}
    return {"wave": wave, "flux": np.stack([rows[number][1] for number in numbers]), "miles_id": np.array(numbers), **columns}


def parameters(path: Path) -> dict[int, dict]:
    """Rows of paramsMILES_v9.1.txt by the star's number: ``name``, ``key``, ``sptype``, ``teff``, ``logg``, ``feh`` (NaN where "--"), ``label_refs``."""
    found = {}
    for line in path.read_text("latin-1").splitlines():
        cells = {name: line[place].strip() for name, place in COLUMNS.items()}
        number = "0221" if cells["miles_id"] == "022." else cells.pop("miles_id")
        if not re.fullmatch(r"\d{4}", number):
            continue
        cells.pop("miles_id", None)
        try:
            numbers = {name: float(cells[name].replace("--", "nan") or "nan") for name in ("teff", "logg", "feh")}
        except ValueError as error:
            raise DataFileError(f"{path.name}: the row of star {number} is not in the table's columns ({error}). {container.ANEW}") from error
        found[int(number)] = {**cells, **numbers, "key": key(cells["name"])}
    if not found:
        raise DataFileError(f"{path.name} has no row with a star's number in columns 23-28. {container.ANEW}")
    return found


def stelib(paths: list[Path]) -> dict[str, np.ndarray]:
    """``wave``, ``flux`` (NaN where there are no data) and ``name``, ``key`` from the files' names."""
    names, flux = [], []
    for path in paths:
        wave, values = _image(path)
        names.append(path.name.removeprefix("STELIB_v3.2_").removesuffix(".fits"))
        good = np.where(values > 0, values, np.nan)
        flux.append(np.interp(STELIB_WAVE, wave, good, left=np.nan, right=np.nan))
    nothing = {name: np.full(len(names), np.nan) for name in NUMBERS}
    return {"wave": STELIB_WAVE, "flux": np.stack(flux), "name": np.array(names), "key": np.array([key(name) for name in names]),
            "sptype": np.full(len(names), ""), **nothing}


def key(name: str) -> str:
    """A star's name without padding, as the label files have it: HD000004 is HD4, BD+130013 is BD+13_13."""
    if found := re.fullmatch(r"HD0*(\d+)([AB]?)", name):
        return f"HD{found[1]}{found[2]}"
    if found := re.fullmatch(r"([BC]D[+-]\d\d)0*(\d+)([AB]?)", name):
        return f"{found[1]}_{found[2]}{found[3]}"
    return name.replace(" ", "").upper()


def _image(path: Path):
    """Wavelengths and flux, both (n_pix,), of a file with one image."""
    unit = hdus.read(container.load(path))[0]
    start, step, pixel = (hdus.first(unit, (name,)) for name in ("CRVAL1", "CDELT1", "CRPIX1"))
    flux = np.squeeze(unit.data) if isinstance(unit.data, np.ndarray) else np.zeros(0)
    if flux.ndim != 1 or flux.size < 2 or not (1000 < start < 30000 and 0 < step < 10):
        raise DataFileError(f"{path.name}: expected one image with a row of pixels and CRVAL1, CDELT1 in Angstrom; found an image of {flux.shape}, CRVAL1 {start}, "
                            f"CDELT1 {step}. {container.ANEW}")
    return start + step * (np.arange(flux.size) + 1 - (1 if np.isnan(pixel) else pixel)), flux.astype("f4")


FORMATS = {"miles": (miles, "the spectra as published, labels of paramsMILES_v9.1.txt"),
           "stelib": (stelib, "brought to 1 Angstrom; the headers' stellar labels are left out")}
