"""A protocol in, a tidy table out: every method on the same splits, every split saved as soon as it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import metrics
from .library import load_library
from .spectra import SpectraSet
from .splits import Split, splits

__all__ = ["Split", "compare", "in_hull", "splits", "summary"]
Method = Callable[[SpectraSet, SpectraSet, SpectraSet, int], tuple[np.ndarray, np.ndarray]]


def in_hull(stars: SpectraSet, alpha_fe: float = 0.1, c_fe: float = 0.0):
    """True (n,) for stars whose teff, logg and feh lie inside the library; alpha_fe and c_fe are set to typical values."""
    labels = np.stack([stars.label("teff"), stars.label("logg"), stars.label("feh"), np.full(len(stars), alpha_fe), np.full(len(stars), c_fe)], 1)
    return load_library().contains(torch.as_tensor(labels)).numpy()


def compare(stars: SpectraSet, methods: Mapping[str, Method], label: str, parts: list[Split], path: str | os.PathLike | None = None, progress: bool = True):
    """Score every method on every split.

    Parameters
    ----------
    parts : training, validation and test rows of each split, as ``splits`` makes them.
    methods : name -> ``method(train, valid, test, k) -> (value, sigma)`` in the label's unit, ``k`` the number of the split (use it as the seed).
        A method sees the labels of the test stars only if it cheats: pass it what it may know.
    path : csv of finished (method, split) pairs; these are not computed again. Remove it to start afresh.

    Returns
    -------
    pandas table: method, split, regime, sigma, bias, r2, n, coverage (share within the method's own one sigma), and the intervals of
    ``metrics.by_regime``.
    """
    import pandas as pd
    done = pd.read_csv(path) if path is not None and Path(path).is_file() else pd.DataFrame(columns=["method", "split"])
    finished = set(zip(done.method, done.split, strict=True))
    tables = [done] if len(done) else []
    todo = [(name, k) for k in range(len(parts)) for name in methods if (name, k) not in finished]
    bar = tqdm(todo, desc="methods x splits", disable=not progress, mininterval=2)
    for name, k in bar:
        bar.set_postfix_str(name, refresh=False)
        tables.append(_score(stars, name, methods[name], label, parts[k], k))
        if path is not None:
            _save(pd.concat(tables), Path(path))
    return pd.concat(tables, ignore_index=True)


def summary(table):
    """Mean and scatter over splits of each method and regime, in the order in which the methods first appear."""
    result = metrics.over_splits(table, by=("method", "regime"))
    order = {name: i for i, name in enumerate(dict.fromkeys(table.method))}
    return result.sort_values("method", key=lambda m: m.map(order), kind="stable").reset_index(drop=True)


def _score(stars: SpectraSet, name: str, method: Method, label: str, split: Split, k: int):
    test = stars[split.test]
    value, sigma = method(stars[split.train], stars[split.valid], test, k)
    truth, feh = test.label(label), test.label("feh")
    rows = metrics.by_regime(truth, value, feh, n_boot=200)
    inside = np.abs(value - truth) <= sigma
    chosen = {"all": np.ones(len(feh), bool), ">= -1": feh >= -1, "< -1": feh < -1}
    rows.insert(0, "split", k)
    rows.insert(0, "method", name)
    rows["coverage"] = [inside[chosen[regime]].mean() if chosen[regime].any() else np.nan for regime in rows.regime]
    return rows


def _save(table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    table.to_csv(temporary, index=False)
    os.replace(temporary, path)
