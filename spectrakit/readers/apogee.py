"""APOGEE combined spectra of SDSS-III and IV: ``apStar`` (flux) and ``aspcapStar`` (flux over pseudo-continuum), one star a file.

Data models: https://data.sdss.org/datamodel/files/APOGEE_REDUX/APRED_VERS/stars/TELESCOPE/FIELD/apStar.html (asStar: Las Campanas) and
https://data.sdss.org/datamodel/files/APOGEE_ASPCAP/APRED_VERS/ASPCAP_VERS/TELESCOPE/FIELD/aspcapStar.html ; mask: APOGEE_PIXMASK,
https://www.sdss4.org/dr17/algorithms/bitmasks

8575 pixels, log10(wave) = CRVAL1 + i CDELT1, vacuum, in the star's rest frame: the visits were shifted before they were combined. apStar: units 1, 2, 3 are
flux and error in 1e-17 erg / (s cm2 Angstrom) and the mask; row 0 is the combination weighted by pixel, row 1 another one, then the visits.
aspcapStar: units 1, 2, 3 are the normalised flux, its error and the best-fitting model, unit 4 a table with the parameters. Between the three
detectors there are no data (flux 0). R = 22500 (Majewski et al. 2017, AJ 154, 94); it varies by some 10 % between fibres.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from ..errors import DataFileError
from ..spectra import SpectraSet
from .assembly import CGS, assemble, flags
from .container import ANEW, Source, same_shape
from .hdus import Hdu, first, log_grid, whole

NAME = "APOGEE apStar or aspcapStar"
PAGE = "https://data.sdss.org/datamodel/files/APOGEE_REDUX/APRED_VERS/stars/TELESCOPE/FIELD/apStar.html"
ASPCAP = "https://data.sdss.org/datamodel/files/APOGEE_ASPCAP/APRED_VERS/ASPCAP_VERS/TELESCOPE/FIELD/aspcapStar.html"
BITS = {"BADPIX": 0, "CRPIX": 1, "SATPIX": 2, "UNFIXABLE": 3, "BADDARK": 4, "BADFLAT": 5, "BADERR": 6, "NOSKY": 7, "LITTROW_GHOST": 8, "PERSIST_HIGH": 9,
        "PERSIST_MED": 10, "PERSIST_LOW": 11, "SIG_SKYLINE": 12, "SIG_TELLURIC": 13, "NOT_ENOUGH_PSF": 14, "FERRE_MASK": 16}
HARMLESS = ("LITTROW_GHOST", "PERSIST_HIGH", "PERSIST_MED", "PERSIST_LOW", "SIG_SKYLINE", "SIG_TELLURIC", "FERRE_MASK")  # "may be affected", for the survey
N_PIX, POWER = 8575, 22500.0
BAD_ERROR = 1e10  # what the pipeline writes for no information
PARAM = {"teff": (0, "K"), "logg": (1, "dex"), "m_h": (3, "dex"), "alpha_m": (6, "dex")}


def matches(hdus: list[Hdu]) -> bool:
    """True for three images of 8575 pixels on APOGEE's grid."""
    images = [unit.data for unit in hdus[1:4]]
    return (len(images) == 3 and all(isinstance(image, np.ndarray) and image.shape[-1:] == (N_PIX,) for image in images)
            and first(hdus[1], ("CDELT1",)) == 6e-6)


def read(hdus: list[Hdu], source: Source) -> SpectraSet:
    """One spectrum, (1, 8575): of an apStar file the combination weighted by pixel. Unusable: ``BITS`` without ``HARMLESS``, which are the bits that the
    survey calls bad, no data (flux 0), and errors of 1e10 and more.

    Raises
    ------
    DataFileError
        A third unit that is neither a mask (whole numbers) nor a model with the parameter table behind it; header keywords that are missing.
    """
    combined = np.issubdtype(hdus[3].data.dtype, np.integer)
    flux, error, third = (np.atleast_2d(unit.data)[:1] for unit in hdus[1:4])
    same_shape(source, flux=flux, error=error, third=third)
    ivar = np.where(error > 0, 1 / np.asarray(error, "f8") ** 2, 0)
    bad = {**(flags(third, BITS, HARMLESS) if combined else {}), "flux is 0 (no data)": flux == 0, "error >= 1e10": ~(error < BAD_ERROR)}
    wave = log_grid(hdus[1], "CRVAL1", "CDELT1", N_PIX, source)
    about = {"survey": "apogee", "frame": "rest", "resolution": np.full(N_PIX, POWER)}
    if combined:
        return assemble(source, wave, flux, ivar, bad, _labels(hdus[0]), origin=f"APOGEE apStar; {PAGE}", flux_unit=CGS, **about)
    return assemble(source, wave, flux, ivar, bad, {**_labels(hdus[0]), **_parameters(hdus, source)}, origin=f"APOGEE aspcapStar; {ASPCAP}",
                    flux_unit="flux over pseudo-continuum", normalization="aspcap", label_scale="ASPCAP", **about)


def _labels(unit):
    said = "APOGEE header {}".format
    star = str(unit.header.get("OBJID", unit.header.get("APOGEE_ID", "")))
    labels = {"star": ([star], None, said("OBJID, the 2MASS name")), "object_class": (["star"], None, "APOGEE combines and fits stars only")}
    for name, key, unit_ in (("ra", "RA", "deg"), ("dec", "DEC", "deg"), ("snr", "SNR", ""), ("rv", "VHELIO", "km/s")):
        if key in unit.header:
            labels[name] = ([first(unit, (key,))], unit_, said(key))
    if "STARFLAG" in unit.header:
        labels["starflag"] = ([whole(unit, "STARFLAG", -1)], None, said("STARFLAG; 0 = no problem known"))
    return labels


def _parameters(hdus, source):
    found = next((u.data for u in hdus[4:] if isinstance(u.data, Table) and "param" in u.data.colnames and len(u.data) == 1), None)
    if found is None:
        raise DataFileError(f"{source.path.name}: its third unit is no mask (type {hdus[3].data.dtype}), so it is no apStar file; and no table with PARAM "
                            f"follows, so it is no aspcapStar file. {ANEW}")
    values = np.ravel(np.asarray(found["param"][0], "f8"))
    if values.size < 7:
        raise DataFileError(f"{source.path.name}: PARAM has {values.size} values; expected 7 or more: Teff, logg, log vmicro, [M/H], [C/M], [N/M], [alpha/M].")
    labels = {name: ([values[i] if values[i] > -9000 else np.nan], unit, f"ASPCAP PARAM[{i}], calibrated") for name, (i, unit) in PARAM.items()}
    if "fe_h" in found.colnames:
        value = float(found["fe_h"][0])
        labels["feh"] = ([value if value > -90 else np.nan], "dex", "ASPCAP FE_H")
    for name in ("apogee_id", "aspcapflag"):
        if name in found.colnames:
            value = found[name][0]
            labels["star" if name == "apogee_id" else name] = ([value.strip() if isinstance(value, str) else value], None, f"ASPCAP {name.upper()}")
    return labels
