"""How good is a label? Robust scatter, bias and R2, each with its interval; by metallicity regime; over splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from .errors import LabelError, MismatchError, SpectrakitError

CUT = 6 / 0.6745  # Tukey's cut in units of the MAD: six robust sigma. astropy's own default, 9, cuts a little later.
FIGURES = ("sigma", "bias", "r2")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """The figures of one comparison; ``*_interval`` are ``(low, high)`` percentile-bootstrap intervals over the ``n`` stars.

    ``sigma`` and ``bias`` are in ``unit`` (empty when the truth had none); ``r2`` has no unit. The intervals cover ``level`` (0.68: one sigma).
    """

    sigma: float
    sigma_interval: Interval
    bias: float
    bias_interval: Interval
    r2: float
    r2_interval: Interval
    n: int
    unit: str
    level: float

    def __repr__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return (f"Score(sigma {_span(self.sigma, self.sigma_interval)}{unit}, bias {_span(self.bias, self.bias_interval, '+')}{unit}, "
                f"R2 {_span(self.r2, self.r2_interval)}, n {self.n}; {self.level:.0%} intervals)")

    def to_dict(self) -> dict:
        """One flat table row: each figure with ``*_low`` and ``*_high`` beside it, then ``n``, ``unit``, ``level``."""
        row = {}
        for name in FIGURES:
            low, high = getattr(self, f"{name}_interval")
            row |= {name: getattr(self, name), f"{name}_low": low, f"{name}_high": high}
        return row | {"n": self.n, "unit": self.unit, "level": self.level}


def score(truth, value, *, n_boot: int = 1000, level: float = 0.68, seed: int = 0) -> Score:
    """Scatter, bias and R2 of ``value`` against ``truth``.

    ``sigma`` is Tukey's biweight scale of ``value - truth`` about its median, cut at six robust sigma (6 MAD / 0.6745); for a Gaussian it
    is 1.0 % above the standard deviation. A constant offset is invisible to it: read it together with ``bias``, the median of
    ``value - truth`` (the centre of that same sigma), and ``r2``, the coefficient of determination
    ``1 - sum((value - truth)^2) / sum((truth - mean)^2)``, which feels offset and outliers and goes negative. The biweight here divides by
    D^2; the published recipe by D(D - 1), where D is 0.85 n for a Gaussian: its sigma is larger by 6.5 % at n = 10, 0.7 % at n = 89, 0.2 %
    at n = 300. When more than half of the differences are equal, sigma is 0.

    Parameters
    ----------
    truth, value : (n,) arrays, astropy Columns or Quantities. A unit is taken off after conversion to K or dex (the field's units), or, for
        other quantities, to that of ``truth``; a plain array is taken to be in the other's unit.
    n_boot : bootstrap resamples of the stars, drawn from ``numpy.random.default_rng(seed)``; NumPy's global state is untouched.
    level : coverage of the intervals. A resample whose truths are all equal (tiny n) has no R2 and is left out of that interval.

    Raises
    ------
    MismatchError
        Shapes that differ or are not ``(n,)``.
    LabelError
        NaN, infinite or masked entries, units that do not convert, fewer than 3 stars, a constant truth (no R2).

    Source: Beers, Flynn & Gebhardt 1990 (AJ 100, 32), through ``astropy.stats.biweight_scale``.
    """
    truth, value, unit = _pair(truth, value)
    if not (n_boot >= 1 and 0 < level < 1):
        raise SpectrakitError(f"n_boot is {n_boot} and level {level}; expected at least 1 resample and a level between 0 and 1.")
    if np.ptp(truth) == 0:
        raise LabelError(f"All {len(truth)} truths are {truth[0]:g}: R2 does not exist for a constant truth.")
    figures = _figures(truth, value - truth)
    sample = _resample(lambda i: _figures(truth[i], (value - truth)[i]), len(truth), n_boot, seed)
    low, high = np.nanquantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=1)
    spans = {f"{name}_interval": (float(a), float(b)) for name, a, b in zip(FIGURES, low, high, strict=True)}
    return Score(**dict(zip(FIGURES, map(float, figures), strict=True)), **spans, n=len(truth), unit=unit, level=level)


def by_regime(truth, value, feh, edges=(-1.0,), **options):
    """``score`` for all stars and in each range of [Fe/H]: a tidy pandas table, one row a regime, the metal-rich first.

    Parameters
    ----------
    truth, value : (n,) as in ``score``, which also takes the ``options`` (``n_boot``, ``level``, ``seed``).
    feh : (n,) in dex; which regime a star belongs to. Use the true [Fe/H]: choosing by an estimate biases the figures.
    edges : at least one boundary in dex; a star on one belongs to the metal-rich side.

    Returns
    -------
    Columns ``regime``, those of ``Score.to_dict``, and ``note``: empty, or why the figures are NaN (too few stars, a constant truth).
    """
    import pandas as pd
    truth, value, unit = _pair(truth, value)
    _, feh, _ = _pair(truth, _plain(feh)[0], names=("truth", "feh"))
    bounds = [np.inf, *sorted((float(e) for e in edges), reverse=True), -np.inf]
    regimes = {"all": np.ones(len(feh), bool)}
    regimes |= {_name(low, high): (feh >= low) & (feh < high) for high, low in zip(bounds, bounds[1:], strict=False)}
    rows = []
    for name, chosen in regimes.items():
        try:
            row = score(truth[chosen], value[chosen], **options).to_dict() | {"note": ""}
        except LabelError as problem:  # the input is sound (checked above), so this regime alone has no figures: said in the table
            blank = dict.fromkeys([f + end for f in FIGURES for end in ("", "_low", "_high")], np.nan)
            row = blank | {"n": int(chosen.sum()), "level": options.get("level", 0.68), "note": str(problem)}
        rows.append({"regime": name} | row | {"unit": unit})
    return pd.DataFrame(rows)


def over_splits(table, by=("regime",)):
    """Summary over splits of a tidy table that has one row a split and ``by`` group (such as several ``by_regime`` tables, concatenated).

    Parameters
    ----------
    table : pandas DataFrame with the ``by`` columns, ``sigma``, ``bias``, ``r2`` and ``n``.

    Returns
    -------
    One row a group: for each figure ``mean``, ``*_scatter`` (standard deviation between splits, n - 1) and ``*_error`` (scatter over the root
    of the number of splits, of the mean); ``n`` is the mean count of stars, ``n_splits`` the splits that have figures. Splits share their
    stars, so the error says how well the mean over splits is known for *these* stars, not for new ones: the bootstrap of ``score`` does that.

    Raises
    ------
    MismatchError
        A column is missing.
    """
    by = list(by)
    missing = [c for c in [*by, *FIGURES, "n"] if c not in table.columns]
    if missing:
        raise MismatchError(f"The table lacks the columns {', '.join(missing)}; concatenate by_regime tables, one a split.")
    groups = table.groupby(by, sort=False)
    out = groups["n"].mean().to_frame()
    out["n_splits"] = groups["sigma"].count()
    for name in FIGURES:
        out[name], out[f"{name}_scatter"] = groups[name].mean(), groups[name].std()
        out[f"{name}_error"] = out[f"{name}_scatter"] / np.sqrt(out["n_splits"].where(out["n_splits"] > 0))
    return out.reset_index()


@dataclass(frozen=True)
class Difference:
    """The mean of ``a - b`` over ``n`` splits with its bootstrap interval; ``smaller``: the share of splits with ``a < b``."""

    mean: float
    interval: Interval
    smaller: float
    n: int
    level: float

    def __repr__(self) -> str:
        return (f"Difference({_span(self.mean, self.interval, '+')}, a smaller in {self.smaller:.0%} of {self.n} splits; "
                f"{self.level:.0%} interval)")

    def to_dict(self) -> dict:
        """One flat table row."""
        row = asdict(self)
        low, high = row.pop("interval")
        return row | {"low": low, "high": high}


def paired(a, b, *, n_boot: int = 10000, level: float = 0.68, seed: int = 0) -> Difference:
    """Is ``a`` better than ``b``? One figure of two models on the same splits, in the same order; what a split has of luck cancels.

    Parameters
    ----------
    a, b : (n_splits,) the same figure (say, sigma) of two models. The interval is a percentile bootstrap of the mean difference over splits;
        splits share stars, so it holds for this sample of stars.

    Raises
    ------
    MismatchError, LabelError
        Shapes that differ, NaN, fewer than 3 splits.
    """
    a, b, _ = _pair(a, b, names=("a", "b"), what="splits")
    means = _resample(lambda i: (a - b)[i].mean(axis=-1)[None], len(a), n_boot, seed)[0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float((a - b).mean()), (float(low), float(high)), float((a < b).mean()), len(a), level)


def _figures(truth, residual) -> np.ndarray:
    """(3, ...) sigma, bias, r2 along the last axis; r2 is NaN where the truth is constant."""
    from astropy.stats import biweight_scale  # here: the import costs half a second
    total = ((truth - truth.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    flat = np.ptp(truth, axis=-1) == 0
    r2 = 1 - (residual**2).sum(axis=-1) / np.where(flat, 1, total)
    return np.stack([biweight_scale(residual, c=CUT, axis=-1), np.median(residual, axis=-1), np.where(flat, np.nan, r2)])


def _resample(statistic, n: int, n_boot: int, seed: int) -> np.ndarray:
    """(k, n_boot) of a statistic of (m, n) row numbers, in blocks of about 2 million numbers so that memory does not grow with ``n``."""
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // n)
    return np.concatenate([statistic(rng.integers(n, size=(min(block, n_boot - start), n))) for start in range(0, n_boot, block)], axis=1)


def _pair(truth, value, *, names=("truth", "value"), what: str = "stars"):
    """Two checked plain (n,) arrays and the name of their unit."""
    from astropy import units as u
    (truth, unit), (value, other) = _plain(truth), _plain(value)
    if truth.shape != value.shape or truth.ndim != 1:
        raise MismatchError(f"{names[0]} has shape {truth.shape} and {names[1]} {value.shape}; expected the same (n,) for both.")
    for name, array in zip(names, (truth, value), strict=True):
        if not np.isfinite(array).all():
            raise LabelError(f"{(~np.isfinite(array)).sum()} of {array.size} entries of {name} are NaN, infinite or masked; "
                             f"choose the {what} that have both first.")
    if truth.size < 3:
        raise LabelError(f"{truth.size} {what}: a scatter needs at least 3.")
    if unit is None and other is None:
        return truth, value, ""
    unit, other = unit or other, other or unit
    target = next((field for field in (u.K, u.dex) if unit.is_equivalent(field)), unit)
    if not other.is_equivalent(target):
        raise LabelError(f"The units {unit} and {other} do not convert into each other.")
    return unit.to(target, truth), other.to(target, value), str(target)


def _plain(values):
    """Numbers as float64 with NaN where masked, and the unit or None."""
    array = np.ma.filled(np.ma.asarray(getattr(values, "value", values)).astype("f8"), np.nan)
    return np.asarray(array), getattr(values, "unit", None)


def _name(low: float, high: float) -> str:
    if high == np.inf:
        return f">= {low:g}"
    return f"< {high:g}" if low == -np.inf else f"{low:g} to {high:g}"


def _span(value: float, interval: Interval, sign: str = "") -> str:
    """``0.131 [0.125, 0.138]``, or ``105.3 [101.2, 110.8]``."""
    digits = 3 if abs(value) < 10 else 1
    return f"{value:{sign}.{digits}f} [{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"
