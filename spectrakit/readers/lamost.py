"""LAMOST low-resolution spectra (LRS), one star a file.

Data model: http://www.lamost.org/dr9/v2.0/doc/lr-data-production-description ; pilot survey: https://www.lamost.org/public/dr/algorithms/ff

- Image layout (pilot survey to DR7, early DR8): the primary unit is 5 x n_pix: flux, inverse variance, wavelength, and-mask, or-mask. In pilot files the
  third row is the flux over a continuum, and wavelengths are in the header only.
- Table layout (later releases): the unit COADD has one row with FLUX, IVAR, WAVELENGTH, ANDMASK, ORMASK, each of n_pix.

Wavelengths: log10(wave) = COEFF0 + i COEFF1, in vacuum (VACUUM) and heliocentric (HELIO), the star's velocity still in. Flux: relative, no absolute
calibration; its unit is arbitrary, and so is that of 1 / sqrt(ivar). Resolution: R = 1800 with the slit at 2/3, R = 1000 with the full slit (Zhao
et al. 2012, RAA 12, 723). Padding: flux exactly 0 means no data, whatever ivar says there. Not in the file: stellar parameters; they are in
the release's catalogues, by OBSID.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from ..errors import DataFileError
from ..spectra import SpectraSet
from .assembly import assemble, flags
from .container import ANEW, Source, same_shape
from .hdus import Hdu, columns, first, log_grid, whole

NAME = "LAMOST LRS"
PAGE = "http://www.lamost.org/dr9/v2.0/doc/lr-data-production-description"
BITS = {"BADCCD": 0, "BADPROFILE": 1, "NOSKY": 2, "BRIGHTSKY": 3, "BADCENTER": 4, "NODATA": 5}
POWER = {"x2/3": 1800.0, "x1": 1000.0}
ROWS = ("flux", "ivar", "wavelength", "andmask", "ormask")
NO_OBJECT = ("SKY", "UNUSED", "POSERR", "DEAD")


def matches(hdus: list[Hdu]) -> bool:
    """True for a file of the LAMOST telescope."""
    return hdus[0].header.get("TELESCOP") == "LAMOST"


def read(hdus: list[Hdu], source: Source) -> SpectraSet:
    """One spectrum, (1, n_pix). Every flag of the and-mask (bad in all exposures) is unusable; the or-mask is not used.

    Raises
    ------
    DataFileError
        Neither of the two layouts (medium-resolution files have another), wavelengths that contradict the header, or not heliocentric.
    """
    header = hdus[0]
    rows = _rows(hdus, source)
    same_shape(source, **rows)
    wave = log_grid(header, "COEFF0", "COEFF1", rows["flux"].shape[1], source)
    _check_header(header, rows["wavelength"][0], wave, source)
    slit = header.header.get("SLIT_MOD")
    if slit not in POWER:
        raise DataFileError(f"{source.path.name}: SLIT_MOD is {slit!r}; resolving powers are known for {', '.join(POWER)}. Read it by columns instead, "
                            "stating the resolution (docs/readers.md).")
    release = header.header.get("DATA_V", "")
    bad = flags(rows["andmask"], BITS) if release else {"ANDMASK": rows["andmask"] != 0}
    return assemble(source, wave, rows["flux"], rows["ivar"], {**bad, "flux is 0 (no data)": rows["flux"] == 0}, _labels(header, source),
                    survey="lamost_lrs", frame="heliocentric", medium="vacuum" if header.header["VACUUM"] else "air", flux_unit="relative",
                    resolution=np.full(wave.size, POWER[slit]), origin=f"{release or 'LAMOST'}, low resolution; {PAGE}")


def _rows(hdus, source):
    """The five arrays by name, each (1, n_pix)."""
    image = hdus[0].data
    found = next((unit.data for unit in hdus[1:] if isinstance(unit.data, Table) and {"flux", "andmask"} <= set(unit.data.colnames)), None)
    if isinstance(image, np.ndarray) and image.ndim == 2 and len(image) == 5:
        rows = {name: image[i : i + 1] for i, name in enumerate(ROWS)}
    elif found is not None and len(found) == 1:
        rows = {name: np.asarray(column).reshape(1, -1) for name, column in zip(ROWS, columns(found, ROWS, source), strict=True)}
    else:
        raise DataFileError(f"{source.path.name} is a LAMOST file, but has neither a 5 x n_pix image nor a one-row table with FLUX and ANDMASK; units: "
                            f"{', '.join(unit.name for unit in hdus)}. Medium-resolution spectra are not read by this kit.")
    if not np.isfinite(rows["andmask"]).all():
        raise DataFileError(f"{source.path.name}: the and-mask is not finite. {ANEW}")
    return rows


def _check_header(unit, stored, wave, source):
    for key in ("VACUUM", "HELIO"):
        if not isinstance(unit.header.get(key), bool):
            raise DataFileError(f"{source.path.name}: header keyword {key} is {unit.header.get(key)!r}; expected T or F. {ANEW}")
    if not unit.header["HELIO"]:
        raise DataFileError(f"{source.path.name}: HELIO = F, the wavelengths are not heliocentric. Correct them for the Earth's motion first.")
    pilot = "ubcontinuum" in str(unit.header.get("EXTEN0"))
    if not pilot and not np.allclose(stored, wave, rtol=3e-6, atol=0):
        raise DataFileError(f"{source.path.name}: its wavelengths ({stored[0]:.2f}-{stored[-1]:.2f} A) and its header ({wave[0]:.2f}-{wave[-1]:.2f} A by COEFF0, "
                            f"COEFF1) disagree. {ANEW}")


def _labels(unit, source):
    text = lambda key: str(unit.header.get(key, ""))                                                                   # noqa: E731
    said = "LAMOST header {}".format
    kind = text("FIBERTYP").upper()
    found = "sky" if kind == "SKY" else "no object" if kind in NO_OBJECT or text("OBS_TYPE").upper() != "OBJ" else text("CLASS").lower()
    labels = {"star": ([text("DESIG").removeprefix("LAMOST ")], None, said("DESIG: the position, so the same for all spectra of a star")),
              "object_class": ([found], None, said("CLASS, FIBERTYP, OBS_TYPE")), "subclass": ([text("SUBCLASS")], None, said("SUBCLASS, LAMOST pipeline")),
              "obsid": ([whole(unit, "OBSID", 0)], None, said("OBSID; 0 where the release had none")),
              "objtype": ([text("OBJTYPE")], None, said("OBJTYPE, from the input catalogue"))}
    for name, keys, unit_ in (("ra", ("RA",), "deg"), ("dec", ("DEC",), "deg"), ("z", ("Z",), ""), ("z_err", ("Z_ERR",), ""),
                              *((f"snr_{b}", (f"SNR{b.upper()}", f"SN_{b.upper()}"), "") for b in "ugriz")):
        labels[name] = ([first(unit, keys)], unit_, said(keys[0] + (", LAMOST pipeline" if name not in ("ra", "dec") else "")))
    return labels
