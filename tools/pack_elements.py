#!/usr/bin/env python3
"""Pack computed spectra with one element changed at a time into the asset that ``spectrakit.elements`` reads.

    pack_elements.py optical|hband SPECTRA.npz               # writes spectrakit/assets/elements_NAME.safetensors

SPECTRA.npz: as for fit_library.py, and ``element``: "" for a star as it is, else the element raised by 0.2 dex. Stars that lack one of the elements are
left out, and counted.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from fit_library import ASSETS, RANGES, read_models

from spectrakit.weights import save_tensors

CHANGE = 0.2                                                # dex, by which one abundance was raised
FLUX_STEP = 1 / 32767


def responses(labels, element, flux):
    """Complete stars, as they are and per dex of each element: labels (m, 5), flux (m, n_pix), names, response (m, n_elements, n_pix)."""
    names = sorted(set(element.tolist()) - {""})
    rows = {(tuple(star), name): f for star, name, f in zip(labels.tolist(), element.tolist(), flux, strict=True)}
    stars = sorted({star for star, _ in rows if all((star, name) in rows for name in ("", *names))})
    plain = np.stack([rows[star, ""] for star in stars])
    return np.array(stars), plain, names, np.stack([[(rows[star, name] - rows[star, ""]) / CHANGE for name in names] for star in stars])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("optical", "hband"))
    parser.add_argument("spectra", type=Path)
    a = parser.parse_args()
    m, element = read_models(a.spectra, a.name), np.load(a.spectra, allow_pickle=False)["element"]
    stars, plain, names, response = responses(m["labels"], element, np.exp(-m["root"] ** 2))
    step = np.abs(response).max(2) / 127 + 1e-9
    tensors = {"labels": stars, "flux": np.round(np.minimum(plain, 1) / FLUX_STEP).astype("i2"), "response_step": step.astype("f4"),
               "response": np.round(response / step[..., None]).astype("i1")}
    target = ASSETS / f"elements_{a.name}.safetensors"
    save_tensors(target, {k: torch.as_tensor(v) for k, v in tensors.items()},
                 {"elements": names, "change": CHANGE, "flux_step": FLUX_STEP, "ln_wave_start": float(m["ln"][0]), "ln_wave_step": RANGES[a.name][2]})
    print(f"{len(stars)} of {len(np.unique(m['labels'], axis=0))} stars, {len(names)} elements -> {target} ({target.stat().st_size / 1e6:.2f} MB)")
