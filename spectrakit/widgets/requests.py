"""What a star is asked in notebook 09: any observables known, any one wanted, and the spectrum that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import gaia_xp, plots
from ..errors import LabelError
from ..models.star_transformer import BP, COLOURS, RP, STAR_LABELS
from ..pretraining.stars import StarTable
from ..stars.inputs import Answers
from ..stars.sequences import COEFFICIENTS

TICKS = ("BP", "RP", "colours", *STAR_LABELS)
WANTED = (*STAR_LABELS, *COLOURS)
ALONE, TOGETHER = 52, 25                              # coefficients told of one arm, and of each of two: more than 64 observables are too many
UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "ln_ebv": "", "g_luminosity": "", "bp_rp": "mag", "j_h": "mag", "j_k": "mag"}
NAMES = {"teff": "Teff", "logg": "log g", "m_h": "[M/H]", "ln_ebv": "ln E(B-V)", "g_luminosity": "parallax x 10^(G/5)", "bp_rp": "BP-RP", "j_h": "J-H", "j_k": "J-K"}
G = 15.0                                              # of the spectrum that is drawn


@dataclass(frozen=True, eq=False)
class Asked:
    """code : gives the same numbers in a script. value, sigma, truth : of what was wanted. told : how many observables were.
    flux, flux_sigma, observed : (343,) W / m2 / nm of a star of G = 15; NaN where the star has no XP spectrum."""

    code: str
    wanted: str
    value: float
    sigma: float
    truth: float
    told: int
    flux: Float[np.ndarray, " 343"]
    flux_sigma: Float[np.ndarray, " 343"]
    observed: Float[np.ndarray, " 343"]


def ask(model: Answers, table: StarTable, star: int, ticked: Sequence[str], wanted: str) -> Asked:
    """One star, one question. Of ``ticked`` (out of ``TICKS``) what is wanted is left out.

    Raises
    ------
    LabelError
        An unknown tick, nothing known of the star, or an unknown observable.
    """
    if odd := [name for name in ticked if name not in TICKS]:
        raise LabelError(f"{odd[0]!r} cannot be ticked; there are: {', '.join(TICKS)}.")
    arms = [name for name in ("BP", "RP") if name in ticked]
    first = TOGETHER if len(arms) == 2 else ALONE
    groups = {"BP": BP[:first], "RP": RP[:first], "colours": COLOURS}
    names = [name for tick in ticked for name in groups.get(tick, (tick,)) if name != wanted]
    known = {name: value for name, value in table.known(names, [star]).items() if np.isfinite(value).all()}
    if not known:
        raise LabelError(f"Of star {star} nothing is known: {', '.join(ticked) or 'nothing'} is ticked, {NAMES.get(wanted, wanted)} is wanted. Tick something else.")
    value, sigma = (float(part[0]) for part in model.request(known, [wanted])[wanted])
    flux, flux_sigma = _spectrum(model, known)
    observed = gaia_xp.load_design().flux @ np.array([table.column(name)[star] for name in COEFFICIENTS]) * gaia_xp.g_flux(np.array([G]))[0]
    code = (f"known = table.known({_source(ticked, wanted, first)}, [{star}])\nvalue, sigma = model.request(known, [\"{wanted}\"])[\"{wanted}\"]")
    return Asked(code, wanted, value, sigma, float(table.column(wanted, "truth")[star]), len(known), flux, flux_sigma, observed)


def request_figure(model: Answers, table: StarTable, star: int, ticked: Sequence[str], wanted: str) -> Figure:
    """The spectrum that is known or requested, and the answer beside what all stars of the table have; raises as ``ask``."""
    found = ask(model, table, star, ticked, wanted)
    with rc_context({**plots.STYLE, "font.size": 9}):
        figure = Figure(figsize=(10, 3.6), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        wave = gaia_xp.WAVE / 10
        if np.isfinite(found.observed).all():
            left.plot(wave, 1e17 * found.observed, color=plots.GREY, lw=2.2, alpha=0.6, label="observed")
        left.plot(wave, 1e17 * found.flux, color=plots.RED, label="told and requested together")
        left.fill_between(wave, *(1e17 * (found.flux + k * found.flux_sigma) for k in (-1, 1)), color=plots.RED, alpha=0.25, lw=0)
        left.set(xlabel="wavelength in vacuum [nm]", ylabel=r"flux at G = 15 [$10^{-17}$ W m$^{-2}$ nm$^{-1}$]", xlim=(336, 1020),
                 title=f"Star {star}; {found.told} observable{'s' * (found.told > 1)} told")
        left.legend(fontsize=8)
        _answer(right, found, table.column(wanted, "truth"))
    return figure


def _answer(ax, found: Asked, everybody):
    """A normal distribution about the answer, the truth, and all stars."""
    low, high = np.quantile(everybody, (0.005, 0.995))
    ends = min(low, found.value - 3 * found.sigma), max(high, found.value + 3 * found.sigma)
    x = np.linspace(*ends, 2000)
    ax.hist(everybody, np.linspace(low, high, 40), density=True, color="0.8", label="all stars")
    density = np.exp(-0.5 * ((x - found.value) / found.sigma) ** 2) / (found.sigma * (2 * np.pi) ** 0.5)
    top = 1.25 * max(patch.get_height() for patch in ax.patches)
    ax.fill_between(x, density * min(1, top / density.max()), color=plots.BLUE, alpha=0.5, lw=0, label="answer (cut to fit)" if density.max() > top else "answer")
    ax.axvline(found.truth, color="black", ls="--", lw=1.2, label="truth")
    unit = f" [{UNITS[found.wanted]}]" if UNITS[found.wanted] else ""
    digits = 0 if found.wanted == "teff" else 2
    ax.set(xlabel=f"{NAMES[found.wanted]}{unit}", ylabel="density", xlim=ends, ylim=(0, 1.3 * top), yticks=(),
           title=f"{NAMES[found.wanted]} = {found.value:.{digits}f} ± {found.sigma:.{digits}f}, truth {found.truth:.{digits}f}")
    ax.legend(fontsize=8, loc="upper right")


def _spectrum(model, known):
    """Known coefficients as they are, the others as requested."""
    design, missing = gaia_xp.load_design().flux, [name for name in COEFFICIENTS if name not in known]
    answer = model.request(known, missing)
    value, sigma = (np.array([answer[name][i][0] if name in answer else (known[name][0], 0.0)[i] for name in COEFFICIENTS]) for i in (0, 1))
    scale = gaia_xp.g_flux(np.array([G]))[0]
    return scale * (design @ value), scale * np.sqrt(design**2 @ sigma**2)


def _source(ticked, wanted, first):
    """The names as source code."""
    parts = []
    for tick in ticked:
        if tick in ("BP", "RP"):
            parts.append(f"*{tick}[:{first}]")
        elif tick == "colours":
            parts += ["*COLOURS"] if wanted not in COLOURS else [f'"{name}"' for name in COLOURS if name != wanted]
        elif tick != wanted:
            parts.append(f'"{tick}"')
    return f"({', '.join(parts)},)"
