"""What stands in the hidden parts of a spectrum: the network against principal components and straight lines.

    SPECTRAKIT_DATA=FOLDER python benchmarks/restoration.py [--model small]

Every method gets the same visible pixels: six gaps of 90 pixels, drawn with one seed. Counted are pixels that no visible window shows and no mask
covers. "network, told": with the mean and standard deviation of the whole spectrum, as published, which no rival gets. The components are
fitted to simulated spectra of the network's own training survey, their number chosen on others of these. The flux is continuum normalised, with the
hidden pixels in view, for all methods alike. The last two columns are the first method's error less this one's. Intervals: 68 %, bootstrap over
stars; over models for simulated spectra.

Below: the masked loss over all hidden numbers, without those that a visible window shows as well, and of these alone.
"""

import argparse
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from realism import real_stars

import spectrakit as sk
from spectrakit.restoration import PrincipalComponents, compare, hidden_pixels, interpolate, restore

CANDIDATES = (5, 10, 20, 40, 80, 160)
TRAINING, VALIDATION, SIMULATED = 12000, 1000, 500


def sets():
    """Name -> normalised spectra."""
    lamost = sk.read("lamost_lrs")
    lamost = lamost[lamost.labelled("snr_g", "z")]
    lamost = lamost[lamost.label("snr_g") > 15]
    lamost = lamost.to_rest(lamost.label("z"))
    return {"simulated LAMOST, held-out models": sk.normalize(sk.simulate("lamost_lrs", SIMULATED, seed=78, models="held_out")),
            "real LAMOST, inside the hull": real_stars("lamost_lrs"),
            "real LAMOST, all": sk.normalize(lamost[sk.coverage(lamost) > 0.8]),
            "real MILES, inside the hull": real_stars("miles"),
            "real MILES, all": sk.normalize(sk.read("miles"))}


def components(model):
    """Fitted to what the network was trained on, their number chosen on more of the same."""
    def spectra(n, seed):
        strength = np.random.default_rng(seed).uniform(0, 1, n)
        return model.prepare(sk.simulate(model.card.survey, n, seed=seed, strength=strength))[0].double().numpy()
    valid = spectra(VALIDATION, seed=92)
    gone = hidden_pixels(model.encoder, chunks(model.encoder, VALIDATION, seed=1))
    return PrincipalComponents.fit(spectra(TRAINING, seed=91), max(CANDIDATES)).best(valid, gone, CANDIDATES)


def chunks(encoder, n, seed):
    return encoder.draw_chunks(n, torch.Generator().manual_seed(seed))


def answers(model, pca, flux, hidden):
    """Method -> restored flux; the network comes first."""
    gone = hidden_pixels(model.encoder, hidden)
    return {"network": restore(model.encoder, flux, hidden), "network, told": restore(told(model.encoder), flux, hidden),
            f"components, {len(pca.variance)}": pca.restore(flux, gone), "mean star": np.where(gone, pca.mean, flux), "straight line": interpolate(flux, gone)}


def told(encoder):
    """The same weights with the published standardisation."""
    other = copy(encoder)
    other.config = replace(encoder.config, leak=True)
    return other


@torch.no_grad()
def losses(encoder, flux, hidden):
    """Masked loss over all hidden numbers of windows, without those that can be copied from a visible window, and of these alone."""
    tokens = encoder.tokenize(flux, hidden)
    square = (encoder.restore(encoder.encode(tokens, hidden)) - tokens).square()[:, 1:, encoder.config.n_statistics:]
    inside = hidden[:, 1:, None].expand_as(square)
    copy = encoder.copyable(hidden) & inside
    return [float(square[chosen].mean()) for chosen in (inside, inside & ~copy, copy)]


def main(name):
    model = sk.load_model(name)
    encoder, pca = model.encoder, components(model)
    print(f"{name}: {len(pca.variance)} components, fitted to {TRAINING} spectra of {model.card.survey!r}, chosen on {VALIDATION}")
    loss = {}
    for title, stars in sets().items():
        flux, mask = (x.numpy() for x in model.prepare(stars))
        hidden = chunks(encoder, len(stars), seed=0)
        counted = hidden_pixels(encoder, hidden) & ~mask & (stars.ivar > 0)
        errors = {method: answer - flux for method, answer in answers(model, pca, flux.astype("f8"), hidden).items()}
        sigma = 1 / np.sqrt(np.where(counted, stars.ivar, 1.0))
        report(f"{title}: flux / continuum", errors, counted, stars)
        if stars.noise != "estimated":
            report(f"{title}: in units of the noise (noise alone: rms 1, median 0.67)", {m: e / sigma for m, e in errors.items()}, counted, stars)
        loss[title] = losses(encoder, torch.as_tensor(flux), hidden)
    table = pd.DataFrame(loss, index=["all hidden numbers", "without the copyable", "copyable alone"]).T
    print("\nmasked loss, standardised flux\n" + table.round(4).to_string())


def report(title, errors, counted, stars):
    table = compare(errors, counted, np.asarray(stars.labels["star"]))
    print(f"\n{title}; {table.n[0]} spectra of {table.n_stars[0]} stars, {counted.sum()} pixels")
    for row in table.itertuples():
        cells = [f"{getattr(row, kind):.4f} [{getattr(row, kind + '_low'):.4f}, {getattr(row, kind + '_high'):.4f}]" for kind in ("rms", "median")]
        cells += ["" if row.Index == 0 else f"{getattr(row, kind):+.4f} [{getattr(row, kind + '_low'):+.4f}, {getattr(row, kind + '_high'):+.4f}]"
                  for kind in ("rms_less", "median_less")]
        print(f"{row.method:26s}" + "".join(f"{cell:>29s}" for cell in cells), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    main(parser.parse_args().model)
