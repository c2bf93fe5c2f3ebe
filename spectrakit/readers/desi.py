"""DESI coadd and spectra files: many fibres a file, three arms, merged here onto one grid.

Data model: https://desidatamodel.readthedocs.io/en/latest/DESI_SPECTRO_REDUX/SPECPROD/healpix/SURVEY/PROGRAM/PIXGROUP/PIXNUM/coadd-SURVEY-PROGRAM-PIXNUM.html
and .../spectra-SURVEY-PROGRAM-PIXNUM.html (one row an exposure instead of a target).

Per arm X of B, R, Z (or BRZ, merged already): X_WAVELENGTH (n_pix) in Angstrom, vacuum, corrected to the Sun's rest frame; X_FLUX, X_IVAR (n, n_pix)
in 1e-17 erg / (s cm2 Angstrom); X_MASK; X_RESOLUTION (n, n_diag, n_pix), the diagonals of the matrix that spreads a line over pixels. The star's velocity
is still in. Not in the file: a spectral class or redshift (redrock files have them). What ``object_class`` gives is what the fibre was targeted as.
"""

from __future__ import annotations

import re

import numpy as np

from ..errors import DataFileError
from ..spectra import SpectraSet
from .assembly import CGS, assemble, flags
from .container import ANEW, Source, same_shape
from .hdus import Hdu, columns, named

NAME = "DESI coadd or spectra"
PAGE = "https://desidatamodel.readthedocs.io/en/latest/DESI_SPECTRO_REDUX/SPECPROD/healpix/SURVEY/PROGRAM/PIXGROUP/PIXNUM/coadd-SURVEY-PROGRAM-PIXNUM.html"
BITS = {"SOMEBADPIX": 0, "ALLBADPIX": 1, "COSMIC": 2, "LOWFLAT": 3, "BADFIBERFLAT": 4, "BRIGHTSKY": 5, "BADSKY": 6, "BAD2DFIT": 7, "NODATA": 8, "BADFIBER": 9}
FWHM = 2 * np.sqrt(2 * np.log(2))
STANDARD = (1 << 33) | (1 << 34) | (1 << 35)  # STD_FAINT, STD_WD, STD_BRIGHT of DESI_TARGET
MWS_ANY, BGS_ANY, QSO, LRG_ELG, SKY = 1 << 61, 1 << 60, 1 << 2, 0b11, 1 << 32


def matches(hdus: list[Hdu]) -> bool:
    """True for a file with a fibre map and at least one arm."""
    names = {unit.name for unit in hdus}
    return "FIBERMAP" in names and bool(_arms(names))


def read(hdus: list[Hdu], source: Source) -> SpectraSet:
    """All fibres, (n, n_pix), the arms merged: where two overlap, the mean weighted by ``ivar``, as the survey's own coaddition does it.

    Any bit of the mask makes a pixel of an arm unusable, as in that coaddition; after merging a pixel is masked when no arm has it.
    ``resolution`` is wave / FWHM of the Gaussian with the peak and area of the resolution matrix's columns, the median over the fibres
    and in overlaps the mean of the arms.

    Raises
    ------
    DataFileError
        An arm without flux, ivar, mask or resolution; arms that are not on one lattice of wavelengths; rows that do not fit the fibre map.
    """
    fibermap = named(hdus, "FIBERMAP", source).data
    arms = [_arm(hdus, name, source) for name in _arms({unit.name for unit in hdus})]
    for arm in arms:
        if len(arm["flux"]) != len(fibermap):
            raise DataFileError(f"{source.path.name}: {len(fibermap)} rows in FIBERMAP for {len(arm['flux'])} spectra. {ANEW}")
    wave, index = _lattice([arm["wave"] for arm in arms], source)
    shape = (len(fibermap), wave.size)
    ivar, weighted, width, count = np.zeros(shape), np.zeros(shape), np.zeros(wave.size), np.zeros(wave.size)
    bad = {name: np.zeros(shape, bool) for name in arms[0]["bad"]}
    for arm, pixels in zip(arms, index, strict=True):
        good = np.isfinite(arm["flux"]) & np.isfinite(arm["ivar"]) & (arm["ivar"] > 0) & ~np.any(list(arm["bad"].values()), axis=0)
        ivar[:, pixels] += np.where(good, arm["ivar"], 0)
        weighted[:, pixels] += np.where(good, arm["ivar"] * np.where(good, arm["flux"], 0), 0)
        width[pixels] += arm["fwhm"]
        count[pixels] += 1
        for name, flagged in arm["bad"].items():
            bad[name][:, pixels] |= flagged
    none, covered = ivar == 0, np.flatnonzero(count)  # one good arm is enough
    flux = weighted / np.where(none, 1, ivar)
    note = f"arms {', '.join(arm['name'] for arm in arms)} merged on one grid, weighted by ivar in overlaps"
    return assemble(source, wave, flux, ivar, {name: flagged & none for name, flagged in bad.items()}, _labels(hdus, fibermap, source), survey="desi",
                    frame="heliocentric", resolution=wave / np.interp(np.arange(wave.size), covered, width[covered] / count[covered]),
                    origin=f"DESI; {PAGE}", flux_unit=CGS, notes=(note,))


def _arms(names):
    found = {match[1] for name in names if (match := re.fullmatch(r"(B|R|Z|BRZ)_FLUX", name))}
    return [arm for arm in ("B", "R", "Z", "BRZ") if arm in found]


def _arm(hdus, name, source):
    wave, flux, ivar, mask, resolution = (named(hdus, f"{name}_{part}", source).data for part in ("WAVELENGTH", "FLUX", "IVAR", "MASK", "RESOLUTION"))
    same_shape(source, **{f"{name}_FLUX": flux, f"{name}_IVAR": ivar, f"{name}_MASK": mask})
    if flux.ndim != 2 or wave.shape != flux.shape[1:] or resolution.ndim != 3 or (len(resolution), resolution.shape[2]) != flux.shape:
        raise DataFileError(f"{source.path.name}: arm {name} has wavelengths {wave.shape}, flux {flux.shape}, resolution {resolution.shape}; expected (n_pix,), "
                            f"(n, n_pix), (n, n_diag, n_pix). {ANEW}")
    if not (np.isfinite(wave).all() and (np.diff(wave) > 0).all()):
        raise DataFileError(f"{source.path.name}: {name}_WAVELENGTH does not increase. {ANEW}")
    return {"name": name, "wave": wave, "flux": flux.astype("f8"), "ivar": ivar.astype("f8"), "bad": flags(mask, BITS), "fwhm": _fwhm(wave, resolution, source)}


def _fwhm(wave, resolution, source):
    """FWHM (n_pix,) in Angstrom. Each column of the matrix is how a line at that pixel is spread: a Gaussian to a few per cent, with noise in the wings."""
    area, peak = resolution.sum(axis=1, dtype="f8"), resolution[:, resolution.shape[1] // 2].astype("f8")
    good = np.isfinite(area) & np.isfinite(peak) & (peak > 0.05) & (np.abs(area - 1) < 0.3)
    pixels = np.flatnonzero(good.any(axis=0))
    if not pixels.size:
        raise DataFileError(f"{source.path.name}: no usable resolution matrix at all. {ANEW}")
    sigma = np.ma.median(np.ma.masked_where(~good, area / np.where(good, peak, 1)), axis=0).filled(np.nan) / np.sqrt(2 * np.pi)
    return FWHM * np.interp(np.arange(wave.size), pixels, sigma[pixels]) * np.gradient(wave)


def _lattice(waves, source):
    """The union of the arms' pixels, and per arm where its own lie in it."""
    start, step = min(wave[0] for wave in waves), float(np.median(np.diff(waves[0])))
    index = []
    for wave in waves:
        at = (wave - start) / step
        if np.abs(at - np.round(at)).max() > 0.01 or at[-1] > 1e6:
            raise DataFileError(f"{source.path.name}: an arm's wavelengths {wave[0]:.2f}-{wave[-1]:.2f} A are not on one lattice of {step:.3f} A with the "
                                f"others. {ANEW}")
        index.append(np.round(at).astype(int))
    return start + step * np.arange(max(at[-1] for at in index) + 1), index


def _labels(hdus, fibermap, source):
    said = "DESI FIBERMAP {}".format
    targetid, ra, dec, objtype = columns(fibermap, ("targetid", "target_ra", "target_dec", "objtype"), source)
    labels = {"star": (np.asarray(targetid), None, said("TARGETID")),
              "object_class": (_target_class(fibermap, np.char.strip(np.asarray(objtype, str))), None,
                               said("OBJTYPE and *_TARGET: what the fibre was targeted as; the file holds no spectral class")),
              "ra": (ra, "deg", said("TARGET_RA")), "dec": (dec, "deg", said("TARGET_DEC"))}
    for name, column in (("fiberstatus", "coadd_fiberstatus"), ("fiberstatus", "fiberstatus"), ("expid", "expid"), ("night", "night"), ("tileid", "tileid")):
        if column in fibermap.colnames:
            labels.setdefault(name, (np.asarray(fibermap[column]), None, said(column.upper())))
    scores = next((unit.data for unit in hdus if unit.name == "SCORES"), None)
    for arm in "brz":
        column = next((c for c in (f"median_coadd_snr_{arm}", f"median_calib_snr_{arm}") if scores is not None and c in scores.colnames), None)
        if column and len(scores) == len(fibermap):
            labels[f"snr_{arm}"] = (scores[column], "", f"DESI SCORES {column.upper()}")
    return labels


def _target_class(fibermap, objtype):
    bits = np.zeros(len(fibermap), "i8")
    for name in fibermap.colnames:
        if re.fullmatch(r"(sv\d_)?desi_target", name):
            bits |= np.asarray(fibermap[name]).astype("i8")
    star = (bits & (MWS_ANY | STANDARD)) != 0
    galaxy, qso = (bits & (BGS_ANY | LRG_ELG)) != 0, (bits & QSO) != 0
    found = np.select([star & ~galaxy & ~qso, galaxy & ~star & ~qso, qso & ~star & ~galaxy, star | galaxy | qso], ["star", "galaxy", "qso", "ambiguous"], "")
    return np.select([(objtype == "SKY") | ((bits & SKY) != 0), objtype != "TGT"], ["sky", "no object"], found)
