"""Results of SPARCL, NOIRLab's service of DESI, SDSS and BOSS spectra: ``client.retrieve(...)``, in memory.

Fields: https://astrosparcl.datalab.noirlab.edu/sparc/sfc/ . Ask for flux, wavelength, ivar, mask, wave_sigma, specid, data_release, spectype, redshift, ra, dec.

wavelength: Angstrom, vacuum, heliocentric, the object's velocity still in. flux: 1e-17 erg / (s cm2 Angstrom). DESI: the arms are coadded, 0.8 A a pixel.
SDSS and BOSS: 1e-4 in log10(wave), every record its own range; they are put on one grid, masked where a record has no pixel. wave_sigma, the
sigma of the line spread: for SDSS and BOSS in pixels (it is the survey's wdisp), for DESI read as Angstrom, which the service does not say
but the instrument's R of 2000-5500 bears out. mask: the survey's own bits. spectype is of the survey's pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataFileError
from ..spectra import SpectraSet
from . import desi, sdss
from .assembly import CGS, assemble, flags
from .container import Source

NEEDED = ("flux", "wavelength", "ivar", "mask", "wave_sigma", "data_release", "spectype")
SURVEYS = {"DESI": "desi", "SDSS": "sdss", "BOSS": "sdss"}
HERE = Source(Path("SPARCL results"), "", b"")
LABELS = {"ra": "deg", "dec": "deg", "redshift": "", "redshift_err": ""}


def is_results(source: object) -> bool:
    """True for what ``client.retrieve`` returns, or the list of its records."""
    records = getattr(source, "records", source)
    return isinstance(records, Sequence) and not isinstance(records, str) and len(records) > 0 and all(isinstance(r, Mapping) for r in records)


def read(results: object) -> SpectraSet:
    """All records, (n, n_pix), of one survey.

    Raises
    ------
    DataFileError
        A record lacks a field, arrays of different lengths, two surveys, or wavelengths that fit no common grid.
    """
    records = list(getattr(results, "records", results))
    missing = sorted({name for name in NEEDED for record in records if record.get(name) is None})
    if missing:
        raise DataFileError(f"The SPARCL records lack {', '.join(missing)}; ask for it: client.retrieve(..., include=[..., {', '.join(map(repr, missing))}]).")
    found = {SURVEYS.get(str(record["data_release"]).split("-")[0].upper(), str(record["data_release"])) for record in records}
    if len(found) > 1 or not found <= set(SURVEYS.values()):
        raise DataFileError(f"The SPARCL records are of {', '.join(sorted(found))}; expected one of {', '.join(sorted(set(SURVEYS.values())))}. Read them survey "
                            "by survey, and concatenate after normalising.")
    survey = found.pop()
    wave, arrays, empty = _gridded(records)
    bad = flags(arrays["mask"], desi.BITS) if survey == "desi" else flags(arrays["mask"], sdss.BITS, sdss.HARMLESS)
    sigma = np.ma.median(np.ma.masked_where(empty | ~(arrays["wave_sigma"] > 0), arrays["wave_sigma"]), axis=0).filled(np.nan)
    pixels = np.flatnonzero(np.isfinite(sigma))
    if not pixels.size:
        raise DataFileError("wave_sigma of the SPARCL records is nowhere positive. Retrieve them anew.")
    sigma = np.interp(np.arange(wave.size), pixels, sigma[pixels])
    resolution = wave / (desi.FWHM * sigma) if survey == "desi" else sdss.resolving_power(sigma, HERE)
    return assemble(HERE, wave, arrays["flux"], arrays["ivar"], {**bad, "no pixel in this record": empty}, _labels(records), survey=survey,
                    frame="heliocentric", resolution=resolution, flux_unit=CGS,
                    origin=f"SPARCL, {', '.join(sorted({str(r['data_release']) for r in records}))}; https://astrosparcl.datalab.noirlab.edu")


def _gridded(records):
    """One grid for all records: their own if it is the same, else the lattice of 1e-4 in log10(wave) that SDSS uses; and True where a record has none."""
    names = ("flux", "ivar", "mask", "wave_sigma")
    rows = [{name: np.asarray(record[name], "f8") for name in ("wavelength", *names)} for record in records]
    for i, row in enumerate(rows):
        lengths = {name: value.shape for name, value in row.items()}
        if len(set(lengths.values())) > 1 or row["wavelength"].ndim != 1 or row["wavelength"].size < 2:
            raise DataFileError(f"SPARCL record {i} has arrays of different lengths: {', '.join(f'{n} {s}' for n, s in lengths.items())}. Retrieve it anew.")
    first = rows[0]["wavelength"]
    if all(row["wavelength"].shape == first.shape and np.allclose(row["wavelength"], first, rtol=1e-8, atol=0) for row in rows):
        return first, {name: np.stack([row[name] for row in rows]) for name in names}, np.zeros((len(rows), first.size), bool)
    start = min(np.log10(row["wavelength"][0]) for row in rows)
    at = [(np.log10(row["wavelength"]) - start) / sdss.STEP for row in rows]
    worst = max(np.abs(a - np.round(a)).max() for a in at)
    if not worst < 0.1:
        raise DataFileError(f"The SPARCL records have wavelengths on no common grid of {sdss.STEP} in log10 (off by up to {worst:.2f} pixels). Read them one by "
                            "one, normalise them onto one grid, and concatenate.")
    index = [np.round(a).astype(int) for a in at]
    shape = (len(rows), max(i[-1] for i in index) + 1)
    arrays, empty = {name: np.zeros(shape) for name in names}, np.ones(shape, bool)
    for k, (row, pixels) in enumerate(zip(rows, index, strict=True)):
        empty[k, pixels] = False
        for name in names:
            arrays[name][k, pixels] = row[name]
    return 10 ** (start + sdss.STEP * np.arange(shape[1])), arrays, empty


def _labels(records):
    said = "SPARCL {}".format
    key = next((key for key in ("targetid", "specid", "sparcl_id") if all(record.get(key) is not None for record in records)), None)
    if key is None:
        raise DataFileError("The SPARCL records have neither targetid nor specid nor sparcl_id; ask for one of them, so that the stars have names.")
    labels = {"star": ([str(record[key]) for record in records], None, said(key)),
              "object_class": ([str(record["spectype"]).lower() for record in records], None, said("spectype, of the survey's pipeline"))}
    for name, unit in LABELS.items():
        if any(record.get(name) is not None for record in records):
            values = [np.nan if record.get(name) is None else float(record[name]) for record in records]
            labels[name.replace("redshift", "z")] = (values, unit, said(name))
    return labels
