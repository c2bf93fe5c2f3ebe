#!/usr/bin/env python3
"""Train a shipped model: ``pretrain.py small``, then ``small_aligned`` on its encoder; or ``tiny``, ``tiny_aligned``. Stopped and started again, it goes
on where it was. With several processes: ``torchrun --nproc_per_node 2 tools/pretrain.py small``.

Checkpoints and logs go to build/pretrain_NAME/, the model to spectrakit/assets/NAME.safetensors.
"""

import argparse
import os
from pathlib import Path

import torch

from spectrakit.models.shipped import load_model
from spectrakit.pretraining import PairConfig, pretrain, pretrain_pair

SIZES = {"small": dict(n_masked=80_000, n_labelled=160_000, n_heads=40_000, batch=64, lr=1e-3, precision="bf16"),
         "tiny": dict(n_masked=16_000, n_labelled=48_000, n_heads=10_000, batch=64, lr=2e-3, precision="no")}

PAIRS = {"small_aligned": PairConfig(131_072, 256, 4000, 1500, 1e-3), "tiny_aligned": PairConfig(16_384, 256, 800, 800, 2e-3)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*SIZES, *PAIRS))
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    folder, size = Path(f"build/pretrain_{a.name}"), a.name.removesuffix("_aligned")
    model = (pretrain(size, "pretraining", folder, recipe="robust", seed=a.seed, **SIZES[size]) if a.name in SIZES
             else pretrain_pair(load_model(size), size, folder, PAIRS[a.name], seed=a.seed))
    if int(os.environ.get("RANK", 0)) == 0:                            # torchrun's number of this process: all have the same weights, one writes them
        model.cpu().save(f"spectrakit/assets/{a.name}.safetensors")
        print(f"{a.name}: {sum(p.numel() for p in model.parameters()):,} parameters, held-out scatter {model.card.sigma}, {model.card.training['seconds']} s")
