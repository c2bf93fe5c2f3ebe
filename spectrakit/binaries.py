"""Unresolved binaries: the light of two stars in one spectrum."""

from __future__ import annotations

import numpy as np
import torch
from astropy.table import Table

from . import population
from .errors import LabelError
from .library import LABELS, Library, load_library
from .photometry import draw_mass
from .simulation import observe
from .spectra import SpectraSet, label_table
from .surveys import Survey, get_survey

COOLEST = 4250.0                              # K of a companion: the library ends at 4200
LEAST_STEP = 300.0                            # K between the two: twins have the spectrum of one star


def draw_binaries(n: int, seed: int, name: str = "gaia") -> Table:
    """Main-sequence pairs of one composition: the primaries' labels, and ``teff_b`` (K), ``logg_b`` of companions on the same sequence, ``light_b``.

    ``light_b`` is the ratio of the two surfaces, R_b^2 / R_a^2 = (M_b / M_a) (g_a / g_b), masses by Torres et al. 2010. Temperatures of companions are
    uniform from 4250 K to 300 K below the primary's, so that every contrast is there; real ones follow the distribution of mass ratios.
    """
    rng, library = np.random.default_rng(seed), load_library("xp")
    a = population.draw(name, 20 * n + 500, rng, library)
    a = a[(a[:, 0] > COOLEST + LEAST_STEP + 200) & (a[:, 1] > 4.0)]
    b = a.copy()
    b[:, 0] = rng.uniform(COOLEST, a[:, 0] - LEAST_STEP)
    b[:, 1] = population.main_sequence(b[:, 0], b[:, 2])
    inside = library.contains(torch.as_tensor(b)).numpy()
    a, b = a[inside][:n], b[inside][:n]
    if len(a) < n:
        raise LabelError(f"The population {name!r} gave {len(a)} dwarfs hot enough for a cooler companion; {n} were asked for. Use a population with dwarfs.")
    mass = [draw_mass(*x[:, :3].T, np.ones(n), np.zeros(n), np.random.default_rng(seed)) for x in (a, b)]
    light = mass[1] / mass[0] * 10 ** (a[:, 1] - b[:, 1])
    return label_table(star=np.array([f"binary{i:06d}" for i in range(n)]), **dict(zip(LABELS, a.T, strict=True)), teff_b=b[:, 0], logg_b=b[:, 1], light_b=light)


def simulate_binaries(survey: str | Survey, binaries: Table, seed: int) -> SpectraSet:
    """Binaries of ``draw_binaries`` as a survey sees them: both surface fluxes, weighted by their surfaces, through one instrument, at one velocity.

    Raises
    ------
    LabelError
        The table lacks a column, or one of the two stars is outside the library.
    """
    missing = [name for name in (*LABELS, "teff_b", "logg_b", "light_b") if name not in binaries.colnames]
    if missing:
        raise LabelError(f"The table of binaries lacks {', '.join(missing)}; make it with draw_binaries.")
    survey = get_survey(survey)
    library = load_library(survey.library)
    a = torch.as_tensor(np.stack([np.asarray(binaries[name], "f8") for name in LABELS], 1))
    b = a.clone()
    b[:, 0], b[:, 1] = (torch.as_tensor(np.asarray(binaries[name], "f8")) for name in ("teff_b", "logg_b"))
    for labels in (a, b):
        library.check(labels)
    light = torch.as_tensor(np.asarray(binaries["light_b"], "f4"))[:, None]

    def opacity(rows):
        both = _surface(library, a[rows]) + light[rows] * _surface(library, b[rows])
        return -torch.log(both / library.continuum_at(library.wave.numpy(), a[rows]))

    return observe(opacity, binaries, survey, library, np.random.default_rng(seed), survey.systematics)


def _surface(library: Library, labels: torch.Tensor) -> torch.Tensor:
    return library.flux_unchecked(labels) * library.continuum_at(library.wave.numpy(), labels)
