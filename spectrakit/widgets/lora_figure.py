"""What the LoRA lab shows of a fit: predictions, residuals, figures by regime and the parameters that act, for any of the fit's switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import metrics, plots
from ..adaptation.fit import Fit
from ..adaptation.placements import PLACEMENTS
from ..models.aligned import AlignedModel
from ..spectra import SpectraSet

SIZE, DPI = (10.8, 3.9), 100                                                     # of a notebook's cell in JupyterLab on a window of 1280 pixels
EDGES = (-3.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5)                                 # dex; of the mean residuals
N_BOOT = 200


@dataclass(frozen=True, eq=False)
class Look:
    """A fit with its switches in one position, on the test stars.

    Attributes
    ----------
    value, zero : (n,) predicted, and predicted by the model as it was before. ``truth`` and ``feh`` are the stars' labels.
    scores, zero_scores : ``metrics.by_regime`` of both. ``status`` : ``Fit.status``. ``n_trained`` : ``Fit.n_trained``.
    """

    title: str
    label: str
    truth: Float[np.ndarray, " n"]
    feh: Float[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]
    zero: Float[np.ndarray, " n"]
    scores: object
    zero_scores: object
    status: object
    n_trained: int


def look(fit: Fit, test: SpectraSet, on: Sequence[str] | None = None, rank: Mapping[str, int] | None = None, strength: float | int = 1.0) -> Look:
    """Predict, score and count; the switches are those of ``Fit.predict``, which says what it raises."""
    truth, feh = test.label(fit.label), test.label("feh")
    value, zero = fit.predict(test, on, rank, strength)[0], fit.predict(test, on=())[0]
    status = fit.status(on, rank, strength)
    scores, zero_scores = (metrics.by_regime(truth, v, feh, n_boot=n) for v, n in ((value, N_BOOT), (zero, 1)))
    kind = "aligned pair" if isinstance(fit.model, AlignedModel) else "spectrum model"
    acting = " + ".join(display_name(p) for p in status[status.on].placement.unique())
    title = f"{kind}: {acting}, strength {strength:.2f}" if acting else f"{kind}: zero-shot, no adapter acts"
    return Look(title, fit.label, truth, feh, value, zero, scores, zero_scores, status, fit.n_trained)


def lora_figure(fit: Fit, test: SpectraSet, on: Sequence[str] | None = None, rank: Mapping[str, int] | None = None, strength: float | int = 1.0) -> Figure:
    """The figure of ``LoraLab`` for one position of the switches of ``Fit.predict``: predicted against true, residual against [Fe/H], figures by regime.

    Parameters
    ----------
    test : stars with the fit's label and [Fe/H].

    Raises
    ------
    MismatchError, LabelError
        As ``Fit.predict``, ``SpectraSet.label`` and ``metrics.score`` do.
    """
    panels = Panels(fit.label)
    panels.draw(look(fit, test, on, rank, strength))
    return panels.figure


def png(figure: Figure) -> bytes:
    """The figure as PNG, at its own size whatever matplotlib's settings are."""
    stream = BytesIO()
    figure.canvas.print_png(stream, pil_kwargs={"compress_level": 1})            # three times faster than 6
    return stream.getvalue()


def display_name(placement: str) -> str:
    """``LoRA1`` for ``lora1``; a placement of one's own keeps its name."""
    return placement.replace("lora", "LoRA") if placement in PLACEMENTS else placement


def in_words(seen: Look) -> str:
    """What the figure shows, for those who do not see it."""
    name, unit = _plain(seen.label), plots.UNITS[seen.label]
    rows = [f"{row.regime}, {row.n} stars: sigma {row.sigma:.3g} {unit}, bias {row.bias:+.3g}, R2 {row.r2:.2f}, "
            f"zero-shot sigma {zero.sigma:.3g}, bias {zero.bias:+.3g}" for row, zero in _rows(seen) if not row.note]
    return f"Left: predicted against true {name}. Middle: residual against [Fe/H]. {seen.title}. By [Fe/H]: {'; '.join(rows)}."


class Panels:
    """The figure, made once; ``draw`` moves what is in it."""

    def __init__(self, label: str):
        name, unit = plots.NAMES[label], plots.UNITS[label]
        with rc_context({**plots.STYLE, "figure.constrained_layout.use": False, "font.size": 9}):
            self.figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
            FigureCanvasAgg(self.figure)
            left, middle, right = (self.figure.add_axes((x, 0.13, width, 0.70)) for x, width in ((0.065, 0.25), (0.39, 0.25), (0.665, 0.335)))
            self._title = self.figure.text(0.065, 0.95, "", fontsize=11, va="center")
            self._points = {ax: self._two_kinds(ax) for ax in (left, middle)}
            (self._equal,) = left.plot([], [], color=plots.GREY, lw=0.8, zorder=0)
            middle.axhline(0, color=plots.GREY, lw=0.8, zorder=0)
            middle.axvline(-1, color=plots.GREY, lw=0.6, ls=":")
            (self._means,) = middle.plot([], [], "s", ms=6, color="black", mec="white", zorder=3, label="mean and its error")
            self._errors = middle.vlines([], [], [], color="black", lw=1.2)
            left.set(xlabel=f"true {name} [{unit}]", ylabel=f"predicted {name} [{unit}]")
            middle.set(xlabel="true [Fe/H] [dex]", ylabel=f"predicted - true [{unit}]")
            left.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.1, columnspacing=1.0)
            middle.legend(handles=[self._means], fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.1)
            right.set_axis_off()
            self._table = right.text(0, 1.0, "", family="monospace", fontsize=8, va="top", linespacing=1.35, transform=right.transAxes)

    @staticmethod
    def _two_kinds(ax):
        (zero,) = ax.plot([], [], "x", ms=3.5, color=plots.GREY, alpha=0.6, mew=0.8, label="zero-shot")
        (value,) = ax.plot([], [], "o", ms=4, color=plots.BLUE, alpha=0.6, mew=0, label="as switched")
        return zero, value

    def draw(self, seen: Look) -> None:
        """Show this; no point lies outside the axes, which change only where one would."""
        left, middle = self._points
        for line, value in zip(self._points[left], (seen.zero, seen.value), strict=True):
            line.set_data(seen.truth, value)
        for line, value in zip(self._points[middle], (seen.zero, seen.value), strict=True):
            line.set_data(seen.feh, value - seen.truth)
        span = _padded(np.concatenate([seen.truth, seen.zero, seen.value]))
        self._equal.set_data(span, span)
        left.set(xlim=span, ylim=span)
        largest = 1.08 * np.abs(np.concatenate([seen.zero - seen.truth, seen.value - seen.truth])).max()
        middle.set(xlim=_padded(seen.feh), ylim=(-largest, largest))
        x, mean, error = _means(seen.feh, seen.value - seen.truth)
        self._means.set_data(x, mean)
        self._errors.set_segments([[(a, m - e), (a, m + e)] for a, m, e in zip(x, mean, error, strict=True)])
        self._title.set_text(seen.title)
        self._table.set_text(_text(seen))


def _means(feh, residual) -> tuple[list, list, list]:
    """Middle of each range of [Fe/H] with at least 3 stars, the mean residual in it and the error of that mean."""
    rows = []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        inside = residual[(feh >= low) & (feh < high)]
        if len(inside) >= 3:
            rows.append(((low + high) / 2, inside.mean(), inside.std(ddof=1) / len(inside) ** 0.5))
    return tuple(list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])


def _padded(values) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _rows(seen: Look):
    return zip(seen.scores.itertuples(), seen.zero_scores.itertuples(), strict=True)


def _text(seen: Look) -> str:
    """The table beside the panels."""
    unit, digits = plots.UNITS[seen.label], 0 if plots.UNITS[seen.label] == "K" else 3
    lines = [f"{'[Fe/H]':<10s}{'n':>4s}  {f'sigma [68 %], {unit}':<21s}{'bias':>7s}{'R2':>7s}"]
    for row, zero in _rows(seen):
        if row.note:
            lines.append(f"{row.regime:<10s}{row.n:4d}  too few stars, or all alike")
            continue
        interval = f"{row.sigma:.{digits}f} [{row.sigma_low:.{digits}f}, {row.sigma_high:.{digits}f}]"
        lines.append(f"{row.regime:<10s}{row.n:4d}  {interval:<21s}{row.bias:+7.{digits}f}{row.r2:7.2f}")
        lines.append(f"  zero-shot     {zero.sigma:<21.{digits}f}{zero.bias:+7.{digits}f}{zero.r2:7.2f}")
    lines += ["", f"{'in use':<10s}{'rank':>4s}  {'parameters':>10s}{'size of the update':>20s}"]
    for name, part in seen.status.groupby("placement", sort=False):
        shown = "-" if part["rank"].isna().any() else str(part["rank"].iloc[0])
        size = float(np.sqrt((part.norm**2).sum()))
        lines.append(f"{display_name(name):<10s}{shown:>4s}  {part.parameters.sum():>10,d}{size:>20.2f}" if part.on.all() else f"{display_name(name):<10s}   -  off")
    return "\n".join([*lines, f"{'all':<10s}      {seen.status[seen.status.on].parameters.sum():>10,d} of {seen.n_trained:,d} trained"])


def _plain(label: str) -> str:
    return {"teff": "effective temperature", "logg": "log g", "alpha_fe": "[alpha/Fe]"}.get(label, "[Fe/H]")
