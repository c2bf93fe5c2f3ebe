"""Few labels, fewer of them metal-poor: each remedy alone, all together, and the recipe, on the same splits.

    SPECTRAKIT_DATA=FOLDER python benchmarks/metal_poor.py TARGET [--labels 89] [--splits 10] [--only METHOD ...]

Targets: `miles`, `desi1` and the like, as in adaptation.py, with its splits; `coverage`: share of 68 % intervals that contain the truth, for 1,000 simulated DESI
stars in each of three ranges of [Fe/H], labelled stars drawn from the population anew in each split; `choice`: the validation draws on which the recipe was
chosen, simulated DESI of other seeds, with labels as they are and on a scale that is off by 0.12 dex below [Fe/H] = -1.2 and has errors of 0.08 dex. Finished
pairs of method and split are kept in build/metal_poor_*.csv; scores of finished runs are published in benchmarks/results.

"chosen labels": the labelled stars are drawn evenly in predicted [Fe/H] from a pool; "random labels": from the same pool at random. The pool is, for MILES, the
labelled stars of the split and half of its test stars (tested on the other half), for DESI all stars of the population, from which "LoRA2" is drawn too.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from adaptation import target

import spectrakit as sk
from spectrakit import population
from spectrakit.adaptation.fit import adapt
from spectrakit.adaptation.frozen import Frozen, prepared
from spectrakit.adaptation.members import evaluate
from spectrakit.adaptation.rivals import regressor
from spectrakit.experiments import Split
from spectrakit.models.baselines import GaussianProcessPCA
from spectrakit.remedies.conformal import CrossConformal
from spectrakit.remedies.density import density_weights
from spectrakit.remedies.ensemble import Ensemble
from spectrakit.remedies.heteroscedastic import inverse_variance
from spectrakit.remedies.rehearsal import labelled_by, metal_poor
from spectrakit.remedies.robust import robust
from spectrakit.remedies.selection import choose_even
from spectrakit.remedies.support import Gated, Support
from spectrakit.spectra import concatenate

LABEL, RECIPE = "feh", "both, weights, gated: robust"
REHEARSED = 200                                                     # simulated metal-poor stars
REGIMES = {">= -0.5": (-0.5, 9.0), "-1 to -0.5": (-1.0, -0.5), "< -1": (-9.0, -1.0)}


class Fits:
    """The two models, adapted in several ways; what two methods share is trained once."""

    def __init__(self, survey):
        self.models = {"small": sk.load_model("small"), "flux": sk.load_model("small_flux")}
        self.frozen = {name: Frozen(model) for name, model in self.models.items()}
        self.rehearsed, self._known = metal_poor(survey, REHEARSED, seed=77), {}

    def zero(self, name, stars):
        network = self.models[name].network(LABEL)
        return evaluate(network, 2, *self.frozen[name](network, 2, *prepared(self.models[name], stars))).double().numpy()

    def fit(self, name, train, valid, test, k, *ways):
        key = (name, train.label(LABEL).tobytes(), k, ways)
        if key not in self._known:
            further = {"weights": density_weights(train.label(LABEL))} if "weights" in ways else {}
            if "likelihood" in ways:
                further["weights"] = inverse_variance(self.fit(name, train, valid, test, k), train, k)
            if "rehearsal" in ways:
                further["rehearsal"] = self.rehearsed
            if "anchor" in ways:                                    # unlabelled spectra of the target: the test stars, without their labels
                further["rehearsal"] = labelled_by(test, self.zero(name, test), LABEL)
            self._known = {a: fit for a, fit in self._known.items() if a[2] == k} | {key: adapt(
                self.models[name], train, validation=valid, label=LABEL, placement=("lora2",) if name == "small" else ("residual",), seed=k,
                frozen=self.frozen[name], **further)}
        return self._known[key]

    def alone(self, name, *ways):
        return lambda train, valid, test, k: self.fit(name, train, valid, test, k, *ways).predict(test)

    def put_together(self, names, ways=(), gated=False):
        def method(train, valid, test, k):
            fit, stars = Ensemble([self.fit(name, train, valid, test, k, *ways) for name in names]), concatenate(train, valid)
            support = Support.of(fit.zero_shot(stars))
            fit = Gated(fit, support) if gated else fit
            return CrossConformal.of(fit, train, valid, k, support.width).predict(test)
        return method


def methods(f):
    """The recipe is put together from fits that others share; ``sk.adapt(..., recipe="robust")`` gives the same."""
    sigma = {name: model.card.sigma[LABEL] for name, model in f.models.items()}

    def zero_shot(*names):
        return lambda train, valid, test, k: tuple(np.mean(part, 0) for part in zip(
            *((f.zero(name, test), np.full(len(test), sigma[name])) for name in names), strict=True))
    return {"zero-shot": zero_shot("small"), "zero-shot, flux MLP": zero_shot("flux"), "zero-shot, both": zero_shot("small", "flux"),
            "LoRA2": f.alone("small"), "flux MLP, residual head": f.alone("flux"),
            "LoRA2, weights": f.alone("small", "weights"), "LoRA2, likelihood": f.alone("small", "likelihood"),
            "LoRA2, rehearsal": f.alone("small", "rehearsal"), "LoRA2, anchored": f.alone("small", "anchor"),
            "LoRA2, gated": f.put_together(["small"], gated=True), "both": f.put_together(f.models), "both, weights": f.put_together(f.models, ("weights",)),
            RECIPE: f.put_together(f.models, ("weights",), gated=True), "all together": f.put_together(f.models, ("weights", "rehearsal"), gated=True),
            "Gaussian process on PCA": regressor(lambda k: GaussianProcessPCA(), LABEL)}


def selected(fits, stars, splits):
    """Splits with labels chosen and with random ones, from the same pool and with the same test stars."""
    value, parts = fits.zero("small", stars), {"chosen": [], "random": []}
    for k, split in enumerate(splits):
        rng, n_train, n_valid = np.random.default_rng(700 + k), len(split.train), len(split.valid)
        if stars.survey.startswith("desi"):
            pool, test = np.setdiff1d(np.arange(len(stars)), split.test), split.test
        else:
            half = rng.permutation(split.test)
            pool, test = np.concatenate([split.train, split.valid, half[:len(half) // 2]]), np.sort(half[len(half) // 2:])
        draws = {"chosen": choose_even(value[pool], n_train + n_valid, rng), "random": rng.choice(len(pool), n_train + n_valid, replace=False)}
        for name, rows in draws.items():
            rows = pool[rng.permutation(rows)]
            parts[name].append(Split(np.sort(rows[:n_train]), np.sort(rows[n_train:]), test))
    return {"chosen": parts["chosen"]} if stars.survey.startswith("desi") else parts


def coverage(n_labels, n_splits):
    """One row a split and regime; the same test stars in all splits."""
    import pandas as pd
    path, rows = Path("build/metal_poor_coverage.csv"), []
    pool, test = sk.normalize(sk.simulate("desi", 500, seed=51)), sk.normalize(sk.simulate("desi", 3000, seed=52, labels=drawn(1000, 53)))
    models = (sk.load_model("small"), sk.load_model("small_flux"))
    frozen = [Frozen(model) for model in models]
    for k in range(n_splits):
        rows_of = np.random.default_rng(900 + k).permutation(len(pool))
        fit = robust(models, pool[rows_of[:n_labels]], validation=pool[rows_of[n_labels:n_labels + round(n_labels / 10)]], label=LABEL, seed=k, frozen=frozen)
        low, high = fit.interval(test)
        feh, support = test.label(LABEL), fit.support(test)
        inside = (low < feh) & (feh < high)
        for name, (least, most) in REGIMES.items():
            chosen = (feh >= least) & (feh < most)
            rows.append({"split": k, "regime": name, "n": chosen.sum(), "coverage": inside[chosen].mean(), "half width": np.median((high - low)[chosen] / 2),
                         "supported": support[chosen].mean(), "coverage, supported": inside[chosen & support].mean()})
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False)
    table = pd.DataFrame(rows)
    table.round(4).to_csv(Path(__file__).parent / "results" / path.name, index=False)
    print(table.groupby("regime")[["n", "coverage", "half width", "supported", "coverage, supported"]].agg(["mean", "std"]).round(3).to_string())


def drawn(each, seed):
    """Labels of ``each`` stars of DESI's population in every regime."""
    rng, library, kept = np.random.default_rng(seed), sk.load_library(), {name: [] for name in REGIMES}
    while min(sum(map(len, parts)) for parts in kept.values()) < each:
        labels = population.draw("desi_x_apogee", 4000, rng, library)
        for name, (least, most) in REGIMES.items():
            kept[name].append(labels[(labels[:, 2] >= least) & (labels[:, 2] < most)])
    return np.concatenate([np.concatenate(parts)[:each] for parts in kept.values()])


def choice(n_labels, n_splits):
    """Root mean square error (dex) of what the recipe was chosen among."""
    import pandas as pd
    stars, rows = sk.normalize(sk.simulate("desi", 2200, seed=1041)), []
    true, f = stars.label(LABEL), Fits("desi")
    zero = {name: f.zero(name, stars) for name in f.models}
    for k, scale in product(range(n_splits), ("as it is", "shifted")):
        order, feh, said = np.random.default_rng(100 + k).permutation(len(stars)), true, true
        if scale == "shifted":
            feh = true - 0.12 * np.clip((-0.5 - true) / 0.7, 0, 1)
            said = feh + 0.08 * np.random.default_rng(500 + k).standard_normal(len(feh))
        target, middle = labelled_by(stars, said, LABEL), (zero["small"] + zero["flux"]) / 2
        train, valid, test = np.split(order, [n_labels, n_labels + round(n_labels / 10)])
        gate = Support.of(middle[order[:len(train) + len(valid)]]).gate(middle)
        found = {"zero-shot": zero["small"], "zero-shot, flux MLP": zero["flux"], "zero-shot, both": middle}
        for ways in ((), ("weights",), ("likelihood",), ("rehearsal",), ("anchor",)):
            made = {name: f.fit(name, target[train], target[valid], target, k, *ways).members(stars).mean(0) for name in f.models}
            both, way = (made["small"] + made["flux"]) / 2, "".join(f", {w}" for w in ways)
            found |= {"LoRA2" + way: made["small"], "flux MLP, residual head" + way: made["flux"], "both" + way: both,
                      f"both{way}, gated": middle + gate * (both - middle)}
        for name, value in found.items():
            for regime, chosen in (("all", feh < 9), (">= -1", feh >= -1), ("< -1", feh < -1)):
                chosen = test[chosen[test]]
                rows.append({"scale": scale, "method": name, "regime": regime, "split": k, "n": len(chosen), "rms": np.sqrt(np.mean((value - feh)[chosen] ** 2))})
        table = pd.DataFrame(rows)
        table.round(4).to_csv(Path(__file__).parent / "results" / "metal_poor_choice.csv", index=False)
    print(table.pivot_table(index="method", columns=["scale", "regime"], values="rms", sort=False).round(4).to_string())


def main(a):
    if a.target in ("coverage", "choice"):
        return {"coverage": coverage, "choice": choice}[a.target](a.labels, a.splits)
    stars, splits = target(a.target, a.labels, a.splits)
    fits, name = Fits(stars.survey.split("+")[0]), f"metal_poor_{a.target}_{a.labels}.csv"
    made, path = {m: f for m, f in methods(fits).items() if not a.only or m in a.only}, Path("build") / name
    table = sk.experiments.compare(stars, made, LABEL, splits, path=path)
    for kind, parts in selected(fits, stars, splits).items():
        if not a.only or f"LoRA2, {kind} labels" in a.only:
            table = sk.experiments.compare(stars, {f"LoRA2, {kind} labels": fits.alone("small")}, LABEL, parts, path=path)
    table[["method", "split", "regime", "n", "sigma", "bias", "r2", "coverage"]].round(4).to_csv(Path(__file__).parent / "results" / name, index=False)
    print(sk.experiments.summary(table)[["method", "regime", "n", "sigma", "sigma_scatter", "bias", "r2", "r2_scatter"]].round(3).to_string(index=False))
    wide = table.pivot(index=["regime", "split"], columns="method", values="sigma")
    for regime, part in wide.groupby("regime"):
        for other in {"zero-shot", "LoRA2", "Gaussian process on PCA"} & set(part.columns) if RECIPE in part.columns else ():
            print(f"[Fe/H] {regime}: sigma of the recipe less that of {other}:", sk.metrics.paired(part[RECIPE].to_numpy(), part[other].to_numpy()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("miles", "desi0", "desi1", "desi2", "coverage", "choice"))
    parser.add_argument("--labels", type=int, default=89)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=())
    main(parser.parse_args())
