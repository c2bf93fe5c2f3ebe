#!/usr/bin/env python3
"""How the 110 coefficients of a Gaia XP spectrum become fluxes and magnitudes, measured with GaiaXPy, packed for ``spectrakit.gaia_xp``.

    pip install gaiaxpy==2.1.5
    make_gaia_xp_design.py XP_CONTINUOUS_RAW.csv gaia_xp.npz

The first is any file of continuous spectra; its first source is the template. Both maps are linear: unit changes of each coefficient give the columns.
The second holds ``coeff`` (n, 110) of many real sources: a cubic in BP-RP for the mean of each coefficient over the G flux, and the scatter about
it, are the prior of the inversion. Writes spectrakit/assets/gaia_xp_design.safetensors.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gaiaxpy import PhotometricSystem, calibrate, generate

from spectrakit.gaia_xp import ASSET, BANDS, COLOURS, N_BP, WAVE, g_flux
from spectrakit.weights import save_tensors

STEP = 100.0


def sources(path, coefficients):
    """A table of continuous spectra, copies of the first one in ``path`` with these coefficients."""
    template, rows = pd.read_csv(path, comment="#").iloc[0], []
    text = lambda values: "(" + ",".join(repr(float(v)) for v in values) + ")"                                      # noqa: E731
    for i, values in enumerate(coefficients):
        row = template.copy()
        row["source_id"], row["bp_coefficients"], row["rp_coefficients"] = i + 1, text(values[:N_BP]), text(values[N_BP:])
        rows.append(row)
    return pd.DataFrame(rows)


def prior(coeff, bands, zero_point):
    """Legendre coefficients (4, 110) and scatter (110,), robust: each coefficient weighted by its own departures, five rounds."""
    magnitudes = zero_point - 2.5 * np.log10(np.where(coeff @ bands.T > 0, coeff @ bands.T, np.nan))
    colour = magnitudes[:, 1] - magnitudes[:, 2]
    used = (colour > COLOURS[0]) & (colour < COLOURS[1])
    basis = np.polynomial.legendre.legvander(2 * (colour[used] - COLOURS[0]) / (COLOURS[1] - COLOURS[0]) - 1, 3)
    y = coeff[used] / g_flux(magnitudes[used, 0])[:, None]
    weight = np.ones_like(y)
    for _ in range(5):
        root = np.sqrt(weight)
        mean = np.stack([np.linalg.lstsq(basis * root[:, [k]], y[:, k] * root[:, k], rcond=None)[0] for k in range(y.shape[1])], 1)
        residual = y - basis @ mean
        scatter = 1.4826 * np.median(np.abs(residual - np.median(residual, 0)), 0)
        weight = 1 / (1 + (residual / scatter / 2.5) ** 2)
    print(f"prior from {used.sum()} sources")
    return mean, scatter


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", type=Path)
    parser.add_argument("coefficients", type=Path)
    a = parser.parse_args()
    first = pd.read_csv(a.example, comment="#").iloc[0]
    start = np.concatenate([np.array(first[f"{arm}_coefficients"].strip("()[] ").split(","), "f8") for arm in ("bp", "rp")])
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "sources.csv")
        sources(a.example, np.vstack([start + STEP * np.eye(start.size), start])).to_csv(file, index=False)
        spectra, _ = calibrate(file, sampling=WAVE / 10, truncation=False, save_file=False)
        photometry = generate(file, photometric_system=PhotometricSystem.Gaia_DR3_Vega, save_file=False)
    flux = np.stack(spectra["flux"])                                                     # W / m2 / nm
    bands = np.stack([photometry[f"GaiaDr3Vega_flux_{band}"] for band in BANDS], 1).astype("f8")
    zero = np.array([(photometry[f"GaiaDr3Vega_mag_{band}"] + 2.5 * np.log10(photometry[f"GaiaDr3Vega_flux_{band}"])).median() for band in BANDS])
    tensors = {"design": (flux[:-1] - flux[-1]).T / STEP, "bands": (bands[:-1] - bands[-1]).T / STEP, "zero_point": zero}
    tensors["mean"], tensors["scatter"] = prior(np.load(a.coefficients)["coeff"].astype("f8"), tensors["bands"], zero)
    save_tensors(ASSET, {k: torch.as_tensor(v) for k, v in tensors.items()}, {"origin": "GaiaXPy 2.1.5 (BSD 3-clause, ESA/Gaia/DPAC), no truncation"})
    print(f"{tensors['design'].shape} -> {ASSET} ({Path(str(ASSET)).stat().st_size / 1e3:.0f} kB); zero points {zero.round(4)}")
