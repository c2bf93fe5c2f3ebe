"""The same stars seen twice: a normalised spectrum of the optical window (LRS) and a Gaia XP spectrum of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from astropy.table import Table
from jaxtyping import Float
from torch import Tensor

from . import population
from .continuum import fill_masked, normalize
from .errors import MismatchError
from .library import load_library
from .simulation import simulate
from .spectra import SpectraSet
from .surveys import GAIA_XP, Survey, get_survey


@dataclass(frozen=True, eq=False)
class Pairs:
    """Row i of ``lrs`` and row i of ``xp`` are the same star; both are normalised (flux over continuum; flux over flux at 550 nm).

    Raises
    ------
    MismatchError
        Numbers of spectra, or the columns ``star`` of the two, differ.
    """

    lrs: SpectraSet
    xp: SpectraSet

    def __post_init__(self):
        if len(self.lrs) != len(self.xp):
            raise MismatchError(f"{len(self.lrs)} LRS spectra and {len(self.xp)} XP spectra; a pair has one of each. Choose the rows that belong together.")
        stars = [s.labels["star"] for s in (self.lrs, self.xp) if "star" in s.labels.colnames]
        if len(stars) == 2 and (np.asarray(stars[0]) != np.asarray(stars[1])).any():
            row = int((np.asarray(stars[0]) != np.asarray(stars[1])).argmax())
            raise MismatchError(f"Row {row} is star '{stars[0][row]}' in LRS and '{stars[1][row]}' in XP; bring both into one order.")

    def __len__(self) -> int:
        return len(self.lrs)

    def __getitem__(self, rows) -> Pairs:
        return Pairs(self.lrs[rows], self.xp[rows])

    def tensors(self) -> tuple[Float[Tensor, "n n_lrs"], Float[Tensor, "n n_xp"]]:
        """Both fluxes as float32, masked pixels bridged."""
        return tuple(torch.as_tensor(fill_masked(s), dtype=torch.float32) for s in (self.lrs, self.xp))


def simulate_pairs(survey: str | Survey, n: int, seed: int, *, labels: Float[np.ndarray, "n 5"] | Table | None = None, xp: Survey = GAIA_XP,
                   strength: float | int | Float[np.ndarray, " n"] = 1.0, recipe: str = "robust") -> Pairs:
    """``n`` stars of ``survey``'s population seen by it and by Gaia XP, where they carry dust; noise and systematics are drawn for each apart.

    Parameters
    ----------
    survey : of the first spectrum (a name or a declaration); ``xp`` a declaration of the second, to change its systematics.
    seed, labels, strength : as in ``simulate``.
    recipe : of the first spectrum's normalisation.

    Raises
    ------
    LabelError
        Labels outside one of the two libraries.
    """
    survey, (first, second, drawn) = get_survey(survey), np.random.SeedSequence(seed).generate_state(3)
    if labels is None:
        labels = population.draw(survey.population, n, np.random.default_rng(int(drawn)), load_library("xp"))
    lrs = simulate(survey, n, int(first), labels=labels, strength=strength)
    return Pairs(normalize(lrs, recipe), normalize(simulate(xp, n, int(second), labels=lrs.labels, strength=strength), "550nm"))


def bright(survey: str | Survey) -> Survey:
    """The same survey of stars so bright that noise does not matter: S/N 2000 a pixel. (Gaia XP: give the stars ``g`` = 6 instead.)"""
    return replace(get_survey(survey), snr=(2000.0, 2000.0))
