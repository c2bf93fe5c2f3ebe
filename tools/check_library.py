#!/usr/bin/env python3
"""How well does the embedded library give labels back? As a user would: computed models that it was not fitted to, seen by LAMOST at S/N 100
per pixel and a perfect calibration, go through the normalisation and ``PhysicalFit``.

    check_library.py MODELS.npz PHOTOSPHERES.npz [--all]

Every tenth model is held out (number 3, 13, ...); with --all, each tenth in turn. Bias (median) and scatter (standard deviation; biweight where
it says so) of each label, [Fe/H] >= -1 and < -1 apart. Row "noise" is the same with the emulator's own spectra of the same labels, so that noise
and degeneracy are all there is; what row "held out" has beyond it is the emulator's error.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from astropy.stats import biweight_scale
from fit_library import fit, read_models

from spectrakit.continuum import normalize
from spectrakit.library import LABELS, Library
from spectrakit.models.physical import PhysicalFit
from spectrakit.simulation import observe
from spectrakit.surveys import LAMOST

SURVEY = replace(LAMOST, snr=(100.0, 100.0), systematics=LAMOST.systematics.scaled(0.0))


def errors_of_fold(models, photospheres, fold, folder):
    """One row a held-out model and kind of spectrum: fitted less true labels."""
    ln, flux, labels, knots, cont = models
    held = np.arange(len(labels)) % 10 == fold
    target = Path(folder) / f"library_{fold}.safetensors"
    fit((ln, flux[~held], labels[~held], knots, cont[~held]), photospheres, "held out", target)
    library, truth = Library.load(target), labels[held]
    shape = 10 ** np.stack([np.interp(library.wave.numpy(), knots, c) for c in cont[held]])
    spectra = {"held out": torch.as_tensor(flux[held]), "noise": library.flux_unchecked(torch.as_tensor(truth))}
    rows = []
    for kind, spectrum in spectra.items():
        source = spectrum.numpy() * shape / shape.mean(1, keepdims=True)
        stars = observe(lambda block, s=source: torch.as_tensor(s[block]), truth, SURVEY, library, np.random.default_rng(fold), SURVEY.systematics)
        found = PhysicalFit(library=library).fit_labels(normalize(stars))
        row = pd.DataFrame({name: np.array(found[name]) - truth[:, i] for i, name in enumerate(LABELS)})
        rows.append(row.assign(spectra=kind, regime=np.where(truth[:, 2] >= -1, ">= -1", "< -1"), pull=row["feh"] / np.array(found["feh_error"])))
    return pd.concat(rows)


def report(errors):
    for regime, group in errors.groupby("regime", sort=False):
        print(f"\n[Fe/H] {regime}: {(group['spectra'] == 'noise').sum()} models")
        print(f"{'':10s}{'':10s}" + "".join(f"{name:>11s}" for name in LABELS))
        for kind, some in group.groupby("spectra", sort=False):
            for figure, of in (("bias", np.median), ("scatter", np.std), ("biweight", biweight_scale)):
                values = (f"{of(some[name].to_numpy()):11.1f}" if name == "teff" else f"{of(some[name].to_numpy()):11.3f}" for name in LABELS)
                print(f"{kind:10s}{figure:10s}" + "".join(values))
            print(f"{kind:10s}within one stated sigma in feh: {(some['pull'].abs() < 1).mean():.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("photospheres", type=Path)
    parser.add_argument("--all", action="store_true", help="hold out each tenth of the models in turn")
    a = parser.parse_args()
    models = read_models(a.models)
    with tempfile.TemporaryDirectory() as folder:
        report(pd.concat([errors_of_fold(models, a.photospheres, fold, folder) for fold in (range(10) if a.all else [3])]))
