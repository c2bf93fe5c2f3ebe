"""Which stars exist: label mixes of the Galaxy's thin disc, thick disc and halo as surveys select them.

Every survey is one entry of ``POPULATIONS``; its numbers are fitted to a catalogue by ``tools/fit_population.py`` or said to be assumed. How well
they fit, and what the sequences leave out, is in ``docs/population.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from astropy import units as u
from astropy.table import Table
from jaxtyping import Float

from .errors import MismatchError
from .library import LABELS, Library, load_library
from .photometry import draw_mass, intrinsic_colours, luminosity, observed_colours
from .spectra import label_table

EDGE = (100.0, 0.2)                                   # K, dex: closer to where the library ends than this counts as at its edge
DREDGE_UP = (3.3, 0.15)                               # below this logg, [C/Fe] is lower by so much: giants against dwarfs in Hypatia and APOGEE


@dataclass(frozen=True)
class Component:
    """feh : mean and scatter (the thin disc's are the survey's own).
    alpha, carbon : (zero point, slope, ceiling, scatter) of alpha_fe and c_fe: zero point + slope * feh, at most the ceiling.
    mass : median in solar masses and scatter in dex, of giants.
    """

    name: str
    feh: tuple[float, float]
    alpha: tuple[float, float, float, float]
    carbon: tuple[float, float, float, float]
    mass: tuple[float, float]


COMPONENTS = (
    Component("thin", (0.0, 0.0), (0.03, -0.20, 0.23, 0.04), (0.03, -0.22, 0.29, 0.06), (1.25, 0.09)),
    Component("thick", (-0.55, 0.25), (0.05, -0.27, 0.28, 0.05), (0.13, -0.37, 0.27, 0.08), (1.0, 0.05)),
    Component("halo", (-1.5, 0.5), (0.13, -0.10, 0.37, 0.09), (-0.20, -0.20, 0.40, 0.20), (0.8, 0.04)),
)


@dataclass(frozen=True)
class Population:
    """One survey's selection.

    components : shares of thin disc, thick disc, halo.
    disc : mean and scatter of the thin disc's feh.
    stages : shares of dwarfs, subgiants, first-ascent giants, red-clump stars, the same in every component.
    dwarf_teff : peak, scatter to the cool side, scatter to the hot side of the dwarfs' temperatures, K.
    evolved : how far dwarfs above 5600 K have risen from the zero-age line in logg, the scatter of a half-normal; less in cooler ones, none below 4800 K.
    branch : mean and scatter of the giants' logg, folded at 3.6, the foot of the giant branch.
    ebv : mean E(B-V) in mag; exponential.
    source : what the numbers were fitted to.
    """

    components: tuple[float, float, float]
    disc: tuple[float, float]
    stages: tuple[float, float, float, float]
    dwarf_teff: tuple[float, float, float]
    evolved: float
    branch: tuple[float, float]
    ebv: float
    source: str


@dataclass(frozen=True)
class EvenMix:
    """A mix that covers the library rather than the sky; what networks are pretrained on.

    uniform : share of stars spread evenly in teff and logg, the rest on a main sequence and a giant branch.
    halo : share with -3.5 < feh < -0.8, evenly; the rest is a disc of mean ``disc`` and scatter 0.35 dex.
    free : share whose alpha_fe and c_fe are drawn evenly; the rest follows the trend of the Galaxy's stars with feh.
    """

    uniform: float
    halo: float
    disc: float
    free: float


LAMOST = Population(
    components=(0.595, 0.3, 0.105), disc=(-0.15, 0.225), stages=(0.795, 0.106, 0.067, 0.032), dwarf_teff=(6290.0, 1100.0, 560.0), evolved=0.28,
    branch=(2.9, 1.0), ebv=0.1, source="LAMOST DR10 A, F and G stars (LASP); share of K dwarfs: pilot survey; ebv assumed")
POPULATIONS = {
    "training": EvenMix(uniform=0.5, halo=0.4, disc=-0.2, free=0.3),
    "lamost": LAMOST,
    "apogee": Population(
        components=(0.88, 0.098, 0.022), disc=(-0.14, 0.225), stages=(0.1, 0.039, 0.712, 0.149), dwarf_teff=(5900.0, 700.0, 400.0), evolved=0.25,
        branch=(2.75, 0.52), ebv=0.25, source="APOGEE DR12 giants observed by LAMOST; share and temperatures of dwarfs and ebv assumed"),
    "gaia": Population(
        components=(0.75, 0.21, 0.04), disc=(-0.15, 0.22), stages=(0.63, 0.12, 0.17, 0.08), dwarf_teff=(5800.0, 700.0, 500.0), evolved=0.2,
        branch=(2.7, 0.6), ebv=0.2, source="assumed for G < 17.5, no catalogue at hand; a quarter giants, between arXiv 2302.02611 and 2410.19895"),
    "miles": Population(
        components=(0.448, 0.409, 0.143), disc=(0.02, 0.15), stages=(0.467, 0.115, 0.321, 0.097), dwarf_teff=(6320.0, 1140.0, 555.0), evolved=0.295,
        branch=(2.0, 0.81), ebv=0.05, source="MILES (Cenarro et al. 2007); ebv assumed"),
    "desi_x_apogee": Population(
        components=(0.55, 0.3, 0.15), disc=(-0.15, 0.22), stages=(0.45, 0.1, 0.35, 0.1), dwarf_teff=(5500.0, 700.0, 500.0), evolved=0.2,
        branch=(2.5, 0.7), ebv=0.04, source="assumed, but for the share of feh < -1: 60 of 396 stars of DESI EDR and APOGEE DR17 (arXiv 2507.20972)"),
}


def draw(name: str, n: int, rng: np.random.Generator, library: Library) -> Float[np.ndarray, "n 5"]:
    """Labels (teff K, logg, feh, alpha_fe, c_fe dex) of ``n`` stars inside the library's hull.

    Raises
    ------
    MismatchError
        The population's name is unknown.
    """
    return _draw(_population(name), n, rng, library)[0]


def catalogue(name: str, n: int, seed: int, library: Library | None = None) -> Table:
    """The stars that ``draw(name, n, np.random.default_rng(seed), library)`` gives, with what a survey's input catalogue says about them.

    Returns
    -------
    Table, one row a star: ``star``; ``teff`` (K), ``logg``, ``feh``, ``alpha_fe``, ``c_fe`` (dex); ``component``, thin, thick or halo; ``mass`` and
    ``luminosity`` (solar); ``ebv``, ``j_h``, ``j_k`` (mag; 2MASS colours, reddened, with scatter); ``edge``, True where the library ends within
    100 K on the cool side or 0.2 dex on the low-gravity side, so that the sequence is cut off there. ``meta["cut"]`` is the share of the
    population's stars outside the library; they were replaced by others.

    Raises
    ------
    MismatchError
        The population's name is unknown, or its stars belong to no component of the Galaxy (``"training"``).
    """
    population, rng = _population(name), np.random.default_rng(seed)
    library = load_library() if library is None else library
    if isinstance(population, EvenMix):
        raise MismatchError(f"The population {name!r} is an even mix without components, masses or dust; a catalogue can be drawn from: "
                            f"{', '.join(key for key, p in POPULATIONS.items() if isinstance(p, Population))}.")
    labels, component, cut = _draw(population, n, rng, library)
    teff, logg, feh = labels[:, :3].T
    mass = draw_mass(teff, logg, feh, *np.array([c.mass for c in COMPONENTS])[component].T, rng)
    ebv = rng.exponential(population.ebv, n)
    j_h, j_k = observed_colours(*intrinsic_colours(teff, logg, feh), ebv, rng)
    table = label_table(star=np.array([f"sim{i:07d}" for i in range(n)]), **dict(zip(LABELS, labels.T, strict=True)),
                        component=np.array([c.name for c in COMPONENTS])[component], mass=mass * u.Msun, luminosity=luminosity(mass, teff, logg) * u.Lsun,
                        ebv=ebv * u.mag, j_h=j_h * u.mag, j_k=j_k * u.mag, edge=at_edge(labels, library))
    table.meta = {"population": name, "source": population.source, "cut": cut}
    return table


def main_sequence(teff: Float[np.ndarray, " n"], feh: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """logg of unevolved dwarfs, (n,): the zero-age line of the populations here."""
    x = (teff - 4500.0) / 1000.0
    return 4.63 - 0.05 * x - 0.05 * x**2 - 0.05 * np.maximum(feh, -2.0)


def at_edge(labels: Float[np.ndarray, "n 5"], library: Library) -> np.ndarray:
    """Boolean (n,): the library ends within 100 K on the cool side or within 0.2 dex on the low-gravity side of these stars."""
    edge = np.zeros(len(labels), bool)
    for step in ((-EDGE[0], 0, 0, 0, 0), (0, -EDGE[1], 0, 0, 0)):
        edge |= ~library.contains(torch.as_tensor(labels + np.array(step))).numpy()
    return edge


def _population(name: str) -> Population | EvenMix:
    if name not in POPULATIONS:
        raise MismatchError(f"No population {name!r}; known are: {', '.join(POPULATIONS)}.")
    return POPULATIONS[name]


def _draw(population: Population | EvenMix, n: int, rng: np.random.Generator, library: Library) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels (n, 5), component (n,), and the share of candidates outside the hull."""
    candidates = _even if isinstance(population, EvenMix) else _galaxy
    kept, found, tried = [], 0, 0
    while found < n:
        labels, component = candidates(population, max(2 * n, 1000), rng)
        inside = library.contains(torch.as_tensor(labels)).numpy()
        kept.append((labels[inside], component[inside]))
        found, tried = found + inside.sum(), tried + len(labels)
    labels, component = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
    return labels, component, 1.0 - float(found) / tried


def _galaxy(p: Population, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    component = rng.choice(3, n, p=p.components)
    mean, scatter = np.array([p.disc, *(c.feh for c in COMPONENTS[1:])])[component].T
    feh = mean + scatter * rng.standard_normal(n)
    teff, logg = _sequences(p, component, feh, rng)
    alpha_fe = _trend(np.array([c.alpha for c in COMPONENTS])[component], feh, rng)
    c_fe = _trend(np.array([c.carbon for c in COMPONENTS])[component], feh, rng) - DREDGE_UP[1] * (logg < DREDGE_UP[0])
    return np.stack([teff, logg, feh, alpha_fe, c_fe], 1), component


def _sequences(p: Population, component, feh, rng) -> tuple[np.ndarray, np.ndarray]:
    """teff and logg of stars of four stages. Dwarfs leave the zero-age line upwards the hotter they are; old ones stop at the turn-off of 11 Gyr."""
    n = len(feh)
    z = np.maximum(feh, -2.0)
    turn_off = np.where(component == 0, 7600.0, 5800.0 - 400.0 * np.clip(feh, -1.75, 0.5))
    peak, cool, hot = p.dwarf_teff
    spread = np.abs(rng.standard_normal(n))
    dwarf = np.where(rng.random(n) < cool / (cool + hot), peak - cool * spread, peak + hot * spread)
    dwarf = np.minimum(dwarf, turn_off - 150.0 * np.abs(rng.standard_normal(n)))
    evolved = np.abs(rng.standard_normal(n)) * p.evolved * np.clip((dwarf - 4500.0) / 1000.0 - 0.3, 0.0, 0.8) / 0.8
    dwarf_logg = main_sequence(dwarf, feh) - evolved + 0.03 * rng.standard_normal(n)
    along = rng.random(n)
    subgiant = (1 - along) * np.minimum(turn_off, 6300.0) + along * (5050.0 - 190.0 * z)
    subgiant_logg = 4.05 - 0.45 * along + 0.12 * rng.standard_normal(n)
    giant_logg = 3.6 - np.abs(3.6 - p.branch[0] - p.branch[1] * rng.standard_normal(n))
    up = giant_logg - 2.5
    giant = 4680.0 + 430.0 * up - 90.0 * up**2 - 190.0 * z + 55.0 * rng.standard_normal(n)
    clump_logg = 2.55 + 0.1 * rng.standard_normal(n)
    clump = 4810.0 - 190.0 * z + 65.0 * rng.standard_normal(n)
    stage = rng.choice(4, n, p=p.stages)
    return np.choose(stage, [dwarf, subgiant, giant, clump]), np.choose(stage, [dwarf_logg, subgiant_logg, giant_logg, clump_logg])


def _trend(numbers: Float[np.ndarray, "n 4"], feh, rng) -> np.ndarray:
    zero, slope, ceiling, scatter = numbers.T
    return np.minimum(zero + slope * feh, ceiling) + scatter * rng.standard_normal(len(feh))


def _even(p: EvenMix, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    feh = np.where(rng.random(n) < p.halo, rng.uniform(-3.5, -0.8, n), rng.normal(p.disc, 0.35, n))
    kind = rng.choice(3, n, p=[p.uniform, (1 - p.uniform) / 2, (1 - p.uniform) / 2])
    dwarf_teff, giant_teff = rng.uniform(4200, 7000, n), rng.uniform(4200, 5400, n)
    evolved = np.abs(rng.normal(0, 0.25, n)) * (dwarf_teff > 5200)
    dwarf_logg = 4.55 - 0.35 * np.clip((dwarf_teff - 5000) / 2000, -0.2, 1.2) - evolved + rng.normal(0, 0.1, n)
    giant_logg = 1.5 + 1.6 * (giant_teff - 4250 + 180 * feh) / 750 + rng.normal(0, 0.3, n)
    teff = np.select([kind == 0, kind == 1], [rng.uniform(4200, 7000, n), dwarf_teff], giant_teff)
    logg = np.select([kind == 0, kind == 1], [rng.uniform(1.5, 5.0, n), dwarf_logg], giant_logg)
    free = rng.random(n) < p.free
    alpha_fe = np.where(free, rng.uniform(-0.2, 0.6, n), np.clip(-0.3 * feh, 0.0, 0.3) + rng.normal(0, 0.08, n))
    c_fe = np.where(free, rng.uniform(-0.6, 0.75, n), rng.normal(0, 0.12, n) - 0.15 * (logg < 3.0))
    return np.stack([teff, logg, feh, alpha_fe, c_fe], 1), np.full(n, -1)
