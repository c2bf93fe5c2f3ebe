#!/usr/bin/env python3
"""Pack computed spectra with one element changed at a time into the asset that ``spectrakit.elements`` reads.

    pack_elements.py optical|hband SPECTRA.npz               # writes spectrakit/assets/elements_NAME.safetensors

SPECTRA.npz: as for fit_library.py, and ``element``: "" for a star as it is, else the element raised by 0.2 dex.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from fit_library import ASSETS, RANGES, read_models

from spectrakit.weights import save_tensors

CHANGE = 0.2

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("optical", "hband"))
    parser.add_argument("spectra", type=Path)
    a = parser.parse_args()
    m, element = read_models(a.spectra, a.name), np.load(a.spectra, allow_pickle=False)["element"]
    flux, names = np.exp(-m["root"] ** 2), sorted(set(element.tolist()) - {""})
    stars = np.unique(m["labels"], axis=0)
    row = lambda star, name: int(np.flatnonzero((m["labels"] == star).all(1) & (element == name))[0])                 # noqa: E731
    plain = np.stack([flux[row(star, "")] for star in stars])
    response = np.stack([[(flux[row(star, name)] - flux[row(star, "")]) / CHANGE for name in names] for star in stars])
    step = np.abs(response).max(2) / 127 + 1e-9
    tensors = {"labels": stars, "flux": np.round(np.minimum(plain, 1) * 32767).astype("i2"), "response_step": step.astype("f4"),
               "response": np.round(response / step[..., None]).astype("i1")}
    target = ASSETS / f"elements_{a.name}.safetensors"
    save_tensors(target, {k: torch.as_tensor(v) for k, v in tensors.items()},
                 {"elements": names, "change": CHANGE, "ln_wave_start": float(m["ln"][0]), "ln_wave_step": RANGES[a.name][2]})
    print(f"{len(stars)} stars, {len(names)} elements -> {target} ({target.stat().st_size / 1e6:.2f} MB)")
