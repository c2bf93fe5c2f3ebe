"""[Fe/H] of real MILES stars: every method on the same ten splits (89 training, 9 validation labels, all others test).

    SPECTRAKIT_DATA=FOLDER python benchmarks/real_stars.py hull|all [--labels 89] [--only METHOD ...]

`hull`: stars inside the library's hull; `all`: all with 4200 < teff < 7000 K and labels. Finished pairs of method and split are kept in
build/real_stars_*.csv and not computed again.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import spectrakit as sk
from spectrakit.models.baselines import FluxMLP, GaussianProcessPCA, RidgePCA
from spectrakit.models.cannon import Cannon
from spectrakit.models.physical import PhysicalFit

ADAPTED = {"LoRA2": (("lora2",), 150), "LoRA1+LoRA2": (("lora1", "lora2"), 75), "full fine-tuning": (("full",), 75)}     # placement, most steps


def miles():
    stars = sk.read("miles")
    stars = stars[stars.labelled("teff", "logg", "feh")]
    return stars[(stars.label("teff") > 4200) & (stars.label("teff") < 7000)]


def label_free(predict, stars):
    """A method that uses no label gives every split the same: predicted once for all stars, looked up by star."""
    row = {star: i for i, star in enumerate(stars.labels["star"])}

    @cache
    def everything():
        return predict(stars)

    def method(train, valid, test, k):
        rows = [row[star] for star in test.labels["star"]]
        return tuple(part[rows] for part in everything())
    return method


def methods(model, stars):
    def adapted(placement, steps):
        return lambda train, valid, test, k: sk.adapt(model, train, validation=valid, label="feh", placement=placement, seed=k, steps=steps).predict(test)

    def baseline(make):
        return lambda train, valid, test, k: make(k).fit(train, "feh").predict(test)

    def embedded_process(train, valid, test, k):
        x, new = model.embed(train), model.embed(test)
        mean, std = x.mean(0), x.std(0)
        kernel = ConstantKernel(1.0) * RBF(3.0) + WhiteKernel(0.1)
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=k).fit((x - mean) / std, train.label("feh"))
        return process.predict((new - mean) / std, return_std=True)

    table = {"zero-shot": label_free(lambda s: model.predict(s, "feh"), stars)}
    table |= {"ridge on PCA": baseline(lambda k: RidgePCA()), "Gaussian process on PCA": baseline(lambda k: GaussianProcessPCA()),
              "MLP on flux": baseline(lambda k: FluxMLP(seed=k)), "Cannon": baseline(lambda k: Cannon()),
              "physical fit (no label)": label_free(PhysicalFit().fit(stars[:0], "feh").predict, stars), "Gaussian process on embedding": embedded_process}
    return table | {name: adapted(*how) for name, how in ADAPTED.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", choices=("hull", "all"))
    parser.add_argument("--labels", type=int, default=89)
    parser.add_argument("--model", default="small")
    parser.add_argument("--only", nargs="*")
    a = parser.parse_args()
    stars = miles()
    stars = sk.normalize(stars[sk.experiments.in_hull(stars)] if a.sample == "hull" else stars)
    splits = sk.experiments.splits(np.asarray(stars.labels["star"]), n_train=a.labels, n_valid=9, n_splits=10, seed=0)
    chosen = {name: f for name, f in methods(sk.load_model(a.model), stars).items() if not a.only or name in a.only}
    table = sk.experiments.compare(stars, chosen, "feh", splits, path=Path(f"build/real_stars_{a.model}_{a.sample}_{a.labels}.csv"))
    columns = ["method", "regime", "n", "sigma", "sigma_scatter", "bias", "r2", "r2_scatter"]
    print(sk.experiments.summary(table)[columns].round(3).to_string(index=False))
