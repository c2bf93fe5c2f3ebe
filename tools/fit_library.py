#!/usr/bin/env python3
"""Fit an embedded library to computed models; every tenth model is held out, to measure the fit and to test on.

    fit_library.py optical|xp|hband MODELS.npz PHOTOSPHERES.npz          # writes spectrakit/assets/library_NAME and held_out_NAME

MODELS.npz: labels (n, 5), wave_air, flux_u16 = 50000 flux / continuum, cont_wave, cont. PHOTOSPHERES.npz: teff, logg, m_h where model
photospheres exist; their convex hull bounds the labels. Prints the error of held-out models at R = 1800, what it would be with a half and a quarter
of the models, and what the best sum of the models leaves: no interpolation between them does better. Deterministic: the same input gives the same tensors.
"""

import argparse
import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from astropy import units as u
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import ConvexHull
from specutils.utils.wcs_utils import air_to_vac

from spectrakit.library import Library, coordinates, quadratic, thin_plate
from spectrakit.weights import save_tensors

RANGES = {"optical": (20000.0, 5000.0, 1e-4), "xp": (3000.0, 2500.0, 1.5e-4), "hband": (22500.0, 22500.0, 1.8e-5)}     # R of models, of library, step in ln(wave)
ASSETS, OVERSAMPLE = Path("spectrakit/assets"), 6
N_FLUX, N_CONT = 80, 8
BOX = [[4200.0, 7000.0], [1.5, 5.0], [-4.0, 0.5], [-0.2, 0.6], [-0.6, 0.75]]
C_OVER_ALPHA = 0.15
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def vacuum(wave_air):
    return air_to_vac(wave_air * u.AA, scheme="iteration", method="Ciddor1996").to_value(u.AA)


def smooth(flux, step, r_from, r_to):
    """Rows on an even ln(wave) grid, brought from one constant resolving power to a lower one."""
    if r_from == r_to:
        return flux
    return gaussian_filter1d(flux, np.sqrt(r_to**-2 - r_from**-2) / FWHM / step, axis=1, mode="nearest")


def read_models(path, name):
    """The models on library pixels, as a dictionary: ln(wave), square root of the opacity, labels, continuum knots in vacuum and log10 there."""
    r_models, r_library, step = RANGES[name]
    d = np.load(path, allow_pickle=False)
    ln = np.log(vacuum(d["wave_air"]))
    fine = np.arange(ln[0] + 1e-9, ln[-1], step / OVERSAMPLE)
    rows = [smooth(CubicSpline(ln, f)(fine)[None], step / OVERSAMPLE, r_models, r_library)[0, ::OVERSAMPLE] for f in d["flux_u16"] / 50000.0]
    root = np.sqrt(np.clip(-np.log(np.clip(np.stack(rows), 1e-3, None)), 0, None))
    knots = np.linspace(np.exp(ln[0]), np.exp(ln[-1]), d["cont_wave"].size)
    cont = np.stack([np.interp(knots, vacuum(d["cont_wave"]), c) for c in np.log10(d["cont"])])
    return {"ln": fine[::OVERSAMPLE], "root": root, "labels": d["labels"], "knots": knots, "cont": cont, "index": d["index"]}


def interpolation(labels, values, n_components):
    """Principal components of the values and the weights that interpolate their coefficients exactly at the models."""
    mean = values.mean(0)
    _, _, components = np.linalg.svd(values - mean, full_matrices=False)
    components = components[:n_components]
    x = coordinates(torch.as_tensor(labels))
    p, r, n = quadratic(x).numpy(), thin_plate(x, x).numpy(), len(x)
    system = np.block([[r, p], [p.T, np.zeros((p.shape[1], p.shape[1]))]])
    weights = np.linalg.solve(system, np.concatenate([(values - mean) @ components.T, np.zeros((p.shape[1], len(components)))]))
    step = np.abs(components).max(1) / 32767
    return {"mean": mean.astype("f4"), "components": np.round(components / step[:, None]).astype("i2"), "step": step.astype("f4"),
            "radial": weights[:n], "polynomial": weights[n:]}


def hull_of(path):
    d = np.load(path, allow_pickle=False)
    faces = ConvexHull(np.stack([d["teff"] / 1000, d["logg"], d["m_h"]], 1)).equations
    return np.unique(faces.round(5), axis=0).astype("f4")


def fit(name, m, rows, photospheres, sha256, folder=ASSETS):
    tensors = {"nodes": coordinates(torch.as_tensor(m["labels"][rows])).numpy(), "hull": hull_of(photospheres), "box": np.array(BOX, "f4"),
               "cont_wave": m["knots"]}
    for key, values, k in (("flux", m["root"][rows], N_FLUX), ("cont", m["cont"][rows], N_CONT)):
        tensors |= {f"{key}_{part}": value for part, value in interpolation(m["labels"][rows], values, min(k, rows.sum() - 1)).items()}
    _, resolution, step = RANGES[name]
    meta = {"library_sha256": sha256, "n_models": int(rows.sum()), "resolution": resolution, "ln_wave_start": float(m["ln"][0]), "ln_wave_step": step,
            "c_over_alpha": C_OVER_ALPHA, "origin": "LTE spectra computed with PySME 1.2 on Stagger <3D> photospheres"}
    target = folder / f"library_{name}.safetensors"
    save_tensors(target, {k: torch.as_tensor(v) for k, v in tensors.items()}, meta)
    print(f"{rows.sum()} models -> {target} ({target.stat().st_size / 1e6:.2f} MB)")
    return Library.load(target)


def keep_held_out(name, m, rows, sha256):
    """The models left out, for testing; 16 bits a pixel."""
    step = float(m["root"][rows].max() / 32767)
    tensors = {"root_opacity": np.round(m["root"][rows] / step).astype("i2"), "labels": m["labels"][rows].astype("f8"), "index": m["index"][rows].astype("i8")}
    target = ASSETS / f"held_out_{name}.safetensors"
    save_tensors(target, {k: torch.as_tensor(v) for k, v in tensors.items()}, {"library_sha256": sha256, "step": step})
    print(f"{rows.sum()} models -> {target} ({target.stat().st_size / 1e6:.2f} MB)")


def nearest_sum(root, rows, fitted):
    """Held-out models, each as the sum of fitted ones that is nearest to it."""
    mean = root[fitted].mean(0)
    _, _, components = np.linalg.svd(root[fitted] - mean, full_matrices=False)
    return mean + (root[rows] - mean) @ components.T @ components


def report(name, root, m, rows):
    """Absolute error of held-out models, given as the square root of their opacity, over pixels deeper than 2 %, at R = 1800."""
    _, r_library, step = RANGES[name]
    labels = m["labels"][rows]
    true, predicted = (smooth(np.exp(-x ** 2), step, r_library, 1800.0) for x in (m["root"][rows], root))
    for text, part in (("[Fe/H] >= -1", labels[:, 2] >= -1), ("[Fe/H] <  -1", labels[:, 2] < -1)):
        e = 100 * np.abs(predicted - true)[part][true[part] < 0.98]
        print(f"{text}: {part.sum()} held-out models, median error {np.median(e):.3f} %, 95th percentile {np.percentile(e, 95):.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RANGES)
    parser.add_argument("models", type=Path)
    parser.add_argument("photospheres", type=Path)
    a = parser.parse_args()
    models, digest = read_models(a.models, a.name), hashlib.sha256(a.models.read_bytes()).hexdigest()
    held = np.arange(len(models["labels"])) % 10 == 3
    emulator = fit(a.name, models, ~held, a.photospheres, digest)
    keep_held_out(a.name, models, held, digest)
    at = torch.as_tensor(models["labels"][held])
    report(a.name, emulator.opacity(at).double().sqrt().numpy(), models, held)
    print("nearest sum of the models")
    report(a.name, nearest_sum(models["root"], held, ~held), models, held)
    for part in (2, 4):
        with TemporaryDirectory() as unused:
            fewer = fit(a.name, models, ~held & (np.arange(len(held)) // 10 % part == 0), a.photospheres, digest, Path(unused))
            report(a.name, fewer.opacity(at).double().sqrt().numpy(), models, held)
