"""About ninety lines and bands that a spectroscopist knows by name: where they are, what makes them, what they tell."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from astropy import units as u
from astropy.table import Table
from jaxtyping import Float

from .errors import SpectrumError

LETTER = 0.009                                             # of the axis: the room of a letter, and some more


def load_lines(low: float | int = 0.0, high: float | int = np.inf) -> Table:
    """The lines between ``low`` and ``high`` (vacuum Angstrom), in the order of their wavelengths.

    Returns
    -------
    Table: ``name``, unique; ``species``, an atom with its stage of ionisation (``"Fe II"``) or a molecule (``"CH"``); ``wave_air`` and ``wave``
    (Angstrom, vacuum by Ciddor 1996): the line's centre, of a molecule the head of the band or the middle of the G band; ``tells``, what it is used
    for; ``origin`` of the wavelength in air.

    Atoms: NIST Atomic Spectra Database; H band: Smith et al. 2013 (ApJ 765, 16) and 2021 (AJ 161, 254), Brackett lines by the Rydberg formula; bands:
    Pearse & Gaydon 1976 (The Identification of Molecular Spectra), of CO from the constants of Huber & Herzberg 1979. Good to 0.05 A, bands to 2 A.
    """
    table = Table.read(files("spectrakit") / "lines.csv", format="ascii.csv", encoding="utf-8")
    for name in ("wave_air", "wave"):
        table[name].unit = u.AA
    return table[(table["wave"] >= low) & (table["wave"] <= high)]


def share_near(chosen: Float[np.ndarray, " n_pix"], wave: Float[np.ndarray, " n_pix"], lines: Sequence[float] | Float[np.ndarray, " m"],
               half_width: float | int) -> tuple[float, float]:
    """How much of ``chosen`` (weights of the pixels, at least 0) lies within ``half_width`` (Angstrom) of a line, and what share of the pixels does.

    Raises
    ------
    SpectrumError
        Nothing is chosen: all weights are zero, or one is negative or NaN.
    """
    if not (chosen >= 0).all() or not chosen.sum() > 0:
        raise SpectrumError(f"The weights run from {chosen.min():g} to {chosen.max():g}; expected 0 or more, some of them more.")
    near = (np.abs(wave[:, None] - np.asarray(lines)) <= half_width).any(1)
    return float(chosen[near].sum() / chosen.sum()), float(near.mean())


def name_lines(ax, lines: Table, rows: int = 4) -> None:
    """Dotted marks at the lines inside the axes, their names above in up to ``rows`` rows; a name that finds no free place is left out."""
    low, high = ax.get_xlim()
    last = [-np.inf] * rows
    for line in lines[(lines["wave"] >= low) & (lines["wave"] <= high)]:
        x = (line["wave"] - low) / (high - low)
        row = next((r for r in range(rows) if x - last[r] > LETTER * max(6, len(line["name"]))), None)
        ax.axvline(line["wave"], color="0.6", lw=0.5, ls=":", zorder=0)
        if row is not None:
            last[row] = x
            ax.annotate(line["name"], (line["wave"], 1), (0, 2 + 9 * row), xycoords=ax.get_xaxis_transform(), textcoords="offset points", fontsize=7, ha="center",
                        va="bottom", color="0.35")
