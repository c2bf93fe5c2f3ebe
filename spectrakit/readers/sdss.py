"""SDSS, BOSS and eBOSS optical spectra: ``spec-PLATE-MJD-FIBER.fits`` (full and lite), one object a file.

Data model: https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html ; mask: https://www.sdss4.org/dr17/algorithms/bitmasks

Unit COADD: flux in 1e-17 erg / (s cm2 Angstrom), loglam = log10 of the vacuum wavelength in Angstrom, ivar, and_mask, or_mask, wdisp = sigma of the line
spread in pixels of 1e-4 in log10(wave). Heliocentric, the object's velocity still in. Unit SPECOBJ or SPALL: class, redshift and the ELODIE
template that fits best; that template's parameters are coarse and no measurement of the star. SSPP parameters are not in the file.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from ..errors import DataFileError
from ..spectra import SpectraSet
from .assembly import CGS, assemble, flags
from .container import ANEW, Source
from .hdus import Hdu, columns

NAME = "SDSS spec"
PAGE = "https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html"
BITS = {"NOPLUG": 0, "BADTRACE": 1, "BADFLAT": 2, "BADARC": 3, "MANYBADCOLUMNS": 4, "MANYREJECTED": 5, "LARGESHIFT": 6, "BADSKYFIBER": 7, "NEARWHOPPER": 8,
        "WHOPPER": 9, "SMEARIMAGE": 10, "SMEARHIGHSN": 11, "SMEARMEDSN": 12, "DEADFIBER": 13, "NEARBADPIXEL": 16, "LOWFLAT": 17, "FULLREJECT": 18,
        "PARTIALREJECT": 19, "SCATTEREDLIGHT": 20, "CROSSTALK": 21, "NOSKY": 22, "BRIGHTSKY": 23, "NODATA": 24, "COMBINEREJ": 25, "BADFLUXFACTOR": 26,
        "BADSKYCHI": 27, "REDMONSTER": 28}
# Of the whole fibre and no reason to drop its pixels, or a warning whose effect is in ivar already; NODATA is deprecated in favour of ivar = 0.
HARMLESS = ("MANYBADCOLUMNS", "MANYREJECTED", "LARGESHIFT", "BADSKYFIBER", "NEARWHOPPER", "WHOPPER", "SMEARIMAGE", "SMEARHIGHSN", "SMEARMEDSN",
            "NEARBADPIXEL", "PARTIALREJECT", "SCATTEREDLIGHT", "CROSSTALK", "NODATA")
COADD = ("flux", "loglam", "ivar", "and_mask", "wdisp")
STEP = 1e-4  # of log10(wave), a pixel
FWHM = 2 * np.sqrt(2 * np.log(2))


def matches(hdus: list[Hdu]) -> bool:
    """True where the first extension is the table of a coadded SDSS spectrum."""
    return len(hdus) > 1 and isinstance(hdus[1].data, Table) and {"flux", "loglam", "ivar", "and_mask"} <= set(hdus[1].data.colnames)


def read(hdus: list[Hdu], source: Source) -> SpectraSet:
    """One spectrum, (1, n_pix). Unusable: flagged in all exposures (and_mask) as ``BITS`` without ``HARMLESS``.

    Raises
    ------
    DataFileError
        Columns or the summary unit are missing, or loglam is not the survey's grid of 1e-4.
    """
    flux, loglam, ivar, and_mask, wdisp = (np.asarray(column)[None] for column in columns(hdus[1].data, COADD, source))
    summary = next((u.data for u in hdus[2:] if isinstance(u.data, Table) and {"class", "z"} <= set(u.data.colnames) and len(u.data) == 1), None)
    if summary is None:
        raise DataFileError(f"{source.path.name} has no unit SPECOBJ or SPALL with class and z; units: {', '.join(u.name for u in hdus)}. {ANEW}")
    start = float(loglam[0, 0])
    grid = np.round(start / STEP, 1) * STEP + STEP * np.arange(loglam.shape[1])  # loglam is float32: 0.005 pixels of rounding
    if not np.abs(loglam[0] - grid).max() < 0.1 * STEP:
        raise DataFileError(f"{source.path.name}: loglam is not a grid of {STEP} from {start:.4f} on. {ANEW}")
    wave = 10**grid
    return assemble(source, wave, flux, ivar, flags(and_mask, BITS, HARMLESS), _labels(summary, hdus[0], source), survey="sdss", frame="heliocentric",
                    medium="air" if hdus[0].header.get("VACUUM") is False else "vacuum", resolution=resolving_power(wdisp[0], source),
                    origin=f"SDSS spec; {PAGE}", flux_unit=CGS, label_scale="ELODIE template of the SDSS pipeline")


def resolving_power(wdisp: np.ndarray, source: Source) -> np.ndarray:
    """wave / FWHM (n_pix,) from sigma in pixels of 1e-4 in log10(wave); pixels without one take their neighbours'."""
    pixels = np.flatnonzero(np.isfinite(wdisp) & (wdisp > 0))
    if not pixels.size:
        raise DataFileError(f"{source.path.name}: wdisp, the width of the line spread, is nowhere positive. {ANEW}")
    return 1 / (FWHM * STEP * np.log(10) * np.interp(np.arange(wdisp.size), pixels, wdisp[pixels]))


def _labels(summary, primary, source):
    said = "SDSS summary unit {}".format
    value = lambda name: summary[name][0] if name in summary.colnames else None                                         # noqa: E731
    here = "-".join(str(primary.header.get(key, value(name))) for key, name in (("PLATEID", "plate"), ("MJD", "mjd"), ("FIBERID", "fiberid")))
    thing = value("thing_id")
    known = thing is not None and thing > 0
    labels = {"star": ([str(thing) if known else here], None, said("THING_ID" if known else "lacks THING_ID: plate-mjd-fiber of this spectrum")),
              "object_class": ([str(value("class")).strip().lower()], None, said("CLASS")),
              "subclass": ([str(value("subclass") or "").strip()], None, said("SUBCLASS")), "spectrum": ([here], None, "plate-mjd-fiber")}
    for name, unit, names in (("ra", "deg", ("plug_ra", "ra")), ("dec", "deg", ("plug_dec", "dec")), ("z", "", ("z",)), ("z_err", "", ("z_err",)),
                              ("snr", "", ("sn_median_all", "sn_median"))):
        column = next((c for c in names if c in summary.colnames), None)
        found = np.ravel(summary[column][0]) if column else np.array([np.nan])
        labels[name] = (found[-1:] if found.size > 1 else found, unit, said(column.upper() if column else f"lacks {names[0].upper()}"))
    labels["zwarning"] = ([int(value("zwarning") or 0)], None, said("ZWARNING; 0 = no problem known"))
    fitted = (value("elodie_teff") or 0) > 0
    for name, unit in (("teff", "K"), ("logg", "dex"), ("feh", "dex")):
        labels[name] = ([float(value(f"elodie_{name}")) if fitted else np.nan], unit, said(f"ELODIE_{name.upper()}: of the best-fitting template, coarse"))
    return labels
