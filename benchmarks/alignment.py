"""Do the two spectra of a star find each other, and does one predict the other? Simulated stars that no network has seen.

    python benchmarks/alignment.py [--model small_aligned] [--population gaia]

Retrieval: 1,000 pairs at S/N 50 (LRS) and G = 9-15.5 (XP), recall@1 and @10 with a bootstrap interval over stars, against chance and shuffled pairs,
and against two rivals that need no common space: labels read off both spectra, nearest in label space; and the predicted XP spectrum, nearest in the metric of
its errors, dust included (close to the best that these spectra allow, if the prediction is good). Translation LRS -> XP: error over flux, in the median
over points and stars, against an oracle that knows teff, logg, feh, alpha_fe and c_fe of every star but not its dust; and XP -> LRS, against the same.
"""

import argparse
from dataclasses import replace

import numpy as np
from astropy.stats import mad_std
from sklearn.covariance import LedoitWolf

import spectrakit as sk
from spectrakit.models.foundation import HEAD_LABELS
from spectrakit.pairs import Pairs, bright, simulate_pairs
from spectrakit.surveys import GAIA_XP, LAMOST
from spectrakit.translation import remove_dust

N = 1000


def with_interval(ranks, k, n_boot=1000):
    rng = np.random.default_rng(0)
    draws = [(ranks[rng.integers(len(ranks), size=len(ranks))] <= k).mean() for _ in range(n_boot)]
    return "{:.3f} ({:.3f}-{:.3f})".format((ranks <= k).mean(), *np.quantile(draws, [0.16, 0.84]))


def retrieval(model, pairs):
    lrs, xp = model.embed(pairs.lrs), model.embed(pairs.xp)
    order = np.random.default_rng(1).permutation(len(pairs))
    read = {m: np.stack([model.predict(stars, label)[0] for label in HEAD_LABELS], 1) for m, stars in (("lrs", pairs.lrs), ("xp", pairs.xp))}
    error = np.hypot(*(np.array([model.card.sigma[m][label] for label in HEAD_LABELS]) for m in ("lrs", "xp")))
    distance = (((read["lrs"][:, None] - read["xp"]) / error) ** 2).sum(-1)
    by_labels = (distance <= np.diag(distance)[:, None]).sum(1)
    by_flux = ranks_by_translation(model, pairs)
    table = {"LRS finds XP": sk.retrieval.ranks(lrs, xp), "XP finds LRS": sk.retrieval.ranks(xp, lrs), "shuffled pairs": sk.retrieval.ranks(lrs, xp[order]),
             "nearest in the four labels": by_labels, "nearest to the prediction": by_flux}
    print(f"chance{'':22s}{1 / len(pairs):10.3f}{'':21s}{10 / len(pairs):10.3f}")
    for name, found in table.items():
        print(f"{name:28s}{with_interval(found, 1):>31s}{with_interval(found, 10):>31s}   median rank {np.median(found):.0f}")


def ranks_by_translation(model, pairs):
    """Rank of each star's own XP spectrum by Mahalanobis distance from the predicted one; covariance of errors from 3,000 other stars."""
    others = simulate_pairs(replace(LAMOST, population=pairs.lrs.provenance["population"], snr=(50.0, 50.0)), 3000, seed=20_002)
    errors = others.xp.flux - model.translate(others.lrs).flux
    scale = errors.std(0).clip(1e-6)
    covariance = LedoitWolf().fit(errors / scale)
    whiten = np.linalg.cholesky(covariance.precision_)
    seen, said = (x / scale @ whiten for x in (pairs.xp.flux, model.translate(pairs.lrs).flux + errors.mean(0)))
    distance = (seen**2).sum(1) + (said**2).sum(1)[:, None] - 2 * said @ seen.T
    return (distance <= np.diag(distance)[:, None]).sum(1)


def translation(model, pairs, clear, dustless):
    """``clear``: the same stars without noise; ``dustless``: without noise and, in XP, with the mean reddening for all: the oracle."""
    for m, oracle in (("xp", dustless.xp.flux), ("lrs", clear.lrs.flux)):
        other = pairs.lrs if m == "xp" else pairs.xp
        said, truth = model.translate(other), getattr(clear, m).flux
        bright_enough = truth > 0.05
        relative = {"predicted": (said.flux - truth) / truth, "a mean star (control)": (np.median(truth, 0) - truth) / truth}
        if m == "xp":
            relative["oracle, all but dust"] = (oracle - truth) / truth
            relative["predicted, dust fitted out"] = remove_dust(getattr(clear, m), said)[0].flux / said.flux - 1
            relative["oracle, dust fitted out"] = remove_dust(clear.xp, dustless.xp)[0].flux / dustless.xp.flux - 1
        for name, error in relative.items():
            error = np.where(bright_enough, error, np.nan)
            typical, scatter, bias = np.nanmedian(np.abs(error)), np.nanmedian(mad_std(error, axis=0, ignore_nan=True)), np.nanmedian(error)
            print(f"{m:4s}{name:28s} median |error| {100 * typical:6.2f} %   robust scatter {100 * scatter:6.2f} %   bias {100 * bias:+6.2f} %   n = {len(truth)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_aligned")
    parser.add_argument("--population", default="gaia")
    a = parser.parse_args()
    model, survey = sk.load_model(a.model), replace(LAMOST, population=a.population, snr=(50.0, 50.0))
    pairs = simulate_pairs(survey, N, seed=20_001)
    pairs.lrs.provenance["population"] = a.population
    retrieval(model, pairs)
    still = replace(bright(LAMOST), systematics=LAMOST.systematics.scaled(0.0))
    seen, mean = pairs.xp.labels.copy(), pairs.xp.labels.copy()
    seen["g"] = mean["g"] = 6.0
    mean["ebv"] = np.median(seen["ebv"])
    quiet = replace(GAIA_XP, systematics=GAIA_XP.systematics.scaled(0.0))
    clear, oracle = (simulate_pairs(still, N, seed=1, labels=labels, xp=quiet) for labels in (seen, mean))
    translation(model, Pairs(pairs.lrs, pairs.xp), clear, oracle)
