"""Every way to adapt, and what it is compared with, on the same splits of one target.

    SPECTRAKIT_DATA=FOLDER python benchmarks/adaptation.py TARGET [--labels 89] [--splits 10] [--label feh] [--only METHOD ...] [--without METHOD ...]

Targets: `miles` (stars inside the library's hull), `miles_all` (all FGK stars with labels), `stelib`, `lamost`; `desi0`, `desi1`, `desi2`: simulated DESI
with its declared systematics times 0, 1, 2, training stars of the population, test stars from held-out models (8 spectra of each, the share below [Fe/H] = -1 is the
library's, not the Galaxy's). A tenth of the labels is added for validation, and counted. Finished pairs of method and split are kept in
build/adaptation_*.csv and not computed again; the scores are published in benchmarks/results. The last table: each method less zero-shot, paired by split.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from realism import real_stars

import spectrakit as sk
from spectrakit.adaptation.frozen import Frozen
from spectrakit.adaptation.rivals import adapted, gaussian_process, linear_probe, regressor, rivals, zero_shot
from spectrakit.experiments import Split
from spectrakit.models.baselines import FluxMLP, GaussianProcessPCA, RidgePCA
from spectrakit.models.cannon import Cannon
from spectrakit.models.physical import PhysicalFit

UNLABELLED = 164                                                    # spectra of the target that BatchNorm is re-estimated on, as many as published


def simulated(strength, n_labels, n_splits):
    """Labelled stars of the emulator and test stars of held-out models, in one set; and the splits."""
    pool = sk.simulate("desi", 3 * n_labels + 500, seed=41, strength=strength)
    test = sk.simulate("desi", 8 * 47, seed=42, strength=strength, models="held_out")
    stars, rng, n = sk.normalize(sk.concatenate(pool, test)), np.random.default_rng(0), n_labels + tenth(n_labels)
    draws = [rng.permutation(len(pool)) for _ in range(n_splits)]
    return stars, [Split(np.sort(d[:n_labels]), np.sort(d[n_labels:n]), np.arange(len(pool), len(stars))) for d in draws]


def tenth(n_labels):
    return max(1, round(n_labels / 10))


def target(name, n_labels, n_splits):
    if name.startswith("desi"):
        return simulated(float(name[4:]), n_labels, n_splits)
    if name == "miles_all":
        stars = sk.read("miles")
        stars = stars[stars.labelled("teff", "logg", "feh")]
        stars = sk.normalize(stars[(stars.label("teff") > 4200) & (stars.label("teff") < 7000)])
    else:
        stars = real_stars({"lamost": "lamost_lrs"}.get(name, name))
    return stars, sk.experiments.splits(np.asarray(stars.labels["star"]), n_train=n_labels, n_valid=tenth(n_labels), n_splits=n_splits, seed=0)


def label_free(method, stars):
    """A method that uses no label gives every split the same: predicted once for all stars, looked up by row."""
    row = {star: i for i, star in enumerate(keys(stars))}

    @cache
    def everything():
        return method(stars[:0], stars[:0], stars, 0)
    return lambda train, valid, test, k: tuple(part[[row[key] for key in keys(test)]] for part in everything())


def keys(stars):
    return [flux.tobytes() for flux in stars.flux]


def methods(stars, label, n_labels):
    components = min(25, 7 * n_labels // 10)                         # fewer than stars
    spectrum, pair, flux = (sk.load_model(name) for name in ("small", "small_aligned", "small_flux"))
    one, two, three = Frozen(spectrum), Frozen(pair), Frozen(flux)
    table = {"zero-shot": label_free(zero_shot(spectrum, label), stars), "zero-shot, projected": label_free(zero_shot(pair, label), stars),
             "zero-shot, flux MLP": label_free(zero_shot(flux, label), stars),
             "LoRA2": adapted(spectrum, label, ("lora2",), one), "LoRA4": adapted(pair, label, ("lora4",), two), "LoRA3": adapted(pair, label, ("lora3",), two),
             "LoRA3+LoRA4": adapted(pair, label, ("lora3", "lora4"), two), "flux MLP, LoRA": adapted(flux, label, ("lora2",), three),
             "flux MLP, residual head": adapted(flux, label, ("residual",), three), "flux MLP, full fine-tuning": adapted(flux, label, ("full",), three)}
    made = rivals(spectrum, label, stars[np.random.default_rng(5).permutation(len(stars))[:UNLABELLED]], one)
    del made["zero-shot"]
    table |= made | {"ridge on projected embedding": linear_probe(pair, label), "Gaussian process on projected embedding": gaussian_process(pair, label),
                     "ridge on PCA": regressor(lambda k: RidgePCA(components), label),
                     "Gaussian process on PCA": regressor(lambda k: GaussianProcessPCA(components), label),
                     "MLP on flux, from scratch": regressor(lambda k: FluxMLP(seed=k), label), "Cannon": regressor(lambda k: Cannon(), label),
                     "physical fit (no label)": label_free(lambda train, valid, test, k: PhysicalFit().fit(test[:0], label).predict(test), stars)}
    slow = {"LoRA1": ("lora1",), "LoRA1+LoRA2": ("lora1", "lora2")}
    table |= {name: adapted(spectrum, label, placement, one, steps=75) for name, placement in slow.items()}
    return table | {"LoRA1+LoRA3+LoRA4": adapted(pair, label, ("lora1", "lora3", "lora4"), two, steps=75)}


def main(a):
    stars, splits = target(a.target, a.labels, a.splits)
    chosen = {name: f for name, f in methods(stars, a.label, a.labels).items() if (not a.only or name in a.only) and name not in a.without}
    name = f"adaptation_{a.target}_{a.label}_{a.labels}.csv"
    table = sk.experiments.compare(stars, chosen, a.label, splits, path=Path("build") / name)
    table[["method", "split", "regime", "n", "sigma", "bias", "r2", "coverage"]].round(4).to_csv(Path(__file__).parent / "results" / name, index=False)
    columns = ["method", "regime", "n", "sigma", "sigma_scatter", "bias", "r2", "r2_scatter"]
    print(sk.experiments.summary(table)[columns].round(3).to_string(index=False))
    pivot = table.pivot(index=["regime", "split"], columns="method", values="sigma")
    for regime, part in pivot.groupby("regime"):
        print(f"\nsigma less that of zero-shot, [Fe/H] {regime}")
        for name in part.columns.drop("zero-shot", errors="ignore"):
            both = part[[name, "zero-shot"]].dropna()
            if len(both) > 2:
                print(f"  {name:42s}", sk.metrics.paired(both[name].to_numpy(), both["zero-shot"].to_numpy()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("miles", "miles_all", "stelib", "lamost", "desi0", "desi1", "desi2"))
    parser.add_argument("--labels", type=int, default=89)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--label", default="feh")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--without", nargs="*", default=())
    main(parser.parse_args())
