"""One model for every task against models for one: the Transformer for stars, boosted trees, a specialist network, components.

    python benchmarks/stars.py labels [--stars 49152] [--sets NAME ...]       spectra -> labels, and requests never trained
    SPECTRAKIT_DATA=FOLDER python benchmarks/stars.py inpainting [--stars 49152]
    python benchmarks/stars.py dust [--train]

`labels`: held-out simulated stars with noise, dust and gaps as a survey has them; truth without error. Trees (2000 an output, as published) and specialist learn
from the first `--stars` of the model's own training stars, each for one set of inputs. Ratio: the model's robust scatter over the rival's, of the same stars.
"copied": the model's answer to labels that it is told, less what it was told. Coverage: share of truths within one sigma.

`inpainting`: one arm of real Gaia XP spectra from 52 coefficients of the other, for the 2,030 sources with errors; in units of the coefficients' errors.
Components are fitted to the same sources, five folds, or to the model's simulated training stars. "ordinary": 0.6 < BP-RP < 1.35, where the library has stars;
there components are fitted to these alone. Noise alone would make the median 0.67.

`dust`: the extinction curve of requested giants, and R_V, for models whose training stars have dust of R_V 2.5, 3.1 and 4.0. One training population each is
needed: R_V is no observable, so a model knows the dust that it was trained in and no other. 3.1 is shipped; `--train` trains the others into build/, from the
shipped weights on, for a quarter of its steps, on as many new stars. "oracle": a perfect model, so what XP itself makes of the law.

Intervals: 68 %, bootstrap over stars. Rounded results go to benchmarks/results/stars_*.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import spectrakit as sk
from spectrakit import gaia_xp
from spectrakit.errors import MismatchError
from spectrakit.models.star_transformer import UNSEEN, StarTransformer
from spectrakit.pretraining.stars import BLOCK, POPULATIONS, pretrain_stars, simulate_stars
from spectrakit.stars import extinction, inpainting
from spectrakit.stars.inputs import LABELS, copies, inputs
from spectrakit.stars.oracle import Oracle
from spectrakit.stars.rivals import Components, Trees
from spectrakit.stars.scores import coverage, scatter_of, scatter_ratio
from spectrakit.stars.specialist import Specialist

RESULTS, BUILD = Path(__file__).parent / "results", Path("build")
LABEL_SETS = ("BP/RP 0-29, colours", "BP/RP 0-4, colours", "64 random", "BP/RP 25-54")
N_TEST, R_VS, FOLDS = 6000, (2.5, 3.1, 4.0), 5


def shipped():
    """The model, or what is missing."""
    try:
        return sk.load_model("small_stars")
    except (MismatchError, OSError) as missing:
        raise SystemExit(f"There is no trained Transformer for stars yet ({missing})\nIt is made by: python tools/pretrain_tokens.py small_stars") from None


def training_stars(model, n):
    """The first stars that the model was trained on: blocks are drawn one by one, so a shorter table is the beginning of a longer one."""
    whole = max(len(POPULATIONS), min(n, model.card.training["n_stars"]) // BLOCK) * BLOCK
    return simulate_stars(whole, model.card.training["seed"], r_v=model.card.r_v)


def test_stars(model):
    """Rows of a table of another seed, every population alike, that have a spectrum."""
    table = simulate_stars(BLOCK * len(POPULATIONS), model.card.training["seed"] + 2000, r_v=model.card.r_v)
    has = np.flatnonzero(np.isfinite(table.column("bp0")))
    return table, np.random.default_rng(0).permutation(has)[:N_TEST]


def held_out(table, rows, name):
    """Inputs of the test stars."""
    return {key: value[rows] for key, value in inputs(table, name, np.random.default_rng(1)).items()}


def row(name, method, label, answer, truth):
    rng, residual = np.random.default_rng(0), answer[0] - truth
    sigma, covered = scatter_of(residual, rng), coverage(residual, answer[1], rng)
    return {"inputs": name, "method": method, "label": label, "n": len(truth), "sigma": sigma.value, "low": sigma.low, "high": sigma.high,
            "bias": np.median(residual), "coverage": covered.value, "coverage_low": covered.low, "coverage_high": covered.high}


def compare(model, train, test, rows, name, wanted):
    """One row a method and label; the rivals' hold the model's scatter over theirs."""
    learn, known = inputs(train, name, np.random.default_rng(2)), held_out(test, rows, name)
    target, error = ({label: train.column(label, kind) for label in wanted} for kind in ("value", "error"))
    methods = {"model": model, "trees": Trees(tuple(learn), wanted).fit(learn, target), "specialist": Specialist(tuple(learn), wanted).fit(learn, target, error)}
    answers = {method: rival.request(known, wanted) for method, rival in methods.items()}
    for method, answer in answers.items():
        for label in wanted:
            truth = test.column(label, "truth")[rows]
            found = row(name, method, label, answer[label], truth)
            if method != "model":
                ratio = scatter_ratio(answers["model"][label][0] - truth, answer[label][0] - truth, np.random.default_rng(0))
                found |= {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
            yield found


def labels(a):
    model = shipped()
    train, (test, rows) = training_stars(model, a.stars), test_stars(model)
    print(f"{len(train.value)} of {model.card.training['n_stars']} training stars for trees and specialist, {len(rows)} held-out ones", flush=True)
    table = []
    for name in a.sets:
        table += compare(model, train, test, rows, name, LABELS)
        show(table, name)
        save(table, "labels")                                                  # an hour's work should not hang on the next
    copied = copies(model, held_out(test, rows, "BP/RP 25-54, labels"), LABELS)
    for label in LABELS:
        away = (copied[label] - test.column(label)[rows])[np.isfinite(test.column(label)[rows])]
        sigma = scatter_of(away, np.random.default_rng(0))
        table.append({"inputs": "BP/RP 25-54, labels", "method": "model, copied", "label": label, "n": len(away), "sigma": sigma.value, "low": sigma.low,
                      "high": sigma.high, "bias": np.median(away)})
    table += compare(model, train, test, rows, "BP/RP 0-31", UNSEEN)
    show(table, "BP/RP 25-54, labels")
    show(table, "BP/RP 0-31")
    save(table, "labels")


def sources():
    """Coefficients over the G flux, their errors, and BP-RP of the real sources that have them."""
    stars = sk.read("gaia_xp")
    coeff, error = (np.asarray(stars.labels[name], "f8") for name in ("coeff", "coeff_err"))
    with np.errstate(invalid="ignore"):
        g, bp, rp = gaia_xp.load_design().magnitudes(coeff).T
    has = np.isfinite(coeff).all(1) & np.isfinite(error).all(1) & np.isfinite(g)
    scale = gaia_xp.g_flux(g[has])[:, None]
    return coeff[has] / scale, error[has] / scale, (bp - rp)[has]


def folded(coeff, arm, degree):
    """Components, fitted to four fifths of the sources for each fifth."""
    fold, found = np.random.default_rng(0).permutation(len(coeff)) % FOLDS, coeff.copy()
    sigma = np.zeros(coeff.shape)
    for k in range(FOLDS):
        part = inpainting.inpaint(components(coeff[fold != k], arm, degree), coeff[fold == k], arm)
        found[fold == k], sigma[fold == k] = part.coeff, part.sigma
    return inpainting.Inpainted(found, sigma, arm)


def components(coeff, arm, degree):
    own, other = inpainting.ARMS[arm], inpainting.ARMS[inpainting.OTHER[arm]]
    known = dict(zip(inpainting.NAMES[inpainting.OTHER[arm]][:inpainting.N_KNOWN], coeff[:, other].T, strict=False))
    return Components(tuple(known), inpainting.NAMES[arm], degree=degree).fit(known, dict(zip(inpainting.NAMES[arm], coeff[:, own].T, strict=True)))


def inpaint(a):
    model = shipped()
    train, (coeff, error, colour) = training_stars(model, a.stars), sources()
    simulated = train.value[np.isfinite(train.value[:, :110]).all(1), :110]
    told, table = inpainting.relevant(coeff, error), []
    groups = {"all": np.ones(len(colour), bool), "ordinary": (colour > 0.6) & (colour < 1.35)}
    for arm in inpainting.ARMS:
        plain = components(simulated, arm, 1)
        for group, rows in groups.items():
            seen = coeff[rows]
            for method, part in {"model": inpainting.inpaint(model, seen, arm, told[rows]), "components, same sources": folded(seen, arm, 1),
                                 "the same, squares too": folded(seen, arm, 2), "components, simulated": inpainting.inpaint(plain, seen, arm)}.items():
                table += inpainted_rows({"arm": arm, "method": method, "sources": group, "n": len(seen)}, part, seen, error[rows])
    save(table, "inpainting")
    print(pd.DataFrame(table).round(3).to_string())


def inpainted_rows(what, part, coeff, error):
    """Each source's median |error| in units of its errors, then the median over sources; one row a range of orders."""
    own, observed = inpainting.ARMS[part.arm], coeff @ gaia_xp.load_design().flux.T
    away, limit = inpainting.in_errors(part, coeff, error), part.sigma[:, own]
    if what["method"] == "model":                                              # the rivals' sigma holds the errors of the coefficients already
        limit = np.hypot(limit, error[:, own])
    light = np.abs(part.spectrum / observed - 1)[:, part.hidden & (gaia_xp.WAVE > 4000) & (gaia_xp.WAVE < 9500)]
    for first, end in ((0, 5), (5, 20), (20, 55)):
        each, rng = np.median(np.abs(away[:, first:end]), 1), np.random.default_rng(0)
        low, high = np.quantile(np.median(each[rng.integers(len(each), size=(500, len(each)))], 1), (0.16, 0.84))
        inside = np.abs(part.coeff - coeff)[:, own][:, first:end] < limit[:, first:end]
        yield what | {"orders": f"{first}-{end - 1}", "median": np.median(each), "low": low, "high": high, "rms": np.sqrt(np.mean(away[:, first:end] ** 2)),
                      "coverage": inside.mean(), "flux, median [%]": 100 * np.median(light)}


def dust_model(r_v, train):
    """The model whose training stars have this R_V, or None."""
    model, path = shipped(), BUILD / f"stars_rv_{r_v}.safetensors"
    if r_v == model.card.r_v:
        return model
    if not path.is_file() and train:
        t = model.card.training
        trained = pretrain_stars("small", BUILD / f"stars_rv_{r_v}", n_stars=t["n_stars"], steps=t["stage"]["steps"] // 4, batch=t["batch"], lr=t["stage"]["lr"],
                                 seed=t["seed"] + 1, precision=t["stage"]["precision"], r_v=r_v, start=model)
        trained.save(path)
    return StarTransformer.load(path) if path.is_file() else None


def dust(a):
    table = []
    for r_v in R_VS:
        for method, model in (("model", dust_model(r_v, a.train)), ("oracle", Oracle(r_v))):
            if model is None:
                print(f"R_V {r_v}: no model was trained in such dust. `python benchmarks/stars.py dust --train` does it.")
                continue
            found = extinction.curve(model, absolute=True)
            ratio = extinction.Curve(found.wave, found.ratio, None, found.ebv)
            for law in extinction.LAWS:
                fit, away, shape = extinction.fit_rv(found, law), *(100 * np.abs(extinction.deviation(c, r_v, law)) for c in (found, ratio))
                table.append({"input": r_v, "method": method, "law": law, "n": len(found.ratio), "r_v": fit.r_v, "sigma": fit.sigma,
                              "rms [mag]": fit.rms, "at edge": fit.at_edge, "largest, A [%]": away.max(), "within 5 %, A": (away < 5).mean(),
                              "largest, E [%]": shape.max(), "within 5 %, E": (shape < 5).mean()})
    save(table, "dust")
    print(pd.DataFrame(table).round(3).to_string())


def show(table, name):
    part = pd.DataFrame(table)
    print(part[part.inputs == name].round(3).drop(columns="inputs").to_string(index=False), flush=True)


def save(table, name):
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(table).to_csv(RESULTS / f"stars_{name}.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("labels", "inpainting", "dust"))
    parser.add_argument("--stars", type=int, default=6 * BLOCK)
    parser.add_argument("--sets", nargs="+", default=LABEL_SETS, choices=LABEL_SETS)
    parser.add_argument("--train", action="store_true")
    a = parser.parse_args()
    {"labels": labels, "inpainting": inpaint, "dust": dust}[a.task](a)
