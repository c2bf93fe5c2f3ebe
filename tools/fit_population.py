#!/usr/bin/env python3
"""Fit the label mixes of ``spectrakit/population.py`` to the catalogues under SPECTRAKIT_DATA, and say how well they fit.

    SPECTRAKIT_DATA=FOLDER python tools/fit_population.py lamost|apogee|miles [--fit]
    SPECTRAKIT_DATA=FOLDER python tools/fit_population.py chemistry

Prints, for each catalogue of a survey, the share of its stars outside the library and how the stars inside compare with as many drawn ones: the
Kolmogorov-Smirnov distance of each label, and how well a classifier tells the two apart from teff, logg and feh together (area under the ROC curve,
five-fold; 0.5 is not at all). The same for the rough mix that served before. With --fit the numbers are first made anew (one or two minutes).

A catalogue is not the sky: its labels carry errors, which are added to the drawn stars before comparing, and its own cuts, which are applied to them.
Catalogues of different label scales are compared one by one, never put together.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp, norm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

from spectrakit import population
from spectrakit.library import load_library
from spectrakit.readers.local import find

FORMER = population.EvenMix(uniform=0.1, halo=0.15, disc=-0.25, free=0.05)
NAMES = ("teff", "logg", "feh")
# file; errors of teff, logg, feh (assumed: roughly the scatter between catalogues in docs/label_scales.md); stars that its selection lets through; how many
# of teff, logg decide the stages. The first catalogue decides feh. The pilot survey's dwarfs have logg 0.2 above those of DR10 at the same teff, another
# scale: of it only the temperatures are used, for the K dwarfs that DR10's A, F and G stars lack.
CATALOGUES = {
    "lamost": (("labels_lamost_dr10_afg.csv.gz", (50, 0.07, 0.06), lambda x: (x[:, 0] > 5100) | (x[:, 1] < 3.5), 2),
               ("labels_lamost_pilot.csv.gz", (120, 0.25, 0.15), lambda x: x[:, 0] > 0, 1)),
    "apogee": (("labels_apogee_dr12_lamost_dr2.csv.gz", (40, 0.10, 0.05), lambda x: x[:, 1] < 3.9, 2),),               # DR12 calibrates giants only
    "miles": (("miles.npz", (60, 0.15, 0.08), lambda x: x[:, 0] > 0, 2),),
}
LIBRARY = load_library()


def read(file):
    """Labels (n, 3) of a catalogue's stars that have all three."""
    path = find(file)
    if path is None:
        raise SystemExit(f"{file} was not found: set SPECTRAKIT_DATA to the folder whose real/ holds it.")
    if file.endswith("npz"):
        with np.load(path) as data:
            table = pd.DataFrame({name: data[name] for name in NAMES})
    else:
        table = pd.read_csv(path)
    labels = table[list(NAMES)].dropna().to_numpy(float)
    return labels[(labels > -9000).all(1)]


def inside(labels):
    return LIBRARY.contains(torch.as_tensor(np.column_stack([labels, np.tile([0.1, 0.0], (len(labels), 1))]))).numpy()


def drawn(mix, n, errors, selected, seed=0):
    """Labels (about n, 3) of stars of this mix as the catalogue would list them: inside the library, with errors, after its selection."""
    rng = np.random.default_rng(seed)
    labels = population._draw(mix, 2 * n, rng, LIBRARY)[0][:, :3] + rng.standard_normal((2 * n, 3)) * errors
    return labels[inside(labels) & selected(labels)][:n]


def energy_distance(a, b, scale):
    """2 E|A - B| - E|A - A'| - E|B - B'| (Szekely & Rizzo 2013): zero only if the two distributions agree."""
    a, b = a / scale, b / scale
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


def fit_feh(target, start):
    """Shares of the components and the thin disc's feh by maximum likelihood of the catalogue's feh, errors and the components' losses at the
    library's borders included."""
    labels, errors, selected, _ = target
    means, scatters = np.array([c.feh for c in population.COMPONENTS]).T
    drawn, component = population._galaxy(start, 40000, np.random.default_rng(0))
    kept = LIBRARY.contains(torch.as_tensor(drawn)).numpy() & selected(drawn)
    survival = np.bincount(component[kept], minlength=3) / np.bincount(component, minlength=3)

    def model(x):
        shares = np.exp([0.0, x[0], x[1]])
        return shares / shares.sum(), np.array([x[2], *means[1:]]), np.array([np.exp(x[3]), *scatters[1:]])

    def cost(x):
        shares, mean, scatter = model(x)
        seen = shares * survival / (shares @ survival)
        return -np.log(norm.pdf(labels[:, 2:], mean, np.hypot(scatter, errors[2])) @ seen).mean()
    shares, mean, scatter = model(minimize(cost, (-1.5, -2.5, -0.1, -1.5), method="Nelder-Mead", options={"maxiter": 2000}).x)
    return replace(start, components=tuple(shares.tolist()), disc=(float(mean[0]), float(scatter[0])))


def fit_stages(targets, start, fixed):
    """Shares of the stages and the shape of the sequences by the least energy distance to teff and logg, each catalogue weighted alike."""
    def mix_of(y):
        x = x0.copy()
        x[free] = y
        stages, kelvin = np.exp([0.0, *x[:3]]), 1000 * np.exp(x[4:6])
        if fixed:                                                # the catalogue has no dwarfs: their share stays as it is
            stages = np.array([start.stages[0], *(1 - start.stages[0]) * stages[1:] / stages[1:].sum()])
        return replace(start, stages=tuple((stages / stages.sum()).tolist()), dwarf_teff=(5000 + 1000 * x[3], *kelvin.tolist()),
                       evolved=np.exp(x[6]), branch=(x[7], np.exp(x[8])))

    def cost(y):
        peak, cool, hot = mix_of(y).dwarf_teff
        if cool > (peak - 4200) / 1.8 or hot > 900:              # a few per cent beyond the library's cool end, as in the catalogues; nothing seen decides it
            return 1.0
        return sum(energy_distance(labels[:, :k], drawn(mix_of(y), 2000, errors, selected)[:, :k], labels[:, :k].std(0))
                   for labels, errors, selected, k in targets)
    teff, logs = np.array(start.dwarf_teff), np.log
    x0 = np.array([*logs(np.array(start.stages[1:]) / start.stages[0]), (teff[0] - 5000) / 1000, *logs(teff[1:] / 1000), logs(start.evolved),
                   start.branch[0], logs(start.branch[1])])
    free = np.array([1, 2, 7, 8] if fixed else range(9))
    best = x0[free]
    simplex = np.vstack([best, best + 0.3 * np.eye(len(free))])
    best = minimize(cost, best, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 300, "xatol": 1e-3, "fatol": 1e-5}).x
    print(f"energy distance {cost(x0[free]):.4f} -> {cost(best):.4f}")
    return mix_of(best)


def fit(name):
    targets = []
    for file, errors, selected, decisive in CATALOGUES[name]:
        labels = read(file)
        labels = labels[inside(labels) & selected(labels)]
        targets.append((labels[np.random.default_rng(0).permutation(len(labels))[:2000]], errors, selected, decisive))
    mix = population.POPULATIONS[name]
    for _ in range(2):                                           # the losses at the borders depend on the stages, and these on the components
        mix = fit_stages(targets, fit_feh(targets[0], mix), fixed=name == "apogee")
    return fit_feh(targets[0], mix)


def told_apart(a, b):
    """Area under the ROC curve of a classifier that tells catalogue from drawn stars; 0.5: it cannot."""
    n = min(len(a), len(b), 3000)
    x, y = np.concatenate([a[:n], b[:n]]), np.repeat([0, 1], n)
    shuffled = np.random.default_rng(0).permutation(2 * n)
    p = cross_val_predict(HistGradientBoostingClassifier(max_depth=4, random_state=0), x[shuffled], y[shuffled], cv=5, method="predict_proba")[:, 1]
    order = p.argsort().argsort()[y[shuffled] == 1]
    return (order.mean() - (n - 1) / 2) / n


def report(name, mixes):
    for file, errors, selected, _ in CATALOGUES[name]:
        labels = read(file)
        kept = inside(labels)
        cool, hot, low = labels[:, 0] < 4200, labels[:, 0] > 7000, labels[:, 1] < 1.5
        print(f"\n{file}: {len(labels)} stars with labels; outside the library {1 - kept.mean():.1%}: below 4200 K {cool.mean():.1%}, above 7000 K "
              f"{hot.mean():.1%}, logg below 1.5 {low.mean():.1%}, elsewhere {(~kept & ~cool & ~hot & ~low).mean():.1%}")
        target = np.random.default_rng(1).permutation(labels[kept & selected(labels)])
        print(f"{'':10s}" + "".join(f"{'KS ' + label:>10s}" for label in NAMES) + f"{'AUC':>8s}{'feh < -1':>10s}   (catalogue: {(target[:, 2] < -1).mean():.1%} "
              f"of n = {len(target)}; KS of chance below {1.36 * (1 / len(target) + 1 / 20000) ** 0.5:.3f})")
        for title, mix in mixes.items():
            stars = drawn(mix, 20000, errors, selected, seed=2)
            distances = [ks_2samp(target[:, i], stars[:, i]).statistic for i in range(3)]
            print(f"{title:10s}" + "".join(f"{d:10.3f}" for d in distances) + f"{told_apart(target, stars):8.2f}{(stars[:, 2] < -1).mean():10.1%}")


def trend(feh, y):
    """zero point, slope, ceiling of the least absolute deviations, and their 1.48 MAD."""
    ok = np.isfinite(feh) & np.isfinite(y) & (np.abs(y) < 1)
    feh, y = feh[ok], y[ok]
    law = lambda p: np.minimum(p[0] + p[1] * feh, p[2])                                                                   # noqa: E731
    p = min((minimize(lambda p: np.abs(y - law(p)).mean(), (0.1, slope, 0.3), method="Nelder-Mead") for slope in (-0.3, -0.05)), key=lambda r: r.fun).x
    return len(y), *p, 1.4826 * np.median(np.abs(y - law(p)))


def chemistry():
    """alpha_fe and c_fe against feh, component by component; each catalogue on its own scale."""
    hypatia, venn, jina = (pd.read_csv(find(f"labels_{name}.csv.gz")) for name in ("hypatia", "venn04", "jinabase"))
    hypatia["alpha_fe"] = hypatia[["mg_h", "si_h", "ca_h", "ti_h"]].mean(axis=1) - hypatia["fe_h"]
    hypatia["c_fe"] = hypatia["c_h"] - hypatia["fe_h"]
    jina["alpha_fe"] = jina[["mg_fe", "si_fe", "ca_fe", "ti_fe"]].mean(axis=1)
    dwarf = hypatia[hypatia["logg"] > 3.8]
    rows = [("thin  alpha Hypatia", hypatia[hypatia["disk"] == "thin"], "alpha_fe"), ("thin  alpha Venn", venn[venn["p_thin"] > 0.7], "alpha_fe"),
            ("thick alpha Hypatia", hypatia[hypatia["disk"] == "thick"], "alpha_fe"), ("thick alpha Venn", venn[venn["p_thick"] > 0.7], "alpha_fe"),
            ("halo  alpha Venn", venn[venn["p_halo"] > 0.7], "alpha_fe"), ("halo  alpha JINAbase", jina[jina["place"] == "HA"], "alpha_fe"),
            ("thin  carbon Hypatia, dwarfs", dwarf[dwarf["disk"] == "thin"], "c_fe"), ("thick carbon Hypatia, dwarfs", dwarf[dwarf["disk"] == "thick"], "c_fe"),
            ("halo  carbon JINAbase, dwarfs", jina[(jina["place"] == "HA") & (jina["logg"] > 3.3)], "c_fe"),
            ("halo  carbon JINAbase, giants", jina[(jina["place"] == "HA") & (jina["logg"] < 3.3)], "c_fe")]
    print(f"{'':32s}{'n':>6s}{'zero':>8s}{'slope':>8s}{'ceiling':>9s}{'scatter':>9s}")
    for title, table, column in rows:
        n, zero, slope, ceiling, scatter = trend(table["fe_h"].to_numpy(float), table[column].to_numpy(float))
        print(f"{title:32s}{n:6d}{zero:8.2f}{slope:8.2f}{ceiling:9.2f}{scatter:9.2f}")
    apogee = pd.read_csv(find(CATALOGUES["apogee"][0][0]))
    apogee = apogee[inside(apogee[list(NAMES)].to_numpy(float)) & (apogee["alpha_m"] > -9)]
    stars = population.draw("apogee", 20000, np.random.default_rng(0), LIBRARY)
    print(f"\nalpha_fe of {len(apogee)} APOGEE DR12 giants and of 20000 drawn, error 0.03 dex: KS "
          f"{ks_2samp(apogee['alpha_m'], stars[:, 3] + np.random.default_rng(1).normal(0, 0.03, 20000)).statistic:.3f}; medians by feh:")
    for low, high in ((-2.0, -1.0), (-1.0, -0.5), (-0.5, -0.2), (-0.2, 0.1), (0.1, 0.5)):
        there, drawn_there = apogee["feh"].between(low, high), (stars[:, 2] > low) & (stars[:, 2] < high)
        print(f"{low:+.1f} to {high:+.1f}: {apogee['alpha_m'][there].median():.2f} (n = {there.sum()}), {np.median(stars[drawn_there, 3]):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*CATALOGUES, "chemistry"])
    parser.add_argument("--fit", action="store_true")
    a = parser.parse_args()
    if a.what == "chemistry":
        chemistry()
    else:
        mixes = {"before": FORMER, "now": population.POPULATIONS[a.what]}
        if a.fit:
            mixes["fitted"] = fit(a.what)
            print(mixes["fitted"])
        report(a.what, mixes)
