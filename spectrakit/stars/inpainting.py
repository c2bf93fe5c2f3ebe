"""One arm of the XP spectrograph from the other: BP from RP, RP from BP, joined at 640 nm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .. import gaia_xp
from ..errors import LabelError
from ..models.star_transformer import BP, RP
from ..pretraining import stars
from .inputs import Answers

ARMS = {"bp": slice(0, gaia_xp.N_BP), "rp": slice(gaia_xp.N_BP, 2 * gaia_xp.N_BP)}
NAMES = {"bp": BP, "rp": RP}
OTHER = {"bp": "rp", "rp": "bp"}
N_KNOWN = 52                                          # of the other arm's 55, as published
JOIN = 6400.0                                         # Angstrom: BP to the blue, RP to the red
BLEND = (6350.0, 6430.0)                              # where the sampled spectrum is a weighted mean of both arms


@dataclass(frozen=True, eq=False)
class Inpainted:
    """coeff : (n, 110) over the G flux, the hidden arm's as predicted. sigma : (n, 110), 0 where known. arm : the hidden one."""

    coeff: Float[np.ndarray, "n 110"]
    sigma: Float[np.ndarray, "n 110"]
    arm: str

    @property
    def spectrum(self) -> Float[np.ndarray, "n 343"]:
        """Over the G flux, at ``gaia_xp.WAVE``; observed on one side of the blend, predicted on the other."""
        return self.coeff @ gaia_xp.load_design().flux.T

    @property
    def hidden(self) -> Bool[np.ndarray, " 343"]:
        """Where the spectrum is predicted alone."""
        return gaia_xp.WAVE < BLEND[0] if self.arm == "bp" else gaia_xp.WAVE > BLEND[1]


def relevant(coeff: Float[np.ndarray, "n 110"], error: Float[np.ndarray, "n 110"]) -> Bool[np.ndarray, "n 110"]:
    """False for the coefficients of an arm from where the rest of it is noise: what was told in training, and what to tell of real spectra."""
    return stars.relevant(coeff / error)[:, :2 * gaia_xp.N_BP]


def inpaint(model: Answers, coeff: Float[np.ndarray, "n 110"], arm: str, told: Bool[np.ndarray, "n 110"] | None = None) -> Inpainted:
    """Predict one arm from 52 coefficients of the other.

    A coefficient over the G flux is not innocent: G is light of both arms, so one arm over it tells how much the other has. All methods here and the
    published one are told that alike.

    Parameters
    ----------
    coeff : over the G flux. arm : ``"bp"`` or ``"rp"``, to be predicted.
    told : False for coefficients that are not to be told, see ``relevant``.

    Raises
    ------
    LabelError
        No such arm.
    """
    if arm not in ARMS:
        raise LabelError(f"No arm {arm!r}; expected 'bp' or 'rp', the one to be predicted.")
    value = coeff if told is None else np.where(told, coeff, np.nan)
    own, other = ARMS[arm], ARMS[OTHER[arm]]
    known = dict(zip(NAMES[OTHER[arm]][:N_KNOWN], value[:, other].T, strict=False))
    answer = model.request(known, NAMES[arm])
    filled, sigma = coeff.copy(), np.zeros(coeff.shape)
    filled[:, own], sigma[:, own] = (np.stack([answer[name][i] for name in NAMES[arm]], 1) for i in (0, 1))
    return Inpainted(filled, sigma, arm)


def in_errors(found: Inpainted, coeff: Float[np.ndarray, "n 110"], error: Float[np.ndarray, "n 110"]) -> Float[np.ndarray, "n 55"]:
    """(predicted - observed) / standard error of the hidden arm's coefficients: 1 would be an error as large as Gaia's own."""
    own = ARMS[found.arm]
    return (found.coeff - coeff)[:, own] / error[:, own]
