#!/usr/bin/env python3
"""How well does the embedded library give labels back? As a user would: computed models that it was not fitted to, seen by LAMOST at S/N 100
per pixel and a perfect calibration, go through the normalisation and ``PhysicalFit``.

    python tools/check_library.py

Bias (median) and scatter (standard deviation; biweight where it says so) of each label, [Fe/H] >= -1 and < -1 apart. Row "noise" is the same
with the emulator's own spectra of the same labels, so that noise and degeneracy are all there is; what row "held out" has beyond it is the
emulator's error.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from astropy.stats import biweight_scale

from spectrakit.continuum import normalize
from spectrakit.held_out import load_held_out
from spectrakit.library import LABELS, load_library
from spectrakit.models.physical import PhysicalFit
from spectrakit.simulation import observe
from spectrakit.surveys import LAMOST

SURVEY = replace(LAMOST, snr=(100.0, 100.0), systematics=LAMOST.systematics.scaled(0.0))


def errors():
    """One row a held-out model and kind of spectrum: fitted less true labels."""
    library, models, rows = load_library(), load_held_out(), []
    truth = models.labels
    spectra = {"held out": models.opacity, "noise": library.opacity(torch.as_tensor(truth))}
    for kind, opacity in spectra.items():
        stars = observe(lambda block, x=opacity: x[block], truth, SURVEY, library, np.random.default_rng(0), SURVEY.systematics)
        found = PhysicalFit().fit_labels(normalize(stars))
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
    report(errors())
