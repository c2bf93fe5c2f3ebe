"""What an instrument is: grid, medium, line spread, noise and systematics. Declarations only; a new survey is one entry here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from .errors import MismatchError
from .spectra import to_vacuum

COMMON = (3960.0, 5640.0)                                 # vacuum Angstrom shared by the optical library, LAMOST, DESI, MILES and STELIB
H_BAND = (15157.0, 16950.0)
LRS_GRID = 10 ** (3.602 + 1e-4 * np.arange(1462))         # the model grid of SpecCLIP, 3999.45-5598.87 A vacuum
C_KMS = 299792.458


@dataclass(frozen=True)
class Systematics:
    """How a survey's spectra differ from the library's: standard deviations over stars unless said otherwise.

    velocity : km/s left after the shift to the rest frame.
    spread : relative scatter of the width of the line spread.
    tilt : of ln(flux) across the window: reddening and flux calibration.
    calibration : of ln(flux), smooth on scales of 200 A and more; at the ends of the window, a third of it on average inside.
    lines : of the opacity, of each 2 A of spectrum (two resolution elements of the library): what the library does not know (line data, LTE,
        missing molecules). 0.2 makes simulated stars differ from the library as much as real MILES stars do: 2.3 % of the flux, rms.
    """

    velocity: float
    spread: float
    tilt: float
    calibration: float
    lines: float

    def scaled(self, strength: float | int) -> Systematics:
        """Every systematic multiplied by ``strength``; 0 is a perfect instrument."""
        return Systematics(*(strength * getattr(self, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Survey:
    """One instrument.

    ``wave`` (n_pix,) is its own pixel grid in ``medium``. ``fwhm`` = (at 4000 A, exponent): FWHM ~ wave**exponent, so 1 is constant resolving power
    and 0 constant Angstrom; or pairs of wavelength and FWHM (A) with straight lines between. ``snr`` is the range of a log-uniform signal-to-noise
    ratio per pixel. Spectra are simulated from ``library`` over ``span`` (vacuum Angstrom); pixels outside the ranges ``good`` (of pixel numbers of
    ``wave``) are masked.
    """

    name: str
    wave: Float[np.ndarray, " n_pix"]
    medium: str
    frame: str
    fwhm: tuple[float, float] | tuple[tuple[float, float], ...]
    snr: tuple[float, float]
    population: str
    systematics: Systematics
    library: str
    span: tuple[float, float]
    source: str
    good: tuple[tuple[int, int], ...] | None = None

    @property
    def pixels(self) -> Float[np.ndarray, " n_new"]:
        """The survey's own pixels that lie inside the span, in the survey's medium."""
        return self.wave[self._inside()]

    def unusable(self) -> np.ndarray:
        """Mask of ``pixels``: True between detectors and at their edges."""
        good = np.full(self.wave.size, self.good is None)
        for first, end in self.good or ():
            good[first:end] = True
        return ~good[self._inside()]

    def _inside(self) -> np.ndarray:
        wave = to_vacuum(self.wave, self.medium)
        return (wave >= self.span[0]) & (wave <= self.span[1])

    def resolution(self, wave) -> np.ndarray:
        """Resolving power wave / FWHM at these wavelengths (Angstrom)."""
        if isinstance(self.fwhm[0], tuple):
            return wave / np.interp(wave, *zip(*self.fwhm, strict=True))
        at_4000, exponent = self.fwhm
        return wave / (at_4000 * (wave / 4000.0) ** exponent)


LAMOST = Survey(
    name="lamost_lrs", wave=10 ** (3.5977 + 1e-4 * np.arange(1536)), medium="vacuum", frame="rest", fwhm=(4000 / 1800, 1.0), snr=(10.0, 200.0),
    population="lamost", systematics=Systematics(velocity=15.0, spread=0.08, tilt=0.4, calibration=0.06, lines=0.2), library="optical", span=COMMON,
    source="Luo et al. 2015 (RAA 15, 1095); pixels log10(wave) = 3.602 + 1e-4 i, continued to the common window")
MILES = Survey(
    name="miles", wave=np.arange(3540.5, 7410.0, 0.9), medium="air", frame="rest", fwhm=(2.5, 0.0), snr=(60.0, 300.0),
    population="miles", systematics=Systematics(velocity=10.0, spread=0.03, tilt=0.15, calibration=0.04, lines=0.2), library="optical", span=COMMON,
    source="Sanchez-Blazquez et al. 2006 (MNRAS 371, 703); FWHM 2.50 A: Falcon-Barroso et al. 2011 (A&A 532, A95)")
STELIB = Survey(
    name="stelib", wave=np.arange(3205.0, 9894.5, 1.0), medium="air", frame="rest", fwhm=(3.4, 0.0), snr=(30.0, 150.0),
    population="miles", systematics=Systematics(velocity=20.0, spread=0.05, tilt=0.15, calibration=0.05, lines=0.2), library="optical", span=COMMON,
    source="Le Borgne et al. 2003 (A&A 402, 433): FWHM up to 3 A published, 3.4 A after resampling, against the library; wavelengths good to 0.3-0.5 A")
DESI = Survey(
    name="desi", wave=np.arange(3600.0, 5800.4, 0.8), medium="vacuum", frame="rest", fwhm=(2.0, -0.663), snr=(10.0, 100.0),
    population="desi_x_apogee", systematics=Systematics(velocity=5.0, spread=0.03, tilt=0.2, calibration=0.03, lines=0.2), library="optical", span=COMMON,
    source="b arm, 0.8 A: Guy et al. 2023 (AJ 165, 144); R = 2000 at 4000 A to 3500 at 5600 A: Abareshi et al. 2022 (AJ 164, 207)")
DESI_FULL = replace(
    DESI, name="desi_full", wave=np.arange(3600.0, 9824.4, 0.8), fwhm=(2.0, 1.0), library="xp", span=(3600.0, 9824.0),
    source="all three arms; smoothed to R = 2000, below the instrument's 2000-5500, because the library of this range has R = 2500 and strong lines only")
APOGEE = Survey(
    name="apogee", wave=10 ** (4.179 + 6e-6 * np.arange(8575)), medium="vacuum", frame="rest", fwhm=(4000 / 22500, 1.0), snr=(50.0, 300.0),
    population="apogee", systematics=Systematics(velocity=0.3, spread=0.05, tilt=0.1, calibration=0.01, lines=0.2), library="hband", span=H_BAND,
    source="Majewski et al. 2017 (AJ 154, 94); grid: data model of apStar; three detectors, edges cut as in Leung & Bovy 2019 (MNRAS 483, 3255)",
    good=((246, 3274), (3585, 6080), (6344, 8335)))
GAIA_XP = Survey(
    name="gaia_xp", wave=np.arange(3360.0, 10201.0, 20.0), medium="vacuum", frame="rest",
    fwhm=((3600.0, 48.0), (4000.0, 64.0), (4850.0, 122.0), (5500.0, 175.0), (6200.0, 245.0), (6400.0, 250.0), (6400.1, 79.0), (6900.0, 94.0), (7700.0, 113.0),
          (8600.0, 134.0), (9500.0, 171.0), (10000.0, 179.0)),
    snr=(30.0, 1000.0), population="gaia", systematics=Systematics(velocity=0.0, spread=0.0, tilt=0.01, calibration=0.02, lines=0.2),
    library="xp", span=(3360.0, 10200.0),
    source="De Angeli et al. 2023 (A&A 674, A2), Montegriffo et al. 2023 (A&A 674, A3); widths: of a narrow line in the 343 points, BP to 6400 A, then RP")
PRETRAINING = replace(
    LAMOST, name="pretraining", snr=(15.0, 300.0), population="training",
    systematics=Systematics(velocity=30.0, spread=0.15, tilt=0.4, calibration=0.08, lines=0.4),
    source="the LAMOST grid with wider systematics, so that one model meets several instruments")

SURVEYS = {survey.name: survey for survey in (LAMOST, MILES, STELIB, DESI, DESI_FULL, APOGEE, GAIA_XP, PRETRAINING)}


def get_survey(survey: str | Survey) -> Survey:
    """A survey by name, or a declaration of one's own as it is.

    Raises
    ------
    MismatchError
        The name is unknown; the message lists the known ones.
    """
    if isinstance(survey, Survey):
        return survey
    if survey not in SURVEYS:
        raise MismatchError(f"No survey {survey!r}; declared are: {', '.join(SURVEYS)}. One of your own: Survey(name, ...), or replace(surveys.LAMOST, ...).")
    return SURVEYS[survey]
