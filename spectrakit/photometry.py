"""What a star looks like from outside: near-infrared colours, mass and luminosity from its labels, by published relations."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Gonzalez Hernandez & Bonifacio 2009 (A&A 497, 497): 5040 K / teff = b0 + b1 X + b2 X^2 + b3 X feh + b4 feh + b5 feh^2 for the colour X
DWARFS = {"v_j": (0.4997, 0.3504, -0.0230, -0.0295, 0.0468, 0.0037), "v_h": (0.5341, 0.2517, -0.0100, -0.0236, 0.0523, 0.0044),
          "v_k": (0.5201, 0.2511, -0.0118, -0.0186, 0.0408, 0.0033)}
GIANTS = {"v_j": (0.4629, 0.4124, -0.0417, -0.0012, 0.0094, 0.0013), "v_h": (0.5321, 0.2649, -0.0146, -0.0069, 0.0211, 0.0009),
          "v_k": (0.5293, 0.2489, -0.0119, -0.0042, 0.0135, 0.0010)}
BAND_SCATTER = 0.018                        # mag, of each of J, H, Ks; see observed_colours
REDDENING = {"j": 0.719, "h": 0.455, "k": 0.306}          # A / E(B-V), as in Casagrande et al. 2021 (MNRAS 507, 2684): law of Fitzpatrick 1999
TORRES = (1.5689, 1.3787, 0.4243, 1.139, -0.1425, 0.01969, 0.1010)             # Torres, Andersen & Gimenez 2010 (A&ARv 18, 67)
TORRES_SCATTER = 0.027                      # dex in mass, as they find
TORRES_LOWEST = -2.0                        # [Fe/H] below which the mass no longer falls: models of old stars say so, the relation's stars end far above
EVOLVED = 3.6                               # logg below which the mass is the component's instead: the relation has few giants, all of them massive


def intrinsic_colours(teff: Float[np.ndarray, " n"], logg: Float[np.ndarray, " n"], feh: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """J-H and J-Ks (2MASS, mag) without dust or scatter: (n,) each.

    V-J, V-H and V-Ks of Gonzalez Hernandez & Bonifacio 2009 solved for the colour, and their differences; their relation for dwarfs from logg 3.8 up,
    for giants from 3.0 down, in between the mean weighted by logg. Made for 4000-7000 K, -3.5 < feh < +0.5 (giants: to +0.2); beyond, the quadratic
    goes on. The Sun comes out at 0.27 and 0.36 mag (Casagrande et al. 2012, ApJ 761, 16: 0.286, 0.362).
    """
    dwarf = np.clip((logg - 3.0) / 0.8, 0.0, 1.0)
    colour = {band: dwarf * _solve(DWARFS[band], teff, feh) + (1 - dwarf) * _solve(GIANTS[band], teff, feh) for band in DWARFS}
    return colour["v_h"] - colour["v_j"], colour["v_k"] - colour["v_j"]


def observed_colours(j_h: Float[np.ndarray, " n"], j_k: Float[np.ndarray, " n"], ebv: Float[np.ndarray, " n"],
                     rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsic J-H and J-Ks (mag) with reddening E(B-V) = ``ebv`` (mag) and scatter: (n,) each.

    J, H and Ks scatter by 0.018 mag each, independently, so that the two colours share J's. In J-Ks this makes 132 K at the Sun, what Casagrande et
    al. 2010 (A&A 512, A54, Table 4) find for 412 stars, photometric errors of 2MASS included.
    """
    j, h, k = rng.normal(0.0, BAND_SCATTER, (3, len(j_h)))
    return (j_h + (REDDENING["j"] - REDDENING["h"]) * ebv + j - h, j_k + (REDDENING["j"] - REDDENING["k"]) * ebv + j - k)


def draw_mass(teff: Float[np.ndarray, " n"], logg: Float[np.ndarray, " n"], feh: Float[np.ndarray, " n"], evolved: Float[np.ndarray, " n"],
              scatter: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Masses in solar masses, (n,).

    Dwarfs and subgiants (logg >= 3.6): the relation of Torres et al. 2010 for teff, logg and feh, scatter 0.027 dex; it gives the Sun 1.05.
    Giants: log-normal about ``evolved`` (solar masses) with ``scatter`` (dex), whatever their teff.
    """
    x = np.log10(teff) - 4.1
    a = TORRES
    unevolved = a[0] + a[1] * x + a[2] * x**2 + a[3] * x**3 + a[4] * logg**2 + a[5] * logg**3 + a[6] * np.maximum(feh, TORRES_LOWEST)
    giant = logg < EVOLVED
    return 10 ** (np.where(giant, np.log10(evolved), unevolved) + np.where(giant, scatter, TORRES_SCATTER) * rng.standard_normal(len(teff)))


def luminosity(mass: Float[np.ndarray, " n"], teff: Float[np.ndarray, " n"], logg: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Luminosity in solar luminosities, (n,): 4 pi R^2 sigma teff^4 with R^2 = G M / g; ``mass`` in solar masses. astropy's constants."""
    from astropy import constants as c
    from astropy import units as u
    radius_squared = c.GM_sun * mass / (10**logg * u.cm / u.s**2)
    return (4 * np.pi * radius_squared * c.sigma_sb * (teff * u.K) ** 4 / c.L_sun).to_value(u.one)


def _solve(b: tuple, teff, feh):
    """The colour at which the relation gives ``teff``: the root on the branch where redder is cooler."""
    linear = b[1] + b[3] * feh
    constant = b[0] + b[4] * feh + b[5] * feh**2 - 5040.0 / teff
    return (np.sqrt(linear**2 - 4 * b[2] * constant) - linear) / (2 * b[2])
