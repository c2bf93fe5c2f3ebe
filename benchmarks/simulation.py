"""How fast stars are simulated: spectra a second by survey, cost against the number of stars, memory when streamed.

    python benchmarks/simulation.py

Times are wall clock, the best of three, and mean little on a busy machine: the ratio to a matrix product of the same run is printed too.
"""

import os
import resource
import time

import torch

import spectrakit as sk
from spectrakit.surveys import SURVEYS


def seconds(work, repeats=3):
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def peak():
    """Resident memory at its largest so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sk.simulate("lamost_lrs", 4096, seed=0)
    first = peak()
    for block in range(1, 40):
        sk.simulate("lamost_lrs", 4096, seed=block)
    print(f"streamed in blocks of 4096 stars: {first:.0f} MB after 1 block, {peak():.0f} MB after 40")
    a = torch.randn(1024, 1024)
    matmul = 2 * 1024**3 / seconds(lambda: a @ a) / 1e9
    print(f"{os.cpu_count()} cores, matrix product in float32: {matmul:.0f} GFLOP/s\n{'survey':14s}{'pixels':>8s}{'spectra/s':>11s}{'products/spectrum':>19s}")
    for name in SURVEYS:
        sk.simulate(name, 256, seed=0)
        rate = 4096 / seconds(lambda name=name: sk.simulate(name, 4096, seed=1))
        print(f"{name:14s}{len(sk.simulate(name, 1, seed=0).wave):8d}{rate:11.0f}{matmul * 1e9 / (2 * 1024**3) / rate:19.5f}")
    cost = {n: 1e6 * seconds(lambda n=n: sk.simulate("lamost_lrs", n, seed=2)) / n for n in (500, 2000, 8000, 32000)}
    print("\nlamost_lrs, microseconds a spectrum: " + ", ".join(f"n = {n}: {t:.0f}" for n, t in cost.items()))
