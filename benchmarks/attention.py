"""Do attention and its rivals find the pixels where a label stands in the spectrum?

    python benchmarks/attention.py [--stars 16] [--model small] [--models held_out]

Simulated LAMOST stars, giants (logg < 3) and dwarfs (logg > 4) apart: stars of the survey's population, or held-out models. Positives: the tenth of the pixels
where d flux / d label, in sigma and without what the other four labels can imitate, is largest (spectrakit.sensitivity). Scores: attention of the last layer and
roll-out, read by all tokens as the embedding does; gradient times sigma; integrated gradients from the mean star of the class; occlusion of one window. AUC: mean
over the stars, 68 % bootstrap; p: all 1461 circular shifts in log wavelength; Holm: over methods, labels and classes of one network, 40 questions.

Networks: the shipped one; `ridge`, its frozen encoder with linear heads, fitted to 400 other simulated stars; controls: `shuffled`, the same fitted to shuffled
labels, and `random`, untrained weights. Attention is that of the encoder: `ridge` and `shuffled` share it with the shipped network. Below all: line depth,
1 - flux, which needs no network. benchmarks/results/attention.csv has every row.
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
from spectrakit.models.foundation import HEAD_LABELS, new_model
from spectrakit.saliency import pixel_scores
from spectrakit.sensitivity import positives, sensitivity
from spectrakit.significance import holm, shift_test

N_FIT = 400


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


def networks(name):
    """Name of the encoder -> encoder, and name of the network -> heads, one a label."""
    model, untrained = sk.load_model(name), new_model(name, survey="pretraining", recipe="robust", seed=0)
    mine = [[m.heads[label] for label in HEAD_LABELS] for m in (model, untrained)]
    return ((model.encoder, {name: mine[0], "ridge": linear_heads(model, False), "shuffled": linear_heads(model, True)}), (untrained.encoder, {"random": mine[1]}))


def rows(star_class, stars, made):
    """One dict a network, method and label."""
    positive = positives(sensitivity(stars))[:, :4]
    flux, sigma = torch.as_tensor(stars.flux).float(), torch.as_tensor(stars.ivar).rsqrt().float()
    for k, label in enumerate(HEAD_LABELS):
        yield {"network": "none", "method": "line depth", "label": label, "class": star_class} | shift_test(1 - stars.flux, positive[:, k], stars.wave).to_dict()
    for encoder, heads in made:
        found = {name: x.double().numpy() for name, x in pixel_scores(encoder, [head for group in heads.values() for head in group], flux, sigma).items()}
        for j, network in enumerate(heads):
            for method in found:
                for k, label in enumerate(HEAD_LABELS):
                    test = shift_test(found[method][:, 4 * j + k], positive[:, k], stars.wave)
                    yield {"network": network, "method": method, "label": label, "class": star_class} | test.to_dict()


def main(a):
    made = networks(a.model)
    table = pd.DataFrame([row for star_class, stars in classes(a.models, a.stars).items() for row in rows(star_class, stars, made)])
    table["p_holm"] = table.groupby("network")["p"].transform(lambda p: holm(p.to_numpy()))
    name = "attention.csv" if (a.model, a.models) == ("small", "emulator") else f"attention_{a.model}_{a.models}.csv"
    (Path(__file__).parent / "results").mkdir(exist_ok=True)
    table.round(5).to_csv(Path(__file__).parent / "results" / name, index=False)
    table["cell"] = [f"{r.auc:.2f} {r.p:.4f} {r.p_holm:.3f}{'*' if r.p_holm <= 0.05 else ' '}" for r in table.itertuples()]
    print(f"AUC, p, p after Holm (* at most 0.05); {table['n'].min()}-{table['n'].max()} stars a class, {table['n_shifts'].max()} shifts")
    for star_class, part in table.groupby("class"):
        print(f"\n{star_class}\n" + part.pivot(index=["network", "method"], columns="label", values="cell")[list(HEAD_LABELS)].to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=16)
    parser.add_argument("--model", default="small", choices=("small", "tiny"))
    parser.add_argument("--models", default="emulator", choices=("emulator", "held_out"))
    main(parser.parse_args())
