"""Labels in, spectra or other labels out: along the main sequence, the giant branch, [M/H], or any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .. import gaia_xp, population
from ..errors import LabelError
from ..models.star_transformer import BP, RP
from .inputs import Answers

COEFFICIENTS = (*BP, *RP)
NO_DUST = -7.0                                        # ln E(B-V): the least of the training stars, 0.001 mag


@dataclass(frozen=True, eq=False)
class Spectra:
    """wave : (343,) Angstrom, vacuum. flux : (n, 343) W / m2 / nm. sigma : (n, 343), of independent coefficients, which they are not: too wide or too
    narrow by what their errors have in common. g : (n,) the magnitude that the flux was scaled to. coeff : (n, 110) over the G flux."""

    wave: Float[np.ndarray, " 343"]
    flux: Float[np.ndarray, "n 343"]
    sigma: Float[np.ndarray, "n 343"]
    g: Float[np.ndarray, " n"]
    coeff: Float[np.ndarray, "n 110"]


def main_sequence(teff: Float[np.ndarray, " n"], m_h: float | int = 0.0, ln_ebv: float | int = NO_DUST) -> dict[str, Float[np.ndarray, " n"]]:
    """Known labels of unevolved dwarfs: logg by the zero-age line of ``population``."""
    return labels(teff=teff, logg=population.main_sequence(teff, np.full(len(teff), float(m_h))), m_h=m_h, ln_ebv=ln_ebv)


def giant_branch(logg: Float[np.ndarray, " n"], m_h: float | int = 0.0, ln_ebv: float | int = NO_DUST) -> dict[str, Float[np.ndarray, " n"]]:
    """Known labels of first-ascent giants: teff = 5200 K - 441 K (3.65 - logg), the line of Leung & Bovy 2024 (MNRAS 527, 1494)."""
    return labels(teff=5200.0 - 441.0 * (3.65 - logg), logg=logg, m_h=m_h, ln_ebv=ln_ebv)


def labels(**values) -> dict[str, Float[np.ndarray, " n"]]:
    """Numbers and (n,) arrays as what ``request`` takes: (n,) each.

    Raises
    ------
    LabelError
        Arrays of different length.
    """
    try:
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(value, "f8")) for value in values.values()))
    except ValueError:
        raise LabelError(f"Labels of different length: {', '.join(f'{name} {np.shape(value)}' for name, value in values.items())}; "
                         "expected single numbers and arrays of one length.") from None
    return dict(zip(values, arrays, strict=True))


def spectra(model: Answers, known: dict[str, Float[np.ndarray, " n"]], g: float | int | None = None) -> Spectra:
    """Spectra of what is known: 110 requests, put together.

    Parameters
    ----------
    g : magnitude of the stars. None: as seen from 10 pc through their dust, by the luminosity that is asked for as well: G = 5 lg luminosity - 10.

    Raises
    ------
    LabelError
        As ``StarTransformer.request``; a luminosity that is not positive.
    """
    design = gaia_xp.load_design().flux
    wanted = COEFFICIENTS if g is not None or "g_luminosity" in known else (*COEFFICIENTS, "g_luminosity")
    answer = model.request(known, [name for name in wanted if name not in known])
    value, sigma = (np.stack([_part(name, answer, known)[i] for name in COEFFICIENTS], 1) for i in (0, 1))
    magnitude = np.full(len(value), float(g)) if g is not None else absolute_magnitude(_part("g_luminosity", answer, known)[0])
    scale = gaia_xp.g_flux(magnitude)[:, None]
    return Spectra(gaia_xp.WAVE, scale * (value @ design.T), scale * np.sqrt(sigma**2 @ design.T**2), magnitude, value)


def absolute_magnitude(g_luminosity: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Absolute G (mag), dust included, of parallax (mas) times 10^(G / 5)."""
    if not (g_luminosity > 0).all():
        raise LabelError(f"{int((~(g_luminosity > 0)).sum())} luminosities are not positive and have no magnitude; leave these stars out, or give g.")
    return 5 * np.log10(g_luminosity) - 10


def on_grid(model: Answers, axes: dict[str, Float[np.ndarray, " _"]], wanted: Sequence[str], **fixed: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Requests on a grid: Kiel diagrams (``{"logg": ..., "m_h": ...}`` -> teff) and stellar loci (``{"teff": ...}`` -> colours).

    Returns
    -------
    ``{name: (value, sigma)}``, arrays with one axis for each of ``axes``, in their order. ``fixed`` : known of all.
    """
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    known = labels(**{name: part.ravel() for name, part in zip(axes, mesh, strict=True)}, **fixed)
    return {name: tuple(part.reshape(mesh[0].shape) for part in found) for name, found in model.request(known, wanted).items()}


def _part(name: str, answer: dict, known: dict) -> tuple[np.ndarray, np.ndarray]:
    """Value and error; what is known has none."""
    return answer[name] if name in answer else (known[name], np.zeros(len(known[name])))
