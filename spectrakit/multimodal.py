"""Spectra to and from the schema of the Multimodal Universe (https://github.com/MultimodalUniverse/MultimodalUniverse), as Arrow tables.

One row a spectrum: ``spectrum``, a struct of the lists flux, ivar, lsf_sigma, lambda (float32) and mask (True = unusable); ``object_id``, text; every other column a
number. That is what ``datasets`` stores and gives with ``dataset.with_format("arrow")[:]``. The schema has no place for medium, frame, units and provenance, and the
unit of ``lsf_sigma`` differs between its sets (pixels for DESI, Angstrom for APOGEE): all this has to be said when such a table is read.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Column, Table

from .errors import DataFileError, MismatchError
from .readers.assembly import nothing_stellar
from .spectra import LABEL_UNITS, SpectraSet

FIELDS = ("flux", "ivar", "lsf_sigma", "lambda", "mask")
FWHM = 2 * np.sqrt(2 * np.log(2))


def to_multimodal(stars: SpectraSet):
    """A ``pyarrow.Table`` of that schema: ``lsf_sigma`` in pixels, ``star`` as ``object_id``, labels that are numbers as float32; text labels have no place.

    Flux, ivar and wavelengths become float32; what is under the mask becomes 0. To keep everything, use ``spectrakit.store``.
    """
    import pyarrow as pa
    n, n_pix = stars.flux.shape
    sigma = stars.wave / stars.resolution / FWHM / np.gradient(stars.wave)
    parts = {"flux": np.where(stars.mask, 0, stars.flux), "ivar": np.where(stars.mask, 0, stars.ivar), "lsf_sigma": np.tile(sigma, (n, 1)),
             "lambda": np.tile(stars.wave, (n, 1)), "mask": stars.mask}
    offsets = pa.array(np.arange(n + 1, dtype="i4") * n_pix)
    lists = [pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(parts[name], "?" if name == "mask" else "f4").ravel())) for name in FIELDS]
    numbers = {name: column for name, column in stars.labels.columns.items() if column.dtype.kind in "biuf" and column.ndim == 1 and name != "star"}
    columns = {name: pa.array(np.ma.filled(np.ma.asarray(column.data).astype("f4"), np.nan)) for name, column in numbers.items()}
    return pa.table({"spectrum": pa.StructArray.from_arrays(lists, FIELDS), "object_id": pa.array([str(star) for star in stars.labels["star"]]), **columns})


def from_multimodal(table, *, survey: str, medium: str, frame: str, normalization: str, lsf_unit: str, object_class: str) -> SpectraSet:
    """The spectra of a ``pyarrow.Table`` of that schema, all on one grid.

    Parameters
    ----------
    survey, medium, frame, normalization : as of ``SpectraSet``.
    lsf_unit : of ``lsf_sigma``: ``"pixel"`` or ``"Angstrom"``. The resolving power is its median over the rows.
    object_class : what the set's objects are, ``"star"``, ``"galaxy"`` ...; other than stars they get no stellar labels.

    Raises
    ------
    DataFileError
        A column or a field of ``spectrum`` is missing, or lists of different lengths.
    MismatchError
        Rows on different grids, or another ``lsf_unit``.
    """
    if lsf_unit not in ("pixel", "Angstrom"):
        raise MismatchError(f'lsf_unit is {lsf_unit!r}; expected "pixel" or "Angstrom".')
    arrays = _arrays(table)
    wave = arrays["lambda"][0].astype("f8")
    if not np.allclose(arrays["lambda"], wave, rtol=1e-6):
        raise MismatchError("The spectra are on different grids of wavelengths. Choose the rows of one grid, or normalise them onto one, set by set.")
    sigma = np.median(arrays["lsf_sigma"].astype("f8"), axis=0) * (np.gradient(wave) if lsf_unit == "pixel" else 1.0)
    if not (np.isfinite(sigma) & (sigma > 0)).all():
        raise DataFileError("lsf_sigma is not positive everywhere; without it the resolving power is not known. Correct the table first.")
    mask = arrays["mask"].astype(bool) | ~np.isfinite(arrays["flux"]) | ~np.isfinite(arrays["ivar"]) | ~(arrays["ivar"] > 0)
    said = "Multimodal Universe column {}".format
    labels = Table({"star": Column(np.array(table["object_id"].to_pylist(), str), description=said("object_id")), "object_class": np.full(len(table), object_class)})
    for name in table.column_names:
        if name not in ("spectrum", "object_id", "object_class"):
            labels[name] = Column(table[name].to_numpy().astype("f8"), unit=LABEL_UNITS.get(name), description=said(name))
    nothing_stellar(labels)
    return SpectraSet(wave=wave, flux=np.where(mask, 0, arrays["flux"]), ivar=np.where(mask, 0, arrays["ivar"]), mask=mask, labels=labels, survey=survey,
                      medium=medium, frame=frame, resolution=wave / (FWHM * sigma), normalization=normalization, noise="measured",
                      provenance={"origin": f"Multimodal Universe schema, {survey}", "history": []})


def _arrays(table):
    """Field -> (n, n_pix)."""
    missing = [name for name in ("spectrum", "object_id") if name not in table.column_names]
    fields = [] if missing else [table.schema.field("spectrum").type.field(i).name for i in range(table.schema.field("spectrum").type.num_fields)]
    missing = missing or [f"spectrum.{name}" for name in FIELDS if name not in fields]
    if missing or not len(table):
        raise DataFileError(f"The table {f'lacks {missing[0]}' if missing else 'has no rows'}; expected the schema of the Multimodal Universe: spectrum "
                            f"({', '.join(FIELDS)}), object_id. It has: {', '.join(table.column_names)}.")
    found = {}
    for name in FIELDS:
        lists = table["spectrum"].combine_chunks().field(name)
        flat, n = lists.flatten().to_numpy(zero_copy_only=False), len(table)
        lengths = np.diff(lists.offsets.to_numpy()) if hasattr(lists, "offsets") else np.full(n, lists.type.list_size)
        if len(set(lengths.tolist())) != 1 or flat.size != lengths.sum():
            raise DataFileError(f"The lists spectrum.{name} have {lengths.min()} to {lengths.max()} values; expected the same number in every row.")
        found[name] = flat.reshape(n, -1)
    shapes = {name: array.shape for name, array in found.items()}
    if len(set(shapes.values())) > 1 or found["flux"].shape[1] < 2:
        raise DataFileError(f"The lists of spectrum have different lengths: {', '.join(f'{name} {shape[1]}' for name, shape in shapes.items())}.")
    return found
