#!/usr/bin/env python3
"""Train a shipped model: ``pretrain.py small`` or ``pretrain.py tiny``. Stopped and started again, it goes on where it was.

Checkpoints and logs go to build/pretrain_NAME/, the model to spectrakit/assets/NAME.safetensors.
"""

import argparse
import os
from pathlib import Path

import torch

from spectrakit.pretraining import pretrain

SIZES = {"small": dict(n_masked=80_000, n_labelled=160_000, n_heads=40_000, batch=64, lr=1e-3, precision="bf16"),
         "tiny": dict(n_masked=16_000, n_labelled=48_000, n_heads=10_000, batch=64, lr=2e-3, precision="no")}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    model = pretrain(a.name, "pretraining", Path(f"build/pretrain_{a.name}"), recipe="robust", seed=a.seed, **SIZES[a.name])
    model.save(f"spectrakit/assets/{a.name}.safetensors")
    print(f"{a.name}: {sum(p.numel() for p in model.parameters()):,} parameters, held-out scatter {model.card.sigma}, {model.card.training['seconds']} s")
