#!/usr/bin/env python3
"""Fit the embedded library to computed models, and measure it on held-out ones.

    fit_library.py MODELS.npz PHOTOSPHERES.npz spectrakit/assets/library_optical.safetensors
    fit_library.py MODELS.npz PHOTOSPHERES.npz --check             # every tenth model held out: errors at R = 1800

MODELS.npz: labels (n, 5), wave_air, flux_u16 = 50000 flux / continuum, cont_wave, cont. PHOTOSPHERES.npz: teff, logg, m_h where model
photospheres exist; their convex hull bounds the labels. Deterministic: the same input gives the same bytes.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from astropy import units as u
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import ConvexHull
from specutils.utils.wcs_utils import air_to_vac

from spectrakit.library import Library, coordinates, cubic, quadratic
from spectrakit.weights import save_tensors

R_MODELS, R_LIBRARY, STEP, OVERSAMPLE = 20000.0, 5000.0, 1e-4, 6
N_FLUX, N_CONT = 60, 8
BOX = [[4200.0, 7000.0], [1.5, 5.0], [-4.0, 0.5], [-0.2, 0.6], [-0.6, 0.75]]
C_OVER_ALPHA = 0.15
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def vacuum(wave_air):
    return air_to_vac(wave_air * u.AA, scheme="iteration", method="Ciddor1996").to_value(u.AA)


def smooth(flux, step, r_from, r_to):
    """Rows on an even ln(wave) grid, brought from one constant resolving power to a lower one."""
    return gaussian_filter1d(flux, np.sqrt(r_to**-2 - r_from**-2) / FWHM / step, axis=1, mode="nearest")


def read_models(path):
    """Library pixels: (ln wave, flux at R_LIBRARY, labels, continuum knots in vacuum, log10 continuum)."""
    d = np.load(path, allow_pickle=False)
    ln = np.log(vacuum(d["wave_air"]))
    fine = np.arange(ln[0] + 1e-9, ln[-1], STEP / OVERSAMPLE)
    flux = smooth(np.stack([np.interp(fine, ln, f) for f in d["flux_u16"] / 50000.0]), STEP / OVERSAMPLE, R_MODELS, R_LIBRARY)
    knots = np.linspace(np.exp(ln[0]), np.exp(ln[-1]), d["cont_wave"].size)
    cont = np.stack([np.interp(knots, vacuum(d["cont_wave"]), c) for c in np.log10(d["cont"])])
    return fine[::OVERSAMPLE], flux[:, ::OVERSAMPLE], d["labels"], knots, cont


def interpolation(labels, values, n_components):
    """Principal components of the values and the weights that interpolate their coefficients exactly at the models."""
    mean = values.mean(0)
    _, _, components = np.linalg.svd(values - mean, full_matrices=False)
    components = components[:n_components]
    x = coordinates(torch.as_tensor(labels))
    p, r, n = quadratic(x).numpy(), cubic(x, x).numpy(), len(x)
    system = np.block([[r, p], [p.T, np.zeros((p.shape[1], p.shape[1]))]])
    weights = np.linalg.solve(system, np.concatenate([(values - mean) @ components.T, np.zeros((p.shape[1], len(components)))]))
    step = np.abs(components).max(1) / 32767
    return {"mean": mean.astype("f4"), "components": np.round(components / step[:, None]).astype("i2"), "step": step.astype("f4"),
            "radial": weights[:n].astype("f4"), "polynomial": weights[n:].astype("f4")}


def hull_of(path):
    d = np.load(path, allow_pickle=False)
    faces = ConvexHull(np.stack([d["teff"] / 1000, d["logg"], d["m_h"]], 1)).equations
    return np.unique(faces.round(5), axis=0).astype("f4")


def fit(models, photospheres, sha256, target):
    ln, flux, labels, knots, cont = models
    depth = np.sqrt(np.clip(-np.log(np.clip(flux, 1e-3, None)), 0, None))
    tensors = {"nodes": coordinates(torch.as_tensor(labels)).float().numpy(), "hull": hull_of(photospheres), "box": np.array(BOX, "f4"), "cont_wave": knots}
    for name, values, k in (("flux", depth, N_FLUX), ("cont", cont, N_CONT)):
        tensors |= {f"{name}_{key}": value for key, value in interpolation(labels, values, k).items()}
    meta = {"library_sha256": sha256, "n_models": len(labels), "resolution": R_LIBRARY, "ln_wave_start": float(ln[0]), "ln_wave_step": STEP,
            "c_over_alpha": C_OVER_ALPHA, "origin": "LTE spectra computed with PySME 1.2 on Stagger <3D> photospheres"}
    save_tensors(target, {k: torch.as_tensor(v) for k, v in tensors.items()}, meta)
    print(f"{len(labels)} models -> {target} ({Path(target).stat().st_size / 1e6:.2f} MB)")


def check(models, photospheres, sha256, target):
    """Absolute error of held-out models at R = 1800 over pixels deeper than 2 %."""
    ln, flux, labels, knots, cont = models
    held = np.arange(len(labels)) % 10 == 3
    fit((ln, flux[~held], labels[~held], knots, cont[~held]), photospheres, sha256, target)
    predicted = Library.load(target).flux_unchecked(torch.as_tensor(labels[held])).numpy()
    true, predicted = (smooth(f, STEP, R_LIBRARY, 1800.0) for f in (flux[held], predicted))
    for name, rows in (("[Fe/H] >= -1", labels[held, 2] >= -1), ("[Fe/H] <  -1", labels[held, 2] < -1)):
        e = 100 * np.abs(predicted - true)[rows][true[rows] < 0.98]
        print(f"{name}: {rows.sum()} held-out models, median error {np.median(e):.3f} %, 95th percentile {np.percentile(e, 95):.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("photospheres", type=Path)
    parser.add_argument("target", type=Path, nargs="?", default=Path("build/library_check.safetensors"))
    parser.add_argument("--check", action="store_true")
    a = parser.parse_args()
    (check if a.check else fit)(read_models(a.models), a.photospheres, hashlib.sha256(a.models.read_bytes()).hexdigest(), a.target)
