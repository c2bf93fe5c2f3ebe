"""Seconds a step of 16 spectra, by what is adapted: with the frozen parts computed once, and as a naive loop that computes them at every step.

    python benchmarks/adaptation_cost.py [small|paper] [--steps 20] [--fit] [--agree]

Each row in float32 and in bfloat16 (autocast); medians over the steps, all in one run. `paper` has untrained weights: time does not know. --fit times all of
`sk.adapt` with 89 + 9 labels too: five members, the search for the best check, and for heads the steps it takes by default (150) and for the encoder 75;
the encoder of `paper` would take half an hour and is left out.

--agree instead adapts to three draws of 89 + 9 stars in either precision (all of `sk.adapt` under torch.autocast): sigma of 300 other stars, and the standard
deviation and the largest of the difference of their labels.
"""

import argparse
import time

import numpy as np
import torch

import spectrakit as sk
from spectrakit.adaptation.adapters import insert, label_network, trainable
from spectrakit.adaptation.frozen import Frozen, prepared
from spectrakit.adaptation.network import first_stage
from spectrakit.models.foundation import new_model

LABEL, BATCH = "feh", 16
PLACEMENTS = {"LoRA2": ("lora2",), "LoRA1": ("lora1",), "LoRA1+LoRA2": ("lora1", "lora2"), "full fine-tuning": ("full",)}


def load(size):
    if size == "small":
        return sk.load_model("small")
    model, stars = new_model("paper", survey="pretraining", recipe="robust", seed=0), sk.normalize(sk.simulate("pretraining", 64, seed=0))
    embedding, labels = (torch.as_tensor(part, dtype=torch.float32) for part in (model.embed(stars), stars.label(LABEL)[:, None]))
    model.heads[LABEL].set_scaling(embedding, labels)
    return model


def seconds(network, first, inputs, y, steps, precision):
    """Median time of forward, backward and AdamW from stage ``first``, without the first two steps."""
    optimizer, rng, times = torch.optim.AdamW(trainable(network).values(), lr=1e-4), np.random.default_rng(0), []
    for _ in range(steps + 2):
        rows = torch.as_tensor(rng.integers(len(y), size=BATCH))
        began = time.perf_counter()
        with autocast(precision):
            value = label_network(network).run(*(t[rows] for t in inputs), first=first)[0]
        optimizer.zero_grad()
        torch.nn.functional.smooth_l1_loss(value.float(), y[rows]).backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


def autocast(precision):
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)      # the cache would keep weights as they were before a step


def agree(model):
    """One line a draw and placement."""
    test = sk.normalize(sk.simulate("desi", 300, seed=2))
    for name in ("LoRA2", "LoRA1+LoRA2"):
        for draw in range(3):
            train, value = sk.normalize(sk.simulate("desi", 98, seed=10 + draw)), {}
            for precision in ("fp32", "bf16"):
                with autocast(precision):
                    fit = sk.adapt(model, train[:89], validation=train[89:], label=LABEL, placement=PLACEMENTS[name], seed=0, steps=75)
                value[precision] = fit.predict(test)[0]
            sigma = {precision: sk.metrics.score(test.label(LABEL), v).sigma for precision, v in value.items()}
            away = value["bf16"] - value["fp32"]
            print(f"  {name:12s} draw {draw}: sigma fp32 {sigma['fp32']:.4f}, bf16 {sigma['bf16']:.4f}; difference {away.std():.4f}, "
                  f"largest {np.abs(away).max():.4f} dex", flush=True)


def main(a):
    if a.agree:
        return agree(load(a.size))
    model, stars = load(a.size), sk.normalize(sk.simulate("desi", 98, seed=1))
    inputs, y = prepared(model, stars), torch.as_tensor(stars.label(LABEL), dtype=torch.float32)
    print(f"{a.size}: seconds a step of {BATCH}, {torch.get_num_threads()} threads; frozen parts once / at every step")
    for name, placement in PLACEMENTS.items():
        network = insert(model.network(LABEL), placement, 0).eval()
        first = first_stage(trainable(network))
        with torch.no_grad():
            features = label_network(network).run(*inputs, last=first)
        for precision in ("fp32", "bf16"):
            once, naive = (seconds(network, stage, parts, y, a.steps, precision) for stage, parts in ((first, features), (0, inputs)))
            print(f"  {name:18s} {precision}  {once:8.4f}  {naive:8.4f}  ratio {naive / once:6.1f}", flush=True)
    for name, placement in PLACEMENTS.items() if a.fit else ():
        head = first_stage(trainable(insert(model.network(LABEL), placement, 0))) == 2
        if a.size == "paper" and not head:
            continue
        steps, frozen, times = 150 if head else 75, Frozen(model), []
        for _ in range(2 if head else 1):
            began = time.perf_counter()
            sk.adapt(model, stars[:89], validation=stars[89:], label=LABEL, placement=placement, seed=0, steps=steps, frozen=frozen)
            times.append(time.perf_counter() - began)
        print(f"  sk.adapt, {name:18s} 5 x {steps} steps: " + ", again ".join(f"{t:.1f} s" for t in times), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=("small", "paper"), default="small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--agree", action="store_true")
    main(parser.parse_args())
