"""What an instrument is: grid, medium, line spread, noise and systematics. Declarations only; a new survey is one entry here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from .errors import MismatchError

COMMON = (3960.0, 5640.0)                                 # vacuum Angstrom shared by the library, LAMOST, DESI and MILES
LRS_GRID = 10 ** (3.602 + 1e-4 * np.arange(1462))         # the model grid of SpecCLIP, 3999.45-5598.87 A vacuum
C_KMS = 299792.458


@dataclass(frozen=True)
class Systematics:
    """How a survey's spectra differ from the library's: standard deviations over stars unless said otherwise.

    velocity : km/s left after the shift to the rest frame.
    spread : relative scatter of the width of the line spread.
    tilt : of ln(flux) across the window: reddening and flux calibration.
    calibration : of ln(flux), smooth on scales of 200 A and more; at the ends of the window, a third of it on average inside.
    lines : of the opacity of each 2 A of spectrum: what the library does not know (line data, LTE, missing molecules).
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
    """One instrument. ``wave`` (n_pix,) is its own pixel grid in ``medium``; ``fwhm`` = (at 4000 A, exponent): FWHM ~ wave**exponent, so 1 is
    constant resolving power and 0 constant Angstrom; ``snr`` the range of a log-uniform signal-to-noise ratio per pixel."""

    name: str
    wave: Float[np.ndarray, " n_pix"]
    medium: str
    frame: str
    fwhm: tuple[float, float]
    snr: tuple[float, float]
    population: str
    systematics: Systematics
    source: str

    def resolution(self, wave) -> np.ndarray:
        """Resolving power wave / FWHM at these wavelengths (Angstrom)."""
        at_4000, exponent = self.fwhm
        return wave / (at_4000 * (wave / 4000.0) ** exponent)


LAMOST = Survey(
    name="lamost_lrs", wave=10 ** (3.5977 + 1e-4 * np.arange(1536)), medium="vacuum", frame="rest", fwhm=(4000 / 1800, 1.0), snr=(10.0, 200.0),
    population="milky_way", systematics=Systematics(velocity=15.0, spread=0.08, tilt=0.4, calibration=0.02, lines=0.1),
    source="Luo et al. 2015 (RAA 15, 1095); pixels log10(wave) = 3.602 + 1e-4 i, continued to the common window")
MILES = Survey(
    name="miles", wave=np.arange(3540.5, 7410.0, 0.9), medium="air", frame="rest", fwhm=(2.5, 0.0), snr=(60.0, 300.0),
    population="milky_way", systematics=Systematics(velocity=10.0, spread=0.03, tilt=0.15, calibration=0.01, lines=0.1),
    source="Sanchez-Blazquez et al. 2006 (MNRAS 371, 703); FWHM 2.50 A: Falcon-Barroso et al. 2011 (A&A 532, A95)")
PRETRAINING = replace(
    LAMOST, name="pretraining", snr=(15.0, 300.0), population="training",
    systematics=Systematics(velocity=30.0, spread=0.15, tilt=0.4, calibration=0.03, lines=0.2),
    source="the LAMOST grid with wider systematics, so that one model meets several instruments")

SURVEYS = {survey.name: survey for survey in (LAMOST, MILES, PRETRAINING)}


def get_survey(name: str) -> Survey:
    """The declaration of a survey.

    Raises
    ------
    MismatchError
        The name is unknown; the message lists the known ones.
    """
    if name not in SURVEYS:
        raise MismatchError(f"No survey {name!r}; declared are: {', '.join(SURVEYS)}. A new one is one entry in spectrakit/surveys.py.")
    return SURVEYS[name]
