"""Who knows the library, the dust and the instrument: what a perfect model would answer to labels alone. No model, a control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from astropy.table import Table
from jaxtyping import Float

from .. import gaia_xp
from ..errors import LabelError
from ..library import load_library
from ..models.star_transformer import BP, RP
from ..pretraining.stars import absolute_g

NEEDS = ("teff", "logg", "m_h", "ln_ebv")
SAYS = (*BP, *RP, "bp_rp", "g_luminosity")


class Oracle:
    """``request`` as of ``StarTransformer``, for stars of one solar mass with the Sun's [alpha/Fe] and [C/Fe], in dust with this ``r_v``; sigma is 0.

    It is exact for these stars only: to [M/H] alone, a real star has [alpha/Fe] and a mass of its own, and the best answer is a mean over them.
    """

    def __init__(self, r_v: float | int = 3.1):
        self.r_v, self._library = float(r_v), load_library("xp")

    def request(self, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """``{name: (value (n,), zeros (n,))}``.

        Raises
        ------
        LabelError
            Known is anything but teff, logg, m_h and ln_ebv; asked for is what the library does not have; labels outside its hull.
        """
        if set(known) != set(NEEDS) or (odd := [name for name in wanted if name not in SAYS]):
            raise LabelError(f"Known are {', '.join(known)}; the oracle needs {', '.join(NEEDS)}, no more, and tells coefficients, bp_rp and g_luminosity"
                             + ("." if set(known) != set(NEEDS) else f", not {odd[0]}."))
        n = len(known["teff"])
        table = Table({"teff": known["teff"], "logg": known["logg"], "feh": known["m_h"], "alpha_fe": np.zeros(n), "c_fe": np.zeros(n),
                       "ebv": np.exp(known["ln_ebv"]), "r_v": np.full(n, self.r_v), "mass": np.ones(n)})
        numbers = torch.as_tensor(np.stack([np.asarray(table[name], "f8") for name in ("teff", "logg", "feh", "alpha_fe", "c_fe")], 1))
        self._library.check(numbers)
        wave = self._library.wave.numpy()
        light = (self._library.flux_unchecked(numbers) * self._library.continuum_at(wave, numbers)).double().numpy()
        coeff = (light * gaia_xp.extinguish(wave, np.asarray(table["ebv"]), np.asarray(table["r_v"]))) @ gaia_xp.instrument(wave)
        g, bp, rp = gaia_xp.load_design().magnitudes(coeff).T
        value = dict(zip((*BP, *RP), (coeff / gaia_xp.g_flux(g)[:, None]).T, strict=True))
        value |= {"bp_rp": bp - rp, "g_luminosity": 10 ** (0.2 * (absolute_g(table) + 10))}
        return {name: (value[name], np.zeros(n)) for name in wanted}
