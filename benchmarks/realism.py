"""How well can a classifier tell simulated from real spectra, and what gives them away?

    SPECTRAKIT_DATA=FOLDER python benchmarks/realism.py miles|stelib|lamost_lrs

Every real star inside the library's hull gets a simulated twin with its labels (alpha_fe on the Galaxy's trend) and its S/N, so that only the
instrument and the physics differ. Systematics are switched on one after the other. Both are normalised alike; the classifier sees 40 principal
components. AUC: area under the ROC of held-out stars (five folds, a star and its twin in the same), 0.5 = indistinguishable, 1 = always told
apart; the interval is a bootstrap over stars. Below, with all systematics: each window of 80 A by itself, and the
median difference there. Gaia XP has a file of its own, realism_xp.py.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spectrakit as sk
from spectrakit.continuum import fill_masked
from spectrakit.library import load_library
from spectrakit.simulation import observe
from spectrakit.surveys import get_survey

LADDER = ("velocity", "spread", "tilt", "calibration", "lines")
CLASSIFIERS = {"linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
               "trees": lambda: HistGradientBoostingClassifier(max_iter=60, max_depth=4, random_state=0)}


def real_stars(name):
    stars = sk.read(name)
    stars = stars[stars.labelled("teff", "logg", "feh")]
    if stars.frame != "rest":
        stars = stars[stars.labelled("z", "snr_g")]
        stars = stars.to_rest(stars.label("z"))
    stars = stars[sk.experiments.in_hull(stars)]
    stars = stars[stars.label("snr_g") > 15] if name == "lamost_lrs" else stars
    return sk.normalize(stars[sk.coverage(stars) > 0.8])


def twins(stars, systematics, rng):
    """Simulated stars with the same labels and, star by star, the same median S/N."""
    survey, library = get_survey(stars.survey), load_library()
    feh = stars.label("feh")
    labels = np.stack([stars.label("teff"), stars.label("logg"), feh, np.clip(-0.3 * feh, 0, 0.3), np.zeros(len(stars))], 1)
    inside = library.contains(torch.as_tensor(labels)).numpy()
    for row in np.flatnonzero(~inside):
        labels[row] = library.nearest(torch.as_tensor(labels[row])).numpy()
    snr = np.nanmedian(np.where(stars.mask, np.nan, np.abs(stars.flux) * np.sqrt(stars.ivar)), 1)
    parts = [observe(lambda rows, i=i: library.opacity(torch.as_tensor(labels[i:i + 1])), labels[i:i + 1], replace(survey, snr=(s, s)), library, rng, systematics)
             for i, s in enumerate(snr)]
    whole = replace(parts[0], flux=np.concatenate([p.flux for p in parts]), ivar=np.concatenate([p.ivar for p in parts]),
                    mask=np.concatenate([p.mask for p in parts]), labels=stars.labels)
    return sk.normalize(whole)


def auc(real, simulated, groups, kind, n_components=40, n_bootstrap=400):
    """Area under the ROC over held-out stars, with a 68 % bootstrap interval. ``n_components=None`` shows the classifier every column as it is."""
    x, y, group = np.concatenate([real, simulated]), np.repeat([1, 0], len(real)), np.concatenate([groups, groups])
    score = np.empty(len(y))
    for train, test in GroupKFold(5).split(x, y, group):
        model = make_pipeline(PCA(n_components, random_state=0) if n_components else None, CLASSIFIERS[kind]())
        score[test] = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    rng, n = np.random.default_rng(0), len(real)
    draws = [rng.integers(n, size=n) for _ in range(n_bootstrap)]
    spread = [roc_auc_score(y[np.r_[i, n + i]], score[np.r_[i, n + i]]) for i in draws]
    return roc_auc_score(y, score), *np.quantile(spread, [0.16, 0.84])


def noisy(flux, snr, rng):
    return flux + rng.standard_normal(flux.shape) * np.sqrt(np.maximum(flux, 0.05)) / snr


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("survey", choices=("miles", "stelib", "lamost_lrs"))
    name = parser.parse_args().survey
    stars, rng = real_stars(name), np.random.default_rng(0)
    real, group, full = fill_masked(stars), np.asarray(stars.labels["star"]), get_survey(name).systematics
    group = np.unique(group, return_inverse=True)[1]
    print(f"{name}: {len(stars)} real spectra of {group.max() + 1} stars\n{'systematics':28s}" + "".join(f"{kind:>24s}" for kind in CLASSIFIERS))
    on = full.scaled(0.0)
    steps = [("noise alone", on)] + [(f"+ {key}", on := replace(on, **{key: getattr(full, key)})) for key in LADDER] + [("all, twice as strong", full.scaled(2.0))]
    for text, systematics in steps:
        simulated = fill_masked(twins(stars, systematics, rng))
        print(f"{text:28s}" + "".join("{:12.3f} ({:.3f}-{:.3f})".format(*auc(real, simulated, group, kind)) for kind in CLASSIFIERS), flush=True)
    again = [fill_masked(twins(stars, full, rng)) for _ in range(2)]
    print(f"{'control: simulated twice':28s}" + "".join("{:12.3f} ({:.3f}-{:.3f})".format(*auc(*again, group, kind)) for kind in CLASSIFIERS))
    for snr in (20, 10):
        found = [auc(noisy(real, snr, rng), noisy(again[0], snr, rng), group, kind) for kind in CLASSIFIERS]
        print(f"{f'all, S/N {snr}':28s}" + "".join("{:12.3f} ({:.3f}-{:.3f})".format(*f) for f in found))
    edges = np.arange(stars.wave[0], stars.wave[-1] - 80, 80)
    parts = [(stars.wave >= a) & (stars.wave < a + 80) for a in edges]
    found = [auc(real[:, p], again[0][:, p], group, "linear", n_components=8)[0] for p in parts]
    change = [100 * np.median(real[:, p] - again[0][:, p]) for p in parts]
    print("window: AUC, median of real - simulated in % of the continuum")
    print("\n".join(f"{a:.0f}-{a + 80:.0f} A: {f:.3f} {c:+.1f}" for a, f, c in zip(edges, found, change, strict=True)))
