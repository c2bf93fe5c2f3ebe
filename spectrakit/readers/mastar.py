"""MaStar, the stellar library of SDSS-IV MaNGA: ``mastar-goodspec-*.fits``, one row a visit.

Data model: https://data.sdss.org/datamodel/files/MANGA_SPECTRO_MASTAR/DRPVER/MPROCVER/mastar-goodspec-DRPVER-MPROCVER.html

WAVE in Angstrom, vacuum; FLUX in 1e-17 erg / (s cm2 Angstrom); IVAR; MASK, 0 = good; DISP = sigma of the line spread in Angstrom. The spectra are in the
rest frame: HELIOV, the star's velocity, is taken out (Balmer and Ca II lines of DR17 spectra are at rest to a few km/s whatever HELIOV is). Fluxes
are corrected for the atmosphere, not for interstellar extinction. Stellar parameters are in separate files; INPUT_* columns, where present, are
the target's literature values.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from ..errors import DataFileError
from ..spectra import SpectraSet
from .assembly import CGS, assemble
from .container import ANEW, Source, same_shape
from .hdus import Hdu, columns

NAME = "MaStar goodspec"
PAGE = "https://data.sdss.org/datamodel/files/MANGA_SPECTRO_MASTAR/DRPVER/MPROCVER/mastar-goodspec-DRPVER-MPROCVER.html"
SPECTRA = ("wave", "flux", "ivar", "mask", "disp")
FWHM = 2 * np.sqrt(2 * np.log(2))
MISSING = -900.0  # -999 in most columns, -9999 in some


def matches(hdus: list[Hdu]) -> bool:
    """True for a table of MaNGA ids with spectra."""
    return _table(hdus) is not None


def read(hdus: list[Hdu], source: Source) -> SpectraSet:
    """All visits, (n, n_pix). Every pixel with MASK other than 0 is unusable; ``resolution`` is from the median DISP of the visits.

    Raises
    ------
    DataFileError
        A column is missing, or the visits have different wavelengths.
    """
    found = _table(hdus)
    wave, flux, ivar, mask, disp = (np.atleast_2d(np.asarray(column)) for column in columns(found, SPECTRA, source))
    same_shape(source, wave=wave, flux=flux, ivar=ivar, mask=mask, disp=disp)
    if not np.allclose(wave, wave[:1], rtol=1e-8, atol=0):
        raise DataFileError(f"{source.path.name}: its rows have different wavelengths; MaStar has one grid. {ANEW}")
    sigma = np.ma.median(np.ma.masked_where(~(np.isfinite(disp) & (disp > 0)), disp), axis=0).filled(np.nan)
    pixels = np.flatnonzero(np.isfinite(sigma))
    if not pixels.size:
        raise DataFileError(f"{source.path.name}: DISP, the width of the line spread, is nowhere positive. {ANEW}")
    fwhm = FWHM * np.interp(np.arange(sigma.size), pixels, sigma[pixels])
    return assemble(source, wave[0], flux, ivar, {"MASK": mask != 0}, _labels(found, source), survey="mastar", frame="rest", resolution=wave[0] / fwhm,
                    origin=f"MaStar; {PAGE}", flux_unit=CGS, label_scale="MaStar INPUT columns: literature, various")


def _table(hdus):
    return next((u.data for u in hdus if isinstance(u.data, Table) and {"mangaid", "wave", "flux", "ivar"} <= set(u.data.colnames)), None)


def _labels(found, source):
    said = "MaStar {}".format
    (mangaid,) = columns(found, ("mangaid",), source)
    labels = {"star": (np.char.strip(np.asarray(mangaid, str)), None, said("MANGAID")),
              "object_class": (["star"] * len(found), None, "MaStar observes stars only")}
    for name, unit, names in (("ra", "deg", ("objra", "ra")), ("dec", "deg", ("objdec", "dec")), ("rv", "km/s", ("heliov",)), ("rv_err", "km/s", ("verr",)),
                              ("snr", "", ("s2n",)), ("teff", "K", ("input_teff",)), ("logg", "dex", ("input_logg",)), ("feh", "dex", ("input_fe_h",))):
        column = next((c for c in names if c in found.colnames), None)
        if column:
            value = np.asarray(found[column], "f8")
            labels[name] = (np.where(value < MISSING, np.nan, value), unit, said(column.upper()))
    for name in ("plate", "ifudesign", "mjd", "mjdqual", "v_errcode"):
        if name in found.colnames:
            labels[name] = (np.asarray(found[name]), None, said(name.upper() + (", bits of MASTAR_QUAL; 0 = no problem known" if name == "mjdqual" else "")))
    return labels
