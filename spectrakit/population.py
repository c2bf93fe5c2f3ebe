"""Which stars exist: label mixes to draw simulated stars from. Shapes are rough on purpose; they decide priors, not spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from .errors import MismatchError
from .library import Library


@dataclass(frozen=True)
class Population:
    """uniform : share of stars spread evenly in teff and logg, the rest on a main sequence and a giant branch.
    halo : share with -3.5 < feh < -0.8, evenly; the rest is a disc of mean ``disc`` and scatter 0.35 dex.
    free : share whose alpha_fe and c_fe are drawn evenly; the rest follows the trend of the Galaxy's stars with feh.
    """

    uniform: float
    halo: float
    disc: float
    free: float


POPULATIONS = {"milky_way": Population(uniform=0.1, halo=0.15, disc=-0.25, free=0.05), "training": Population(uniform=0.5, halo=0.4, disc=-0.2, free=0.3)}


def draw(name: str, n: int, rng: np.random.Generator, library: Library) -> Float[np.ndarray, "n 5"]:
    """Labels (teff K, logg, feh, alpha_fe, c_fe dex) of ``n`` stars inside the library's hull.

    Raises
    ------
    MismatchError
        The population's name is unknown.
    """
    if name not in POPULATIONS:
        raise MismatchError(f"No population {name!r}; known are: {', '.join(POPULATIONS)}.")
    kept, found = [], 0
    while found < n:
        labels = _candidates(POPULATIONS[name], max(2 * n, 1000), rng)
        labels = labels[library.contains(torch.as_tensor(labels)).numpy()]
        kept.append(labels)
        found += len(labels)
    return np.concatenate(kept)[:n]


def _candidates(p: Population, n: int, rng: np.random.Generator) -> np.ndarray:
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
    return np.stack([teff, logg, feh, alpha_fe, c_fe], 1)
