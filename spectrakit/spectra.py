"""SpectraSet: many spectra on one wavelength grid, with everything needed to know what the numbers mean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable, Table, vstack
from jaxtyping import Bool, Float

from .errors import LabelError, MismatchError, SpectrumError
from .resample import resample

LABEL_UNITS = {"teff": u.K, "logg": u.dex, "feh": u.dex, "alpha_fe": u.dex, "c_fe": u.dex}
MEDIA = ("vacuum", "air")
FRAMES = ("rest", "heliocentric")
NOISE = ("measured", "estimated", "simulated")
ABOUT = ("survey", "medium", "frame", "normalization", "noise", "provenance")


@dataclass(frozen=True, eq=False)
class SpectraSet:
    """``n`` spectra on one grid of ``n_pix`` wavelengths. Nothing has a default: what a number means is never guessed.

    Parameters
    ----------
    wave : (n_pix,) Angstrom, increasing; in vacuum or air as ``medium`` says.
    flux : (n, n_pix) flux per Angstrom in any unit, or flux over continuum when ``normalization`` is not ``"none"``.
    ivar : (n, n_pix) inverse variance of ``flux``, at least 0.
    mask : (n, n_pix) True = unusable. Flux and ivar under the mask are never read; both may be NaN there.
    labels : astropy Table, one row a spectrum. ``teff`` is in K; ``logg``, ``feh``, ``alpha_fe``, ``c_fe`` are in dex.
    survey : the survey's name, as in ``spectrakit.surveys``.
    medium : ``"vacuum"`` or ``"air"``.
    frame : ``"rest"`` (the star's velocity is taken out) or ``"heliocentric"``.
    resolution : (n_pix,) resolving power wave / FWHM of the line spread.
    normalization : ``"none"``, or the name of the recipe that divided the continuum out.
    noise : where ``ivar`` comes from: ``"measured"`` by the survey, ``"estimated"`` afterwards, or ``"simulated"``.
    provenance : origin and history; JSON-able.

    Raises
    ------
    SpectrumError
        Shapes that disagree, a grid that does not increase, NaN at an unmasked pixel, negative ``ivar``.
    LabelError
        As many label rows as spectra are needed; a label in another unit is refused.
    """

    wave: Float[np.ndarray, " n_pix"]
    flux: Float[np.ndarray, "n n_pix"]
    ivar: Float[np.ndarray, "n n_pix"]
    mask: Bool[np.ndarray, "n n_pix"]
    labels: Table
    survey: str
    medium: str
    frame: str
    resolution: Float[np.ndarray, " n_pix"]
    normalization: str
    noise: str
    provenance: dict = field(repr=False)

    def __post_init__(self):
        _check_arrays(self)
        _check_labels(self.labels, len(self))
        for name, value, allowed in (("medium", self.medium, MEDIA), ("frame", self.frame, FRAMES), ("noise", self.noise, NOISE)):
            if value not in allowed:
                raise MismatchError(f"{name} is {value!r}; expected one of {', '.join(map(repr, allowed))}.")

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, rows) -> SpectraSet:
        """The chosen rows (slice, integer array or boolean array) as a SpectraSet; one integer gives a set of one."""
        rows = [int(rows)] if np.ndim(rows) == 0 and not isinstance(rows, slice) else rows
        return replace(self, flux=self.flux[rows], ivar=self.ivar[rows], mask=self.mask[rows], labels=self.labels[rows])

    def __repr__(self) -> str:
        return (f"SpectraSet({len(self)} x {self.wave.size} pixels, {self.wave[0]:.1f}-{self.wave[-1]:.1f} A {self.medium}, {self.survey}, "
                f"R~{np.median(self.resolution):.0f}, {self.frame} frame, normalization={self.normalization!r}, noise {self.noise}, "
                f"{self.mask.mean():.1%} masked, labels: {', '.join(self.labels.colnames) or 'none'})")

    def label(self, name: str) -> Float[np.ndarray, " n"]:
        """One label as plain numbers in the field's unit (K or dex).

        Raises
        ------
        LabelError
            No such column, or rows without a value: choose the labelled rows first with ``labelled``.
        """
        if name not in self.labels.colnames:
            raise LabelError(f"No label {name!r} here; this set has: {', '.join(self.labels.colnames) or 'none'}.")
        try:
            value = _plain(self.labels[name])
        except ValueError as error:
            raise LabelError(f"Label {name!r} is text, not a number; read it as stars.labels[{name!r}].") from error
        if not np.isfinite(value).all():
            raise LabelError(f"{(~np.isfinite(value)).sum()} of {len(value)} stars have no {name!r}; choose the others first: "
                             f"stars[stars.labelled({name!r})].")
        return value

    def labelled(self, *names: str) -> Bool[np.ndarray, " n"]:
        """True for the stars that have a finite value of every named label."""
        has = np.ones(len(self), bool)
        for name in names:
            has &= np.isfinite(_plain(self.labels[name])) if name in self.labels.colnames else False
        return has

    @property
    def snr(self) -> Float[np.ndarray, " n"]:
        """Median flux / error over each star's usable pixels."""
        return np.array([np.median((flux * np.sqrt(ivar))[~mask]) for flux, ivar, mask in zip(self.flux, self.ivar, self.mask, strict=True)])

    def to_vacuum(self) -> SpectraSet:
        """The same spectra with vacuum wavelengths (Ciddor 1996, through specutils); fluxes are untouched."""
        if self.medium == "vacuum":
            return self
        return replace(self, wave=to_vacuum(self.wave, "air"), medium="vacuum", provenance=self._history("air -> vacuum (Ciddor 1996)"))

    def to_rest(self, z) -> SpectraSet:
        """The spectra in the star's rest frame, on the same ``wave``: the value at wavelength w is the observed one at w (1 + z).

        Parameters
        ----------
        z : redshift (velocity / c), one number or (n,). To be done before the continuum is divided out, so that the range it is fitted over is
            the same for all stars.

        Notes
        -----
        Cubic interpolation (``spectrakit.resample``): errors of neighbouring pixels become correlated. Pixels that would need wavelengths
        beyond the grid are masked. Flux and resolving power are not multiplied by 1 + z (0.1 % at 300 km/s).

        Raises
        ------
        MismatchError
            The set is in the rest frame already.
        SpectrumError
            A redshift is missing, or is no redshift.
        """
        if self.frame == "rest":
            raise MismatchError("These spectra are in the rest frame already; to_rest expects frame='heliocentric'. Leave the step out.")
        z = np.broadcast_to(_plain(z), len(self))
        bad = ~(np.isfinite(z) & (np.abs(z) < 1))
        if bad.any():
            raise SpectrumError(f"{bad.sum()} of {len(z)} redshifts are missing or beyond +-1 (first in spectrum {np.flatnonzero(bad)[0]}); expected "
                                "velocity / c. Choose the spectra that have one first.")
        flux, ivar, mask = resample(self.wave, self.flux, self.ivar, self.mask, self.wave * (1 + z[:, None]))
        return replace(self, flux=flux, ivar=ivar, mask=mask, frame="rest", provenance=self._history("to rest frame (resampled)"))

    def write(self, path) -> Path:
        """Write everything to one ``.safetensors`` file that ``spectrakit.read`` gives back exactly; see ``spectrakit.readers.native``."""
        from .readers import native
        return native.write(self, path)

    def with_flux(self, wave, flux, ivar, mask, resolution, *, normalization: str, step: str) -> SpectraSet:
        """The same stars with new arrays; ``step`` is added to the provenance."""
        return replace(self, wave=wave, flux=flux, ivar=ivar, mask=mask, resolution=resolution, normalization=normalization,
                       provenance=self._history(step))

    def to_table(self) -> Table:
        """An astropy Table: the labels with columns ``flux``, ``ivar``, ``mask``; the rest in ``meta``."""
        table = self.labels.copy()
        table["flux"], table["ivar"], table["mask"] = self.flux, self.ivar, self.mask
        table.meta = {**self._about(), "wave": self.wave, "resolution": self.resolution}
        return table

    @classmethod
    def from_table(cls, table: Table) -> SpectraSet:
        """The inverse of ``to_table``."""
        names = ("wave", "resolution", *ABOUT)
        missing = [c for c in ("flux", "ivar", "mask") if c not in table.colnames] + [k for k in names if k not in table.meta]
        if missing:
            raise SpectrumError(f"This table lacks {', '.join(missing)}; make it with SpectraSet.to_table().")
        labels = table[[c for c in table.colnames if c not in ("flux", "ivar", "mask")]]
        labels.meta = {}
        return cls(flux=np.array(table["flux"]), ivar=np.array(table["ivar"]), mask=np.array(table["mask"]), labels=labels,
                   **{name: table.meta[name] for name in names})

    def to_specutils(self):
        """A ``specutils.Spectrum`` with (n, n_pix) flux, inverse variance, mask; the rest in ``meta``."""
        from astropy.nddata import InverseVariance
        from specutils import Spectrum
        meta = {**self._about(), "labels": self.labels, "resolution": self.resolution}
        return Spectrum(flux=self.flux * u.dimensionless_unscaled, spectral_axis=self.wave * u.AA, spectral_axis_index=1,
                        uncertainty=InverseVariance(self.ivar), mask=self.mask, meta=meta)

    @classmethod
    def from_specutils(cls, spectrum, *, labels: Table, survey: str, medium: str, frame: str, resolution, normalization: str) -> SpectraSet:
        """From any ``specutils.Spectrum``: what it does not know (medium, frame, resolution ...) has to be said.

        Its errors count as measured, unless ``meta["noise"]``, which ``to_specutils`` writes, says otherwise.

        Raises
        ------
        SpectrumError
            The spectrum has no uncertainty: state one, the kit does not invent errors here. Or its flux is per frequency.
        """
        from astropy.nddata import InverseVariance
        if spectrum.uncertainty is None:
            raise SpectrumError("This Spectrum has no uncertainty; set spectrum.uncertainty (StdDevUncertainty or InverseVariance) first.")
        if spectrum.flux.unit.is_equivalent(u.Jy):
            raise SpectrumError(f"Its flux is per frequency ({spectrum.flux.unit}); expected flux per wavelength. Convert it first: "
                                "spectrum.with_flux_unit('erg / (s cm2 Angstrom)').")
        uncertainty = spectrum.uncertainty
        if not isinstance(uncertainty, InverseVariance):  # astropy would invert twice, which is neither exact nor quiet where ivar = 0
            uncertainty = uncertainty.represent_as(InverseVariance)
        wave = spectrum.spectral_axis.to_value(u.AA)
        flux = np.atleast_2d(spectrum.flux.value)
        ivar = np.atleast_2d(uncertainty.array)
        mask = np.zeros(flux.shape, bool) if spectrum.mask is None else np.atleast_2d(np.asarray(spectrum.mask, bool))
        return cls(wave=wave, flux=flux, ivar=ivar, mask=mask | ~np.isfinite(flux) | ~np.isfinite(ivar), labels=labels, survey=survey, medium=medium,
                   frame=frame, resolution=np.broadcast_to(np.asarray(resolution, float), wave.shape).copy(), normalization=normalization,
                   noise=spectrum.meta.get("noise", "measured"),
                   provenance=spectrum.meta.get("provenance", {"origin": "specutils.Spectrum", "history": []}))

    def to_torch(self):
        """``(flux, ivar, mask)`` as float32, float32 and bool tensors; flux and ivar are 0 under the mask."""
        import torch
        return (torch.as_tensor(np.where(self.mask, 0, self.flux), dtype=torch.float32),
                torch.as_tensor(np.where(self.mask, 0, self.ivar), dtype=torch.float32), torch.as_tensor(self.mask))

    def _about(self) -> dict:
        return {name: getattr(self, name) for name in ABOUT}

    def _history(self, step: str) -> dict:
        return {**self.provenance, "history": [*self.provenance.get("history", []), step]}


def concatenate(*sets: SpectraSet) -> SpectraSet:
    """Several sets on one grid as one, with the labels that all of them have.

    Raises
    ------
    MismatchError
        The sets differ in grid, medium, frame, resolution, normalisation or noise, or their labels are on different scales: such labels are
        offset against each other (``docs/label_scales.md``). Compare them on common stars first, and shift one set knowingly.
    """
    first = sets[0]
    same_scale(*sets)
    for other in sets[1:]:
        for name in ("medium", "frame", "normalization", "noise"):
            if getattr(other, name) != getattr(first, name):
                raise MismatchError(f"{name} is {getattr(first, name)!r} in one set and {getattr(other, name)!r} in another; bring them to the same first.")
        alike = other.wave.shape == first.wave.shape and np.allclose(other.wave, first.wave, rtol=1e-9)
        if not (alike and np.allclose(other.resolution, first.resolution, rtol=1e-3)):
            raise MismatchError("The sets have different pixels or resolutions; normalise them onto one grid first.")
    common = [name for name in first.labels.colnames if all(name in s.labels.colnames for s in sets)]
    arrays = {name: np.concatenate([getattr(s, name) for s in sets]) for name in ("flux", "ivar", "mask")}
    survey = "+".join(dict.fromkeys(s.survey for s in sets))
    return replace(first, **arrays, labels=vstack([s.labels[common] for s in sets], metadata_conflicts="silent"), survey=survey,
                   provenance={"origin": " + ".join(str(s.provenance.get("origin")) for s in sets), "label_scale": first.provenance.get("label_scale"),
                               "history": [f"concatenated {len(sets)} sets"], "parts": [s.provenance for s in sets]})


def same_scale(*sets: SpectraSet) -> None:
    """Raise ``MismatchError`` when the labels of these sets are on different scales (``provenance["label_scale"]``); one not stated is one of its own."""
    scales = {s.provenance.get("label_scale") or "not stated" for s in sets}
    if len(scales) > 1:
        raise MismatchError(f"The labels are on different scales: {'; '.join(sorted(scales))}. They are offset against each other (docs/label_scales.md); "
                            "use one set for training and validation, or shift one knowingly and set its provenance['label_scale'].")


def to_vacuum(wave: Float[np.ndarray, " n_pix"], medium: str) -> Float[np.ndarray, " n_pix"]:
    """Vacuum wavelengths (Angstrom) of pixels given in ``medium``, by the refraction of Ciddor 1996 (Applied Optics 35, 1566)."""
    if medium == "vacuum":
        return wave
    from specutils.utils.wcs_utils import air_to_vac
    return air_to_vac(wave * u.AA, scheme="iteration", method="Ciddor1996").to_value(u.AA)


def label_table(**columns) -> Table:
    """A labels table with the field's units: ``label_table(teff=[5777.], feh=[0.])``; other columns are kept as they are.

    Numbers are taken to be in K or dex, Quantities are converted, masked values become NaN; ``LabelError`` for a unit that does not fit.
    """
    table = QTable()
    for name, value in columns.items():
        table[name] = _in_unit(name, value) if name in LABEL_UNITS else value
    return Table(table)


def _in_unit(name: str, value) -> u.Quantity:
    try:
        return u.Quantity(_plain(value), getattr(value, "unit", None) or LABEL_UNITS[name]).to(LABEL_UNITS[name])
    except u.UnitConversionError as error:
        raise LabelError(f"Label {name!r} has unit {value.unit}; expected {LABEL_UNITS[name]}, or one that converts to it.") from error


def _plain(column) -> np.ndarray:
    value = np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype("f8"), np.nan)
    return np.asarray(value)


def _check_arrays(s: SpectraSet) -> None:
    if s.wave.ndim != 1 or s.flux.ndim != 2 or s.wave.size != s.flux.shape[1] or s.wave.size < 2:
        raise SpectrumError(f"wave has shape {s.wave.shape} and flux {s.flux.shape}; expected (n_pix,) and (n, n_pix), n_pix at least 2.")
    for name in ("ivar", "mask"):
        if getattr(s, name).shape != s.flux.shape:
            raise SpectrumError(f"{name} has shape {getattr(s, name).shape}, flux {s.flux.shape}; they must be the same.")
    if s.resolution.shape != s.wave.shape:
        raise SpectrumError(f"resolution has shape {s.resolution.shape}, wave {s.wave.shape}; give one value a pixel.")
    if not (np.isfinite(s.wave).all() and (np.diff(s.wave) > 0).all()):
        raise SpectrumError("wave must be finite and increase from pixel to pixel; sort the pixels, or check the unit.")
    if s.wave[0] < 1000 or s.wave[-1] > 30000:
        raise SpectrumError(f"wave runs from {s.wave[0]:.4g} to {s.wave[-1]:.4g}; expected Angstrom (1000-30000). "
                            "Nanometres have to be multiplied by 10.")
    if s.mask.dtype != bool:
        raise SpectrumError(f"mask has type {s.mask.dtype}; expected bool, True = unusable.")
    for name in ("flux", "ivar"):
        bad = ~np.isfinite(getattr(s, name)) & ~s.mask
        if bad.any():
            raise SpectrumError(f"{name} is NaN or infinite at {bad.sum()} unmasked pixels (first in spectrum {np.argwhere(bad)[0][0]}); "
                                "set mask=True there.")
    if ((s.ivar < 0) & ~s.mask).any():
        raise SpectrumError("ivar is negative at unmasked pixels; an inverse variance is at least 0: check whether these are errors or variances.")


def _check_labels(labels: Table, n: int) -> None:
    if len(labels) != n:
        raise LabelError(f"{len(labels)} rows of labels for {n} spectra; there must be one a spectrum.")
    for name, unit in LABEL_UNITS.items():
        if name in labels.colnames and labels[name].unit != unit:
            raise LabelError(f"Label {name!r} has unit {labels[name].unit}; expected {unit}. Build the table with spectrakit.spectra.label_table.")
