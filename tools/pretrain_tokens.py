#!/usr/bin/env python3
"""Train a shipped model that answers requests: ``pretrain_tokens.py small_stars`` (any observable of a star), ``small_spectrafm`` (spectra as tokens).

Stopped and started again, it goes on where it was. Checkpoints and logs go to build/pretrain_NAME/, the model to spectrakit/assets/NAME.safetensors.
``tiny_`` in place of ``small_`` is trained in a few minutes, for tests.
"""

import argparse
import os
from pathlib import Path

import torch

from spectrakit.pretraining.pixels import pretrain_spectra_fm
from spectrakit.pretraining.stars import pretrain_stars

STARS = {"small_stars": dict(n_stars=131_072, steps=8000, batch=64, lr=1e-3, precision="bf16"),
         "tiny_stars": dict(n_stars=16_384, steps=2000, batch=64, lr=2e-3, precision="no")}
SPECTRA = {"small_spectrafm": dict(steps=5000, batch=64, lr=1e-3, precision="bf16"),
           "tiny_spectrafm": dict(steps=2000, batch=32, lr=2e-3, precision="no")}


def train(name, folder, seed):
    size = name.split("_")[0]
    return pretrain_stars(size, folder, seed=seed, **STARS[name]) if name in STARS else pretrain_spectra_fm(size, folder, seed=seed, **SPECTRA[name])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*STARS, *SPECTRA))
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    model = train(a.name, Path(f"build/pretrain_{a.name}"), a.seed)
    if int(os.environ.get("RANK", 0)) == 0:                            # torchrun's number of this process: all have the same weights, one writes them
        model.save(f"spectrakit/assets/{a.name}.safetensors")
        print(f"{a.name}: {sum(p.numel() for p in model.parameters()):,} parameters, held-out scatter {model.card.scatter}, {model.card.training['seconds']} s")
