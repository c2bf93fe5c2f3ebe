"""Do attention and its rivals find the pixels where a label stands in the spectrum?

    python benchmarks/attention.py [--stars 16] [--model small|tiny|small_spectrafm] [--models held_out | --elements]

Simulated LAMOST stars, giants (logg < 3) and dwarfs (logg > 4) apart: stars of the survey's population, or held-out models. Positives: the tenth of the pixels
where d flux / d label, in sigma and without what the other four labels can imitate, is largest (spectrakit.sensitivity). Scores: attention of the last layer and
roll-out, read by all tokens as the embedding does; gradient times sigma; integrated gradients from the mean star of the class; occlusion of one window. AUC: mean
over the stars, 68 % bootstrap; p: all 1461 circular shifts in log wavelength; Holm: over methods, labels and classes of one network, 40 questions.

Networks: the shipped one; `ridge`, its frozen encoder with linear heads, fitted to 400 other simulated stars; controls: `shuffled`, the same fitted to shuffled
labels, and `random`, untrained weights. Attention is that of the encoder: `ridge` and `shuffled` share it with the shipped network. `small_spectrafm` is asked
for each label: attention is the request's, in the last block of the decoder and over all blocks, and the pixels of a token share its score; control: `random`.
Below all: line depth, 1 - flux, which needs no network. The last table asks whose pixels they are: the area for the label's own pixels less the mean of the
areas for the other three labels'. benchmarks/results/attention*.csv has every row.

`--elements`: reference stars of which spectra with one abundance raised at a time were computed (spectrakit.elements), and no emulator is asked. Positives are the
pixels that answer most to one element, in sigma: do the scores for [Fe/H] find iron, those for [alpha/Fe] Mg, Si, Ca, Ti? Columns are label:element; "own" is then
the area less that of the other label's scores for the same pixels.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spectrakit as sk
from spectrakit.elements import load_elements
from spectrakit.models.foundation import HEAD_LABELS, new_model
from spectrakit.models.spectra_fm import SpectraFM
from spectrakit.saliency import pixel_scores, request_scores
from spectrakit.sensitivity import element_jacobian, positives, sensitivity
from spectrakit.significance import holm, roc_auc, shift_test

N_FIT = 400
MADE_BY = {"Fe": "feh"} | dict.fromkeys(("Mg", "Si", "Ca", "Ti"), "alpha_fe")       # element -> the label that counts it


def classes(models, n):
    """Giants and dwarfs, normalised."""
    stars = sk.simulate("lamost_lrs", 60 * n, seed=70, models=models)
    logg = stars.label("logg")
    return {name: sk.normalize(stars[np.flatnonzero(chosen)[:n]]) for name, chosen in (("giants", logg < 3), ("dwarfs", logg > 4))}


def linear_heads(model, shuffled):
    """One linear layer a label on the frozen embedding."""
    stars = sk.normalize(sk.simulate("lamost_lrs", N_FIT, seed=71))
    x, order = model.embed(stars), np.random.default_rng(0).permutation(N_FIT) if shuffled else np.arange(N_FIT)
    heads = []
    for label in HEAD_LABELS:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(x, stars.label(label)[order])
        head = torch.nn.Linear(x.shape[1], 1)
        weight = ridge[1].coef_ / ridge[0].scale_
        head.weight.data, head.bias.data = torch.tensor(weight[None]).float(), torch.tensor([ridge[1].intercept_ - weight @ ridge[0].mean_]).float()
        heads.append(head)
    return heads


def with_heads(encoder, heads):
    """Stars -> network -> method -> scores (n, 4, n_pix), for heads of one encoder."""
    def scores(stars):
        flux, sigma = torch.as_tensor(stars.flux).float(), torch.as_tensor(stars.ivar).rsqrt().float()
        found = pixel_scores(encoder, [head for group in heads.values() for head in group], flux, sigma)
        return {network: {method: x[:, 4 * j:4 * j + 4] for method, x in found.items()} for j, network in enumerate(heads)}
    return scores


def by_request(network, model):
    """The same of a model that answers requests."""
    return lambda stars: {network: request_scores(model, stars, HEAD_LABELS)}


def networks(name):
    """Functions of stars, as ``with_heads`` makes them."""
    model = sk.load_model(name)
    if name.endswith("spectrafm"):
        untrained = SpectraFM(model.card, seed=0)
        untrained.network.centre[:], untrained.network.spread[:] = model.network.centre, model.network.spread
        return by_request(name, model), by_request("random", untrained)
    untrained = new_model(name, survey="pretraining", recipe="robust", seed=0)
    mine = [[m.heads[label] for label in HEAD_LABELS] for m in (model, untrained)]
    return (with_heads(model.encoder, {name: mine[0], "ridge": linear_heads(model, False), "shuffled": linear_heads(model, True)}),
            with_heads(untrained.encoder, {"random": mine[1]}))


def rows(star_class, stars, made):
    """One dict a network, method and label."""
    positive = positives(sensitivity(stars))[:, :4]
    depth = np.repeat((1 - stars.flux)[:, None], 4, 1)
    for found in ({"none": {"line depth": torch.as_tensor(depth)}}, *(scores(stars) for scores in made)):
        for network, methods in found.items():
            for method, score in methods.items():
                score = score.double().numpy()
                for k, label in enumerate(HEAD_LABELS):
                    others = np.mean([roc_auc(score[:, k], positive[:, j]).mean() for j in range(4) if j != k])
                    test = shift_test(score[:, k], positive[:, k], stars.wave)
                    yield {"network": network, "method": method, "label": label, "class": star_class} | test.to_dict() | {"own": test.auc - others}


def element_rows(made):
    """The same of reference stars, one dict a network, method and element."""
    elements = load_elements("optical")
    response, logg = element_jacobian("lamost_lrs", elements), elements.labels[:, 1]
    for star_class, chosen in (("giants", logg < 3), ("dwarfs", logg > 4)):
        stars = sk.normalize(sk.simulate("lamost_lrs", chosen.sum(), seed=72, labels=elements.labels[chosen]))
        positive = {name: positives(response[chosen, elements.names.index(name)] * np.sqrt(np.where(stars.mask, 0, stars.ivar))) for name in MADE_BY}
        found = {"none": {"line depth": torch.as_tensor(1 - stars.flux)[:, None].expand(-1, 4, -1)}} | {k: v for scores in made for k, v in scores(stars).items()}
        for (network, method), score in {(n, m): s.double().numpy() for n, methods in found.items() for m, s in methods.items()}.items():
            of = {label: score[:, HEAD_LABELS.index(label)] for label in ("feh", "alpha_fe")}
            for name, label in MADE_BY.items():
                other = roc_auc(of["alpha_fe" if label == "feh" else "feh"], positive[name]).mean()
                test = shift_test(of[label], positive[name], stars.wave)
                yield {"network": network, "method": method, "label": f"{label}:{name}", "class": star_class} | test.to_dict() | {"own": test.auc - other}


def main(a):
    made, kind = networks(a.model), "elements" if a.elements else a.models
    table = pd.DataFrame(element_rows(made) if a.elements else
                         [row for star_class, stars in classes(a.models, a.stars).items() for row in rows(star_class, stars, made)])
    table["p_holm"] = table.groupby("network")["p"].transform(lambda p: holm(p.to_numpy()))
    asked = list(table["label"].unique())
    name = "attention.csv" if (a.model, kind) == ("small", "emulator") else f"attention_{a.model}_{kind}.csv"
    (Path(__file__).parent / "results").mkdir(exist_ok=True)
    table.round(5).to_csv(Path(__file__).parent / "results" / name, index=False)
    table["cell"] = [f"{r.auc:.2f} {r.p:.4f} {r.p_holm:.3f}{'*' if r.p_holm <= 0.05 else ' '}" for r in table.itertuples()]
    print(f"AUC, p, p after Holm (* at most 0.05); {table['n'].min()}-{table['n'].max()} stars a class, {table['n_shifts'].max()} shifts")
    for star_class, part in table.groupby("class"):
        print(f"\n{star_class}\n" + part.pivot(index=["network", "method"], columns="label", values="cell")[asked].to_string())
    print("\nOwn: see above; mean over classes\n")
    print(table.pivot_table(index=["network", "method"], columns="label", values="own")[asked].round(3).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=16)
    parser.add_argument("--model", default="small", choices=("small", "tiny", "small_spectrafm"))
    parser.add_argument("--models", default="emulator", choices=("emulator", "held_out"))
    parser.add_argument("--elements", action="store_true")
    main(parser.parse_args())
