"""SpectraFM's three stages with 100 iron-rich stars, the network from scratch and other rivals, tested below [Fe/H] = -1.

    python benchmarks/three_stages.py apogee [--draws 10] [--model small_spectrafm]
    SPECTRAKIT_DATA=FOLDER python benchmarks/three_stages.py miles
    python benchmarks/three_stages.py coverage|choice

`apogee`: stage one is the shipped model. Stage two: 1,024 + 128 simulated APOGEE stars of the survey's population with its declared systematics (times 1),
in 15152-16028 A, five labels with errors. Stage three: 100 of these, observed [Fe/H] > -1, in 16105.9-16220.0 A (511 pixels), [Fe/H] alone. Test:
computed models that no emulator was fitted to ("models": 4 spectra each), and stars of the population ("population"), both with the systematics times 1.
`miles`: real stars inside the library's hull. Stage two: 4000-4800 A of all but the test stars, teff, logg and feh; stage three: 100 iron-rich ones in
4800-5600 A; test: one half of the stars below -1 and 100 others, in every second draw the other half and 100 others. Here and there 20 of the 100 decide
when to stop and how wide the sigmas are. Rivals have the same 100.

`choice`: which parts are trained in stage three, on draws of other seeds, iron-rich and iron-poor stars of the emulator. `coverage`: 68 % intervals of the
shipped model, before any fine-tuning. Finished pairs of method and draw are kept in build/, by model; rmse and the like are published in
benchmarks/results. Intervals: 68 %, bootstrap over draws and test stars (models).
"""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import spectrakit as sk
from spectrakit import population
from spectrakit.held_out import load_held_out
from spectrakit.library import LABELS, load_library
from spectrakit.models.baselines import GaussianProcessPCA, RidgePCA
from spectrakit.models.physical import PhysicalFit
from spectrakit.models.spectra_fm import SpectraFM
from spectrakit.pretraining.finetuning import STAGE_THREE, finetune, window
from spectrakit.pretraining.scratch import train_scratch
from spectrakit.resolution import degrade
from spectrakit.spectra import concatenate

CUT, N_LABELS, N_VALID = -1.0, 100, 20
HALF, CHUNK = (15152.0, 16028.0), (16105.9, 16220.0)
BLUE, RED = (4000.0, 4800.0), (4800.0, 5600.0)
ERRORS = {"teff": 50.0, "logg": 0.08, "feh": 0.03, "alpha_fe": 0.03, "c_fe": 0.05}       # APOGEE's labels, declared
LITERATURE = {"teff": 80.0, "logg": 0.2, "feh": 0.1}                                     # MILES' labels, from its catalogue's comparisons
STAGE_TWO = dict(steps=80, lr=3e-4, batch=24, n_tok=256, checks=8)
FINAL = dict(steps=40, lr=3e-4, batch=16, n_tok=192, checks=8, parts=STAGE_THREE)
REGIMES = {"< -1": (-9.0, -1.0), "-2.5 to -1": (-2.5, -1.0), ">= -1": (-1.0, 9.0)}
PUBLISHED = {"from scratch": 0.763, "stage 1": 0.902, "stages 1, 2": 0.510, "stages 1, 3": 0.256, "stages 1, 2, 3": 0.232}


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of the 100: what each stage is given, each (training, validation) but the test. Draws of one ``fold`` share stage two and test stars."""

    seed: int
    fold: int
    second: tuple
    third: tuple
    test: sk.SpectraSet
    errors: dict
    library: str


def with_errors(stars, errors, seed):
    """Labels as a catalogue has them: the truth and a normal error."""
    labels, rng = stars.labels.copy(), np.random.default_rng(seed)
    for name, error in errors.items():
        labels[name] = labels[name] + error * rng.standard_normal(len(stars)) * labels[name].unit
    return replace(stars, labels=labels)


def of_population(n, low, high, seed):
    """Labels of n stars of APOGEE's population with low <= [Fe/H] < high."""
    rng, library, kept = np.random.default_rng(seed), load_library("hband"), np.empty((0, 5))
    while len(kept) < n:
        labels = population.draw("apogee", 4000, rng, library)
        kept = np.concatenate([kept, labels[(labels[:, 2] >= low) & (labels[:, 2] < high)]])
    return kept[:n]


def apogee(model, n_draws, seed=80):
    """Draws of simulated stars."""
    pool = with_errors(model.prepare(sk.simulate("apogee", 1152, seed)), ERRORS, seed)
    labels = np.concatenate([of_population(70, -9, CUT, seed + 1), of_population(40, CUT, 9, seed + 2)])
    models = sk.simulate("apogee", 4 * len(load_held_out("hband").labels), seed + 3, models="held_out")
    test = model.prepare(concatenate(models, sk.simulate("apogee", len(labels), seed + 4, labels=labels)))
    second, third, test = window(pool, *HALF), window(pool, *CHUNK), window(test, *CHUNK)
    rich = np.flatnonzero(pool.label("feh") > CUT)
    for k in range(n_draws):
        rows = np.random.default_rng([seed, k]).choice(rich, N_LABELS, replace=False)
        yield Draw(k, 0, (second[:1024], second[1024:]), (third[rows[N_VALID:]], third[rows[:N_VALID]]), test, ERRORS, "hband")


def miles(model, n_draws, seed=90):
    """Draws of real stars."""
    stars = sk.read("miles")
    stars = stars[stars.labelled("teff", "logg", "feh")]
    stars = stars[sk.experiments.in_hull(stars)]
    stars = model.prepare(stars[sk.coverage(stars) > 0.8])
    rich, poor = np.flatnonzero(stars.label("feh") > CUT), np.flatnonzero(stars.label("feh") < CUT)
    second, third = window(stars, *BLUE), window(stars, *RED)
    for k in range(n_draws):
        fold = np.random.default_rng(seed + k % 2)
        left = np.random.default_rng(seed).permutation(poor)[k % 2::2]
        test = np.concatenate([left, fold.choice(rich, 100, replace=False)])
        others = fold.permutation(np.setdiff1d(np.arange(len(stars)), test))
        few, n = np.random.default_rng([seed, k]).choice(np.setdiff1d(rich, test), N_LABELS, replace=False), len(others) // 10
        yield Draw(k, k % 2, (second[others[n:]], second[others[:n]]), (third[few[N_VALID:]], third[few[:N_VALID]]), third[test], LITERATURE, "optical")


class Once:
    """``make()`` of a kind once for all draws of a fold: what no label of the draw goes into."""

    def __init__(self):
        self.known = {}

    def __call__(self, kind, d, make):
        if (kind, d.fold) not in self.known:
            self.known[kind, d.fold] = make()
        return self.known[kind, d.fold]


def ours(model):
    """Name -> function of a draw: value and sigma of the test stars."""
    once, feh = Once(), lambda d: {"feh": d.errors["feh"]}

    def stage_two(d):
        return once("model", d, lambda: finetune(model, *d.second, d.errors, seed=d.fold, **STAGE_TWO))
    return {"stage 1": lambda d: once("stage 1", d, lambda: model.predict(d.test, "feh")),
            "stages 1, 2": lambda d: once("stages 1, 2", d, lambda: stage_two(d).predict(d.test, "feh")),
            "stages 1, 3": lambda d: finetune(model, *d.third, feh(d), seed=d.seed, **FINAL).predict(d.test, "feh"),
            "stages 1, 2, 3": lambda d: finetune(stage_two(d), *d.third, feh(d), seed=d.seed, **FINAL).predict(d.test, "feh")}


def rivals():
    """The same, of methods that know nothing of the model."""
    once = Once()
    physical = lambda d: PhysicalFit(library=load_library(d.library)).fit(coarse(d.test)[:0], "feh").predict(coarse(d.test))      # noqa: E731
    plain = lambda make: lambda d: make(d.seed).fit(concatenate(*d.third), "feh").predict(d.test)              # noqa: E731
    return {"from scratch": lambda d: train_scratch(*d.third, "feh", d.errors["feh"], seed=d.seed).predict(d.test),
            "ridge on PCA": plain(lambda k: RidgePCA(25, seed=k)), "Gaussian process on PCA": plain(lambda k: GaussianProcessPCA(25, seed=k)),
            "physical fit (no label)": lambda d: once("fit", d, lambda: physical(d))}


def coarse(stars):
    """The library of the H band has APOGEE's own resolving power and can only be broadened; the fit gets spectra a little less sharp."""
    return degrade(stars, 20_000.0) if stars.wave[0] > 15_000 else stars


def run(draws, table_of, path) -> pd.DataFrame:
    """One row a method, draw and test spectrum; resumes where it was stopped."""
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["method", "draw"])
    finished, parts = set(zip(done.method, done.draw, strict=True)), [done] if len(done) else []
    for d in tqdm(draws, desc="draws", mininterval=2):
        for name, method in table_of.items():
            if (name, d.seed) in finished:
                continue
            value, sigma = method(d)
            star = d.test.labels["star"]
            parts.append(pd.DataFrame({"method": name, "draw": d.seed, "star": star, "feh": d.test.label("feh"), "value": value, "sigma": sigma}))
            path.parent.mkdir(exist_ok=True)
            pd.concat(parts).to_csv(path, index=False)
    return pd.concat(parts, ignore_index=True)


def regimes(table):
    """(set, regime, rows) of the table: simulated models, simulated population, or real stars. The models go down to -3.9, farther than any published test star."""
    kind = np.where(table.star.astype(str).str.startswith("model"), "models", np.where(table.star.astype(str).str.startswith("sim"), "population", "MILES"))
    for name in dict.fromkeys(kind):
        for regime, (low, high) in REGIMES.items():
            rows = table[(kind == name) & (table.feh >= low) & (table.feh < high)]
            if len(rows):
                yield name, regime, rows


def per_draw(table):
    """rmse, bias, sd (dex), share within one sigma, of every method, draw, set and regime."""
    rows = []
    for name, regime, part in regimes(table):
        for (method, draw), group in part.groupby(["method", "draw"], sort=False):
            error = group.value - group.feh
            rows.append({"set": name, "regime": regime, "method": method, "draw": draw, "n": len(group), "stars": group.star.nunique(),
                         "rmse": np.sqrt(np.mean(error**2)), "bias": error.mean(), "sd": error.std(), "coverage": np.mean(np.abs(error) < group.sigma)})
    return pd.DataFrame(rows)


def summary(table, n_boot=1000):
    """Mean rmse over the draws, and its ratio from scratch / this method, with intervals over draws and stars resampled together."""
    rows, methods = [], table.method.nunique()
    complete = [draw for draw, group in table.groupby("draw") if group.method.nunique() == methods]
    for name, regime, part in regimes(table[table.draw.isin(complete)]):
        part = part.assign(square=(part.value - part.feh) ** 2, inside=np.abs(part.value - part.feh) < part.sigma)
        cells = {m: group.groupby(["draw", "star"])[["square", "inside"]].mean().unstack("star") for m, group in part.groupby("method", sort=False)}
        rng, found = np.random.default_rng(0), {m: [] for m in cells}
        for _ in range(n_boot):
            for m, value in resampled({m: cell["square"].to_numpy() for m, cell in cells.items()}, rng).items():
                found[m].append(value)
        for m, cell in cells.items():
            rmse = root(cell["square"].to_numpy())
            ratio, boots = root(cells["from scratch"]["square"].to_numpy()) / rmse, np.array(found["from scratch"]) / np.array(found[m])
            low, high = np.quantile(found[m], (0.16, 0.84))
            rows.append({"set": name, "regime": regime, "method": m, "draws": len(cell), "stars": cell["square"].shape[1], "rmse": rmse, "rmse_low": low,
                         "rmse_high": high, "bias": (part.value - part.feh)[part.method == m].mean(), "coverage": np.nanmean(cell["inside"].to_numpy(float)),
                         "ratio": ratio, "ratio_low": np.quantile(boots, 0.16), "ratio_high": np.quantile(boots, 0.84)})
    return pd.DataFrame(rows)


def root(square):
    """Mean over draws of the root mean square over stars."""
    return float(np.sqrt(np.nanmean(square, 1)).mean())


def resampled(squares, rng):
    """The same draws and stars for all methods; stars that a draw did not test are blanks."""
    first = next(iter(squares.values()))
    draws, stars = rng.integers(len(first), size=len(first)), rng.integers(first.shape[1], size=first.shape[1])
    return {m: root(square[draws][:, stars]) for m, square in squares.items()}


def coverage(model, n=500):
    """68 % intervals of five labels through three surveys, emulator and true models."""
    rows = []
    for survey in ("apogee", "lamost_lrs", "desi"):
        for models in ("emulator", "held_out"):
            stars = sk.simulate(survey, n, 95, models=models)
            for name, (value, sigma) in model.request(stars, LABELS).items():
                error = value - stars.label(name)
                inside, names = pd.Series(np.abs(error) < sigma), np.asarray(stars.labels["star"])
                share, rng = inside.groupby(names).mean().to_numpy(), np.random.default_rng(0)
                boots = share[rng.integers(len(share), size=(1000, len(share)))].mean(1)
                rows.append({"survey": survey, "models": models, "label": name, "n": n, "stars": len(share), "scatter": 1.4826 * np.median(np.abs(error)),
                             "bias": np.median(error), "coverage": inside.mean(), "low": np.quantile(boots, 0.16), "high": np.quantile(boots, 0.84)})
    return pd.DataFrame(rows)


def choice(model, n_draws=2):
    """Parts, rate and pixels of stage three on draws that are not tested on."""
    rows = []
    for d in apogee(model, n_draws, seed=180):
        test = d.test[np.flatnonzero(np.char.startswith(np.asarray(d.test.labels["star"]).astype(str), "sim"))]
        for parts in (STAGE_THREE, ("decoder", "head", "mean", "log_variance"), ("head", "mean", "log_variance"), ("",)):
            for lr in (1e-4, 3e-4, 1e-3):
                value, _ = finetune(model, *d.third, {"feh": d.errors["feh"]}, seed=d.seed, **{**FINAL, "parts": parts, "lr": lr}).predict(test, "feh")
                square, poor = (value - test.label("feh")) ** 2, test.label("feh") < CUT
                rmse = {f"rmse {name}": np.sqrt(square[rows_].mean()) for name, rows_ in (("< -1", poor), (">= -1", ~poor))}
                rows.append({"parts": "+".join(parts) or "all", "lr": lr, "draw": d.seed, **rmse})
    return pd.DataFrame(rows).groupby(["parts", "lr"], sort=False)[["rmse < -1", "rmse >= -1"]].mean().reset_index()


def read_model(name) -> tuple[SpectraFM, str]:
    """A shipped model or a file, and the beginning of its weights' hash."""
    model = SpectraFM.load(Path(name)) if name.endswith(".safetensors") else sk.load_model(name)
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values()))
    return model, digest.hexdigest()[:8]


def main(a):
    model, key = read_model(a.model)
    results = Path(__file__).parent / "results"
    if a.target in ("coverage", "choice"):
        tables: dict[str, Callable] = {"coverage": coverage, "choice": choice}
        table = tables[a.target](model)
        table.assign(model=key).round(4).to_csv(results / f"three_stages_{a.target}.csv", index=False)
        return print(table.round(3).to_string(index=False))
    draws = list((apogee if a.target == "apogee" else miles)(model, a.draws))
    table = run(draws, rivals(), Path("build") / f"three_stages_{a.target}_rivals.csv")
    if not a.rivals:
        table = pd.concat([table, run(draws, ours(model), Path("build") / f"three_stages_{a.target}_{key}.csv")])
        per_draw(table).assign(model=key).round(4).to_csv(results / f"three_stages_{a.target}_draws.csv", index=False)
        summary(table).assign(model=key).round(4).to_csv(results / f"three_stages_{a.target}.csv", index=False)
    found = summary(table)
    print(found.assign(published=found.method.map(PUBLISHED)).round(3).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("apogee", "miles", "coverage", "choice"))
    parser.add_argument("--model", default="small_spectrafm")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--rivals", action="store_true", help="these alone: they need no model but for the spectra's normalisation")
    main(parser.parse_args())
