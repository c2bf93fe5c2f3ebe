"""Which reader a file is for, decided by what is in it. The readers are listed here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataFileError, SpectrakitError, SpectrumError
from ..objects import counts, is_star
from ..spectra import SpectraSet
from . import apogee, container, desi, gaia, hdus, lamost, mastar, native, sdss, tables

SURVEYS = (lamost, desi, sdss, mastar, apogee)  # each has NAME, matches(hdus), read(hdus, source)
FORMATS = (*(survey.NAME for survey in SURVEYS), gaia.NAME, "plain CSV or npz with stated units", "the kit's own .safetensors")


def read(path: Path, stated: Mapping) -> SpectraSet:
    """The spectra of a file, whatever its name; ``stated`` is for plain tables only.

    Raises
    ------
    DataFileError
        Missing, damaged, of no known format, or something was stated of a file that states it itself.
    """
    if path.suffix == ".safetensors":  # a file of ours that is damaged beyond recognition is still best explained as such
        return native.read(path)
    source = container.load(path)
    kind = container.kind(source)
    if kind == "safetensors":
        return native.read(path)
    if kind == "npz":
        return tables.read(source, container.arrays(source), dict(stated))
    if kind == "fits":
        reader, content = _survey(hdus.read(source), source)
    else:
        content = container.table(source, kind)
        if not gaia.matches(content):
            return tables.read(source, {name: content[name] for name in content.colnames}, dict(stated))
        reader = gaia
    if stated:
        raise DataFileError(f"{path.name} is {reader.NAME}, which states units, medium and frame itself; leave out {', '.join(stated)}.")
    return _sound(reader, content, source)


def stars_only(spectra: SpectraSet, name: str) -> SpectraSet:
    """``spectra`` if all of them are stars as far as is known; ``SpectrumError`` with the classes otherwise."""
    other = ~is_star(spectra)
    if other.any():
        raise SpectrumError(f"{other.sum()} of {len(spectra)} objects in {name} are no stars ({counts(spectra)}), and the kit's models and labels are of stars. "
                            "read(..., objects=\"all\") keeps them, marked in labels['object_class']; then choose: "
                            "spectra[spectra.labels['object_class'] == 'star'].")
    return spectra


def _sound(reader, content, source):
    """What the reader makes of the content; values of another kind than the data model says become an error with the file's name."""
    try:
        with np.errstate(all="ignore"):  # numbers of a damaged file may overflow; SpectraSet looks at what comes out
            return reader.read(content, source)
    except SpectrakitError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise DataFileError(f"{source.path.name} looks like {reader.NAME}, but holds values of another kind than its data model says ({error}). "
                            f"{container.ANEW}") from error


def _survey(found, source):
    """(reader, what it reads) of a FITS file's units."""
    matching = [(survey, found) for survey in SURVEYS if survey.matches(found)]
    xp = gaia.find(found)
    matching += [(gaia, xp)] if xp is not None else []
    if len(matching) != 1:
        what = f"looks like {' and '.join(survey.NAME for survey, _ in matching)} at once" if matching else "is none of " + ", ".join(FORMATS)
        raise DataFileError(f"{source.path.name} is a FITS file that {what}; its units: {', '.join(unit.name or '(unnamed)' for unit in found)}. Other spectra "
                            "become a SpectraSet through specutils: read(Spectrum.read(path), labels=..., survey=..., ...), docs/readers.md.")
    return matching[0]
