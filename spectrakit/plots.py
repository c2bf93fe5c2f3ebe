"""Figures of the notebooks: one style, axes with units, every function draws on the axes it is given and returns them."""

from __future__ import annotations

import re
import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .spectra import SpectraSet

# Okabe & Ito 2008: distinguishable with any colour vision; every use also differs in marker or line style.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
UNITS = {"teff": "K", "logg": "dex", "feh": "dex", "alpha_fe": "dex"}
NAMES = {"teff": r"$T_{\rm eff}$", "logg": r"$\log g$", "feh": "[Fe/H]", "alpha_fe": r"[$\alpha$/Fe]"}
# vacuum Angstrom; Ralchenko et al., NIST Atomic Spectra Database; the G band is a blend of CH
LINES = {r"H$\delta$": 4102.89, "Ca I": 4227.92, "CH": 4305.0, r"H$\gamma$": 4341.68, "Fe I": 4384.78, r"H$\beta$": 4862.68, "Mg b": 5174.1, "Fe I ": 5270.8}
STYLE = {"figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
         "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.0, "svg.hashsalt": "spectrakit",
         "text.usetex": False}                                                       # importing gaiaxpy turns it on, and with it every label into LaTeX


def use_style() -> None:
    """The kit's matplotlib style, for this session; in a notebook each figure is stored with ``words`` as its alt text."""
    plt.rcParams.update(STYLE)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        import matplotlib_inline.backend_inline  # noqa: F401  it registers, when imported, what draws figures in a notebook
        png = shell.display_formatter.formatters["image/png"]
        draw = png.for_type(Figure)
        if draw is not None and not hasattr(draw, "with_words"):
            def described(figure):
                drawn = draw(figure)
                return drawn and (drawn, {"alt": words(figure)})
            described.with_words = True
            png.for_type(Figure, described)


def words(figure: Figure) -> str:
    """What a figure shows: for each panel its title, its axes, and the names in its legend."""
    panels = []
    for ax in figure.axes:
        axes = " against ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel())))
        names = ", ".join(dict.fromkeys(ax.get_legend_handles_labels()[1]))
        panels.append("; ".join(filter(None, (ax.get_title() or ax.get_title("left"), axes, names and f"shown: {names}"))))
    plain = re.sub(r"\$(.*?)\$", lambda math: re.sub(r"\\rm|[\\{}_]", "", math[1]), ". ".join(filter(None, panels)))
    return "Figure. " + " ".join(plain.split())


def spectra(stars: SpectraSet, rows, ax=None, offset: float = 0.5, lines: dict[str, float] | None = None):
    """Normalised spectra one above the other, labelled with teff, logg and feh; the strongest lines named at their vacuum wavelengths (Angstrom)."""
    ax = ax or plt.subplots(figsize=(10, 1.2 + 1.1 * len(rows)))[1]
    for i, row in enumerate(rows):
        star = stars[row]
        ax.plot(star.wave, np.where(star.mask[0], np.nan, star.flux[0]) + i * offset, color=(BLUE, RED)[i % 2])
        text = f"{star.label('teff')[0]:.0f} K, log g {star.label('logg')[0]:.1f}, [Fe/H] {star.label('feh')[0]:+.1f}"
        ax.text(stars.wave[-1], 1.1 + i * offset, text, ha="right", va="bottom", fontsize=9)
    top = ax.get_ylim()[1]
    for i, (name, wave) in enumerate((LINES if lines is None else lines).items()):
        ax.axvline(wave, color=GREY, lw=0.6, ls=":", zorder=0)
        ax.text(wave, top, "\n" * (i % 2) + name if i % 2 else name + "\n", ha="center", va="bottom", fontsize=8, color=GREY)    # two rows: no overlap
    ax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum + offset", xlim=(stars.wave[0], stars.wave[-1]))
    return ax


def predictions(truth, value, label: str, ax=None, sigma=None, name: str = "", color: str = BLUE, marker: str = "o"):
    """Predicted against true values with the line of equality, in the label's unit; error bars when ``sigma`` (n,) is given."""
    ax = ax or plt.subplots(figsize=(4.2, 4.0))[1]
    ax.errorbar(truth, value, yerr=sigma, fmt=marker, ms=3.5, color=color, ecolor=color, elinewidth=0.5, alpha=0.6, mew=0, label=name or None)
    span = [min(np.min(truth), np.min(value)), max(np.max(truth), np.max(value))]
    ax.plot(span, span, color=GREY, lw=0.8, zorder=0)
    ax.set(xlabel=f"{NAMES[label]} of the label [{UNITS[label]}]", ylabel=f"{NAMES[label]} predicted [{UNITS[label]}]", aspect="equal")
    return ax


def residuals(feh, residual, ax=None, name: str = "", color: str = BLUE, marker: str = "o", edges=(-3.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5)):
    """Residual (dex) against [Fe/H]: stars as points, the mean in each range with the error of the mean, the number of stars below."""
    ax = ax or plt.subplots(figsize=(7, 3.2))[1]
    ax.plot(feh, residual, marker, ms=3, color=color, alpha=0.25, mew=0)
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (feh >= low) & (feh < high)
        if inside.sum() >= 3:
            mean, error = residual[inside].mean(), residual[inside].std(ddof=1) / inside.sum() ** 0.5
            ax.errorbar((low + high) / 2, mean, error, fmt=marker, ms=8, color=color, mec="white", capsize=3)
            ax.text((low + high) / 2, 0.02, f"n = {inside.sum()}", transform=ax.get_xaxis_transform(), ha="center", fontsize=8, color=GREY)
    ax.plot([], [], marker, ms=8, color=color, label=name or None)
    ax.axhline(0, color=GREY, lw=0.8, zorder=0)
    ax.axvline(-1, color=GREY, lw=0.6, ls=":")
    ax.set(xlabel="[Fe/H] of the label [dex]", ylabel="predicted - label [dex]")
    return ax
