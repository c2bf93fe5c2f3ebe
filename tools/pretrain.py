#!/usr/bin/env python3
"""Train a shipped model: ``pretrain.py small``, then ``small_aligned`` on its encoder; ``tiny``, ``tiny_aligned``; ``small_flux``, without an encoder.

Stopped and started again, it goes on where it was. With several processes: ``torchrun --nproc_per_node 2 tools/pretrain.py small``.
Checkpoints and logs go to build/pretrain_NAME/, the model to spectrakit/assets/NAME.safetensors.
"""

import argparse
import os
from pathlib import Path

import torch

from spectrakit.models.shipped import load_model
from spectrakit.pretraining import PairConfig, pretrain, pretrain_flux, pretrain_pair

SIMULATED = {"survey": "pretraining", "recipe": "robust"}
SIZES = {"small": dict(n_masked=320_000, n_labelled=160_000, n_heads=40_000, batch=64, lr=1e-3, precision="bf16"),
         "tiny": dict(n_masked=48_000, n_labelled=48_000, n_heads=10_000, batch=64, lr=2e-3, precision="no")}
PAIRS = {"small_aligned": PairConfig(131_072, 256, 20_000, 4000, 1e-3), "tiny_aligned": PairConfig(16_384, 256, 2000, 1000, 2e-3)}
FLUXES = {"small_flux": dict(n=262_144)}


def train(name, folder, seed):
    size = name.split("_")[0]
    if name in SIZES:
        return pretrain(size, folder=folder, seed=seed, **SIMULATED, **SIZES[name])
    if name in FLUXES:
        return pretrain_flux(size, folder=folder, seed=seed, **SIMULATED, **FLUXES[name])
    return pretrain_pair(load_model(size), size, folder, PAIRS[name], seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*SIZES, *PAIRS, *FLUXES))
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    model = train(a.name, Path(f"build/pretrain_{a.name}"), a.seed)
    if int(os.environ.get("RANK", 0)) == 0:                            # torchrun's number of this process: all have the same weights, one writes them
        model.cpu().save(f"spectrakit/assets/{a.name}.safetensors")
        print(f"{a.name}: {sum(p.numel() for p in model.parameters()):,} parameters, held-out scatter {model.card.sigma}, {model.card.training['seconds']} s")
