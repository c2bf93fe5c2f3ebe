"""Gaia DR3 BP/RP (XP) mean spectra, continuous and sampled, as the archive's Datalink gives them: CSV, ECSV, FITS or VOTable, one row a source.

Data models: https://gea.esac.esa.int/archive/documentation/GDR3/Gaia_archive/chap_datamodel/sec_dm_spectroscopic_tables/ssec_dm_xp_continuous_mean_spectrum.html
and ssec_dm_xp_sampled_mean_spectrum.html

- Continuous: 55 coefficients for BP and 55 for RP, their errors, and their correlations (the lower triangle, row by row). They become flux at 343 wavelengths
  through the package's design matrix, which is that of GaiaXPy: all bases kept, with the error that the full covariance of the coefficients gives.
- Sampled: flux and error at those 343 wavelengths; most sources have only the continuous form.

Wavelengths: 336-1020 nm in steps of 2 nm, vacuum; whether heliocentric or barycentric is no matter at this resolution, and the star's velocity is in.
Flux: W / (m2 nm), as in ``spectrakit.gaia_xp``; ``ivar`` of faint sources (error below 5e-20) is beyond float32, so scale such spectra first.
Resolution: declared in ``spectrakit.surveys``, R = 20 to 110. Samples of 2 nm are much closer than that: errors of neighbours are strongly
correlated, which ``ivar`` cannot express. A source without BP is masked up to 635 nm, where RP begins, one without RP from 643 nm on.
Not in the file: what kind of object it is.
"""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.table import Table

from ..errors import DataFileError
from ..spectra import SpectraSet
from ..surveys import GAIA_XP
from .assembly import assemble
from .container import ANEW, Source
from .hdus import Hdu

NAME = "Gaia XP, continuous or sampled"
PAGE = "https://gea.esac.esa.int/archive/documentation/GDR3/Gaia_archive/chap_datamodel/sec_dm_spectroscopic_tables/"
WAVE, N_BASES = GAIA_XP.wave, 55
BP_END, RP_START = 6430.0, 6350.0  # Angstrom; between them the two are blended linearly
FLUX = u.W / (u.m**2 * u.nm)
BANDS = ("bp", "rp")
CONTINUOUS = tuple(f"{band}_{name}" for band in BANDS for name in ("coefficients", "coefficient_errors", "coefficient_correlations"))


def matches(found: Table) -> bool:
    """True for the columns of either product."""
    names = {name.lower() for name in found.colnames}
    return "source_id" in names and ({"flux", "flux_error"} <= names or {"bp_coefficients", "rp_coefficients"} <= names)


def find(hdus: list[Hdu]) -> Table | None:
    """The table of an XP file in FITS, or None."""
    return next((unit.data for unit in hdus if isinstance(unit.data, Table) and matches(unit.data)), None)


def read(found: Table, source: Source) -> SpectraSet:
    """All sources, (n, 343). Of the continuous product the labels hold ``coeff`` and ``coeff_err`` (n, 110), NaN where a band is missing, and ``g`` and
    ``bp_rp`` (mag) made of the coefficients.

    Raises
    ------
    DataFileError
        A column is missing, an array has another length than the data model says, or a text is no list of numbers.
    """
    found = found.copy(copy_data=False)
    found.rename_columns(found.colnames, [name.lower() for name in found.colnames])
    sampled = "flux" in found.colnames
    flux, error, more, notes = (_sampled if sampled else _continuous)(found, source)
    ivar = np.where(error > 0, error**-2.0, np.where(np.isnan(error), np.nan, 0))
    return assemble(source, WAVE, flux, ivar, {}, {**_labels(found), **more}, survey=GAIA_XP.name, frame="heliocentric", resolution=GAIA_XP.resolution(WAVE),
                    origin=f"Gaia DR3 XP {'sampled' if sampled else 'continuous'}; {PAGE}", flux_unit=FLUX.to_string(), notes=tuple(notes))


def _sampled(found, source):
    unit = found["flux"].unit
    if unit is not None and u.Unit(str(unit), parse_strict="silent") != FLUX:
        raise DataFileError(f"{source.path.name}: flux has the unit {unit}; expected {FLUX}, the archive's. {ANEW}")
    flux, error = (np.stack([_numbers(cell, WAVE.size, f"{name}, row {i}", source) for i, cell in enumerate(_column(found, name, source))])
                   for name in ("flux", "flux_error"))
    return flux, error, {}, []


def _continuous(found, source):
    from ..gaia_xp import load_design  # it needs torch, which the other readers do not
    design = load_design()
    cells = {name: _column(found, name, source) for name in CONTINUOUS}
    rows = [{band: _band(cells, band, i, source) for band in BANDS} for i in range(len(found))]
    flux, error = zip(*(_evaluate(row, design.flux, i, source) for i, row in enumerate(rows)), strict=True)
    none = (np.full(N_BASES, np.nan), np.full((N_BASES, N_BASES), np.nan))
    coeff = np.stack([np.concatenate([(row[band] or none)[0] for band in BANDS]) for row in rows])
    sigma = np.stack([np.concatenate([np.diag((row[band] or none)[1]) ** 0.5 for band in BANDS]) for row in rows])
    g, bp, rp = design.magnitudes(coeff).T  # NaN where noise makes a band of a faint source negative
    more = {"coeff": (coeff, "", "Gaia DR3 bp_coefficients, rp_coefficients"), "coeff_err": (sigma, "", "Gaia DR3 coefficient errors"),
            "g": (g, "mag", "synthetic, of the coefficients"), "bp_rp": (bp - rp, "mag", "synthetic, of the coefficients")}
    lacking = {band: sum(row[band] is None for row in rows) for band in BANDS}
    return np.stack(flux), np.stack(error), more, [f"{n} of {len(rows)} sources without {band.upper()}: masked where the other has no data"
                                                   for band, n in lacking.items() if n]


def _band(cells, band, i, source):
    """(coefficients, their covariance) of one source, or None without this band."""
    sizes = (N_BASES, N_BASES, N_BASES * (N_BASES - 1) // 2)
    names = [f"{band}_{name}" for name in ("coefficients", "coefficient_errors", "coefficient_correlations")]
    if _is_missing(cells[names[0]][i]):
        return None
    values, errors, triangle = (_numbers(cells[name][i], size, f"{name}, row {i}", source) for name, size in zip(names, sizes, strict=True))
    correlation = np.eye(N_BASES)
    correlation[np.tril_indices(N_BASES, -1)] = triangle
    correlation.T[np.tril_indices(N_BASES, -1)] = triangle
    return values, errors[:, None] * correlation * errors


def _evaluate(row, design, i, source):
    """Flux and error (343,); NaN where the source has no data."""
    if row["bp"] is None and row["rp"] is None:
        raise DataFileError(f"{source.path.name}, row {i}: neither BP nor RP coefficients. {ANEW}")
    flux, variance, alone = np.zeros(WAVE.size), np.zeros(WAVE.size), None in (row["bp"], row["rp"])
    share = np.clip((WAVE - RP_START) / (BP_END - RP_START), 0, 1)  # of RP in the blend, which the design holds
    for band, matrix, weight in (("bp", design[:, :N_BASES], 1 - share), ("rp", design[:, N_BASES:], share)):
        if row[band] is None:
            continue
        matrix = matrix / np.where(weight > 0, weight, np.nan)[:, None] if alone else matrix
        values, covariance = row[band]
        flux += matrix @ values
        variance += ((matrix @ covariance) * matrix).sum(axis=1)
    return flux, np.sqrt(np.where(variance > 0, variance, np.nan))


def _column(found, name, source):
    if name not in found.colnames:
        raise DataFileError(f"{source.path.name} lacks the column {name}; it has: {', '.join(found.colnames)}. Ask the archive for the whole product.")
    return found[name]


def _is_missing(cell):
    return cell is None or cell is np.ma.masked or (isinstance(cell, str) and not cell.strip()) or np.size(cell) == 0 or bool(np.ma.getmaskarray(cell).all())


def _numbers(cell, size, where, source):
    """A cell as ``size`` numbers: an array, or the text "(1.0, 2.0, ...)" of a CSV file."""
    try:
        parts = cell.strip().strip("()[]").split(",") if isinstance(cell, str) else cell
        values = np.ma.filled(np.ma.asarray(parts).astype("f8"), np.nan)
    except (ValueError, TypeError) as error:
        raise DataFileError(f"{source.path.name}, {where}: not a list of numbers ({error}). {ANEW}") from error
    if values.shape != (size,):
        raise DataFileError(f"{source.path.name}, {where}: {values.size} numbers; expected {size}. {ANEW}")
    return values


def _labels(found):
    labels = {"star": (np.asarray(found["source_id"]).astype("i8"), None, "Gaia DR3 source_id"),
              "object_class": ([""] * len(found), None, "the file does not say")}
    for name in ("ra", "dec"):
        if name in found.colnames:
            labels[name] = (found[name], "deg", f"Gaia DR3 {name}, epoch 2016.0")
    return labels
