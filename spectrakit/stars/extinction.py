"""The extinction curve that a model has learned, and the R_V in it: two spectra of one star, with and without dust.

A(wave) = -2.5 lg(F / F0). The published figure has -ln(F / F0), which is smaller by 1.086, over 0.884 E(B-V).

Spectra are over the G flux, so that their ratio gives A(wave) - A(G). Two normalisations undo that: ``curve`` is E(wave - 550 nm) / E(B-V), to which A(G) does not
matter; ``absolute`` asks for the luminosity too, which dims by A(G).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ..errors import LabelError
from ..gaia_xp import AT_550, WAVE
from .inputs import Answers
from .sequences import NO_DUST, giant_branch, spectra

RANGE = (4000.0, 9500.0)                              # Angstrom: less far out XP says little
R_V = (2.3, 5.6)                                      # the range of G23, the narrowest of the laws
SPREAD = 150.0                                        # Angstrom: width of a narrow line in a sampled spectrum, see docs/gaia_xp.md
LAWS = ("G23", "F99", "CCM89")


@dataclass(frozen=True, eq=False)
class Curve:
    """wave : (343,) Angstrom. ratio : (n, 343) E(wave - 550 nm) / E(B-V), one a star and reddening.
    absolute : (n, 343) A(wave) / E(B-V), or None. ebv : (n,) mag."""

    wave: Float[np.ndarray, " 343"]
    ratio: Float[np.ndarray, "n 343"]
    absolute: Float[np.ndarray, "n 343"] | None
    ebv: Float[np.ndarray, " n"]

    @property
    def use(self) -> Bool[np.ndarray, " 343"]:
        """Pixels from 400 to 950 nm."""
        return (self.wave >= RANGE[0]) & (self.wave <= RANGE[1])


@dataclass(frozen=True)
class RvFit:
    """r_v : median over stars and reddenings. sigma : half their 16-84 % range, not over the root of n, as curves of one model share its faults; and, added in
    quadrature, what the misfit of the median curve makes of R_V, one number each 150 A, the line spread. rms : that misfit, mag per E(B-V). law : whose.
    at_edge : share of curves that want a value outside 2.3-5.6."""

    r_v: float
    sigma: float
    rms: float
    law: str
    at_edge: float


def law(wave: Float[np.ndarray, " m"], r_v: float | int, name: str = "G23") -> Float[np.ndarray, " m"]:
    """A(wave) / E(B-V) = R_V A(wave) / A(V): Gordon et al. 2023 (what the simulated stars have), Fitzpatrick 1999 (what the paper draws), or Cardelli,
    Clayton & Mathis 1989, of ``dust_extinction``. Vacuum Angstrom.

    Raises
    ------
    LabelError
        No such law, or R_V outside 2.3-5.6.
    """
    from astropy import units as u
    from dust_extinction import parameter_averages
    if name not in LAWS or not R_V[0] <= r_v <= R_V[1]:
        raise LabelError(f"Law {name!r} with R_V = {r_v:g}; there are {', '.join(LAWS)}, for R_V from {R_V[0]} to {R_V[1]}.")
    return r_v * getattr(parameter_averages, name)(Rv=r_v)(wave * u.AA)


def curve(model: Answers, stars: dict[str, Float[np.ndarray, " n"]] | None = None, ebv: tuple[float, ...] = (0.4, 0.8, 1.2), absolute: bool = False) -> Curve:
    """The curve between each E(B-V) and almost none (0.001 mag, which is subtracted), for each star.

    Parameters
    ----------
    stars : labels but the dust; the published giants ([M/H] = 0, logg to 2.4), from logg 1.7 on, where the library begins, when not given.
    absolute : ask for the luminosity as well.

    Raises
    ------
    LabelError
        ``ln_ebv`` among the labels: it is what is varied. A spectrum without light.
    """
    stars = {k: v for k, v in giant_branch(np.arange(1.7, 2.45, 0.1)).items() if k != "ln_ebv"} if stars is None else stars
    if "ln_ebv" in stars:
        raise LabelError("ln_ebv is among the labels; it is what is varied here. Leave it out and give `ebv`.")
    n = len(next(iter(stars.values())))
    seen = [spectra(model, {**stars, "ln_ebv": np.full(n, ln)}, g=None if absolute else 15.0) for ln in (NO_DUST, *np.log(ebv))]
    light = [part.flux[:, _use()] for part in seen]
    if not all((part > 0).all() for part in light):
        raise LabelError("A requested spectrum has no light somewhere between 400 and 950 nm: the model does not know these stars. Give others.")
    with np.errstate(divide="ignore", invalid="ignore"):           # beyond that range anything may be
        dust = np.concatenate([-2.5 * np.log10(part.flux / seen[0].flux) / (e - np.exp(NO_DUST)) for part, e in zip(seen[1:], ebv, strict=True)])
    return Curve(WAVE, dust - dust[:, [AT_550]], dust if absolute else None, np.repeat(ebv, n))


def fit_rv(found: Curve, name: str = "G23") -> RvFit:
    """R_V of each curve by least squares from 400 to 950 nm, and of all; E(B-V) is what was asked for, not fitted."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import minimize_scalar
    use, grid = found.use, np.linspace(*R_V, 34)
    shape = CubicSpline(grid, np.stack([_ratio(found.wave, r, name)[use] for r in grid]))
    each = np.array([minimize_scalar(lambda r, row=row: np.square(row - shape(r)).sum(), bounds=R_V, method="bounded").x for row in found.ratio[:, use]])
    low, middle, high = np.quantile(each, (0.16, 0.5, 0.84))
    residual = np.median(found.ratio, 0)[use] - shape(middle)
    per_spread = SPREAD / (found.wave[1] - found.wave[0])
    from_misfit = np.mean(residual**2) * per_spread / np.square(shape(middle, 1)).sum()
    at_edge = np.minimum(each - R_V[0], R_V[1] - each) < 0.01
    return RvFit(float(middle), float(np.sqrt(((high - low) / 2) ** 2 + from_misfit)), float(np.sqrt(np.mean(residual**2))), name, float(at_edge.mean()))


def deviation(found: Curve, r_v: float | int, name: str = "G23") -> Float[np.ndarray, " m"]:
    """Median curve over the law, less 1, at the pixels in use: of A(wave) where it is absolute, else with the law's own A(550 nm) put in."""
    want, use = law(found.wave[found.use], r_v, name), found.use
    at_550 = law(found.wave[[AT_550]], r_v, name)
    have = np.median(found.absolute, 0)[use] if found.absolute is not None else np.median(found.ratio, 0)[use] + at_550
    return have / want - 1


def _ratio(wave, r_v, name):
    curve = law(wave, r_v, name)
    return curve - curve[AT_550]


def _use():
    return (WAVE >= RANGE[0]) & (WAVE <= RANGE[1])
