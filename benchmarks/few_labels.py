"""Labels from embeddings against other methods on the same simulated spectra, from 50 to 5,000 labelled stars.

    python benchmarks/few_labels.py [--model small] [--label feh] [--only METHOD ...]

Training stars: LAMOST as simulated (population, S/N 10-300, systematics x1), normalised. Test stars: 1,000 more of the population, and 500 spectra of computed
models that the library was not fitted to. Three draws of training stars. Finished (method, n, draw) rows are kept in
build/few_labels_*.csv; the scores are published in benchmarks/results.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spectrakit as sk
from spectrakit.models.baselines import RidgePCA
from spectrakit.models.cannon import Cannon
from spectrakit.models.foundation import new_model
from spectrakit.models.physical import PhysicalFit

SIZES = (50, 100, 300, 1000, 5000)


def probe(model):
    def fit(train, label, test):
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15))).fit(model.embed(train), train.label(label))
        return [ridge.predict(model.embed(stars)) for stars in test]
    return fit


def baseline(make):
    return lambda train, label, test: [make().fit(train, label).predict(stars)[0] for stars in test]


def methods(names):
    table = {f"ridge on embedding, {name}": probe(sk.load_model(name)) for name in names}
    fresh = new_model("small", survey="pretraining", recipe="robust", seed=0)
    return table | {"ridge on embedding, random weights": probe(fresh), "ridge on PCA": baseline(RidgePCA), "Cannon": baseline(Cannon),
                    "physical fit (no label)": lambda train, label, test: [PhysicalFit().fit(stars[:0], label).predict(stars)[0] for stars in test],
                    "zero-shot (no label)": lambda train, label, test: [sk.load_model(names[0]).predict(stars, label)[0] for stars in test]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "small_aligned"])
    parser.add_argument("--label", default="feh")
    parser.add_argument("--only", nargs="*")
    a = parser.parse_args()
    stars = {name: sk.normalize(sk.simulate("lamost_lrs", n, seed=seed, models=models)) for name, n, seed, models in (
        ("population", 1000, 30_001, "emulator"), ("true models", 500, 30_002, "held_out"))}
    path = Path(f"build/few_labels_{a.models[0]}_{a.label}.csv")
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["method", "n_labels", "draw"])
    finished, rows = set(zip(done.method, done.n_labels, done.draw, strict=True)), done.to_dict("records")
    for draw in range(3):
        pool = sk.normalize(sk.simulate("lamost_lrs", max(SIZES), seed=31_000 + draw))
        for name, method in methods(a.models).items():
            for n in (0,) if "no label" in name else SIZES:
                if (name, n, draw) in finished or (a.only and name not in a.only) or ("no label" in name and draw):
                    continue
                for (test, truth), value in zip(stars.items(), method(pool[:n], a.label, stars.values()), strict=True):
                    rows.append({"method": name, "n_labels": n, "draw": draw, "test": test} | sk.metrics.score(truth.label(a.label), value, n_boot=200).to_dict())
                path.parent.mkdir(exist_ok=True)
                pd.DataFrame(rows).to_csv(path, index=False)
                last = pd.DataFrame(rows[-len(stars):])[["method", "n_labels", "draw", "test", "sigma", "bias", "r2"]]
                print(last.round(3).to_string(index=False, header=False), flush=True)
    columns = ["method", "n_labels", "draw", "test", "n", "sigma", "bias", "r2"]
    pd.DataFrame(rows)[columns].round(4).to_csv(Path(__file__).parent / "results" / path.name, index=False)
    table = pd.DataFrame(rows).groupby(["test", "method", "n_labels"])[["sigma", "bias", "r2"]].agg(["mean", "std"]).round(3)
    print(table.to_string())
