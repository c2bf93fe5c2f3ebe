"""How fast a spectrum transformer trains, and what share of the machine it uses: `small` and `paper`, float32 and bfloat16.

    python benchmarks/throughput.py [--device cpu|cuda] [--sizes small paper] [--batches 16 64]

A step is the masked stage's: loss, gradients, AdamW. Floating-point operations are counted by torch (forward and backward); the ceiling is a matrix product
of the MLP's shape in the same precision, measured in the same run. Best of the repeats: on a busy machine only the ratios mean something.
"""

import argparse
import resource
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(work, device, least=3.0):
    """Best time of one call, over at least three calls and ``least`` seconds."""
    best, began, n = float("inf"), time.perf_counter(), 0
    while n < 3 or time.perf_counter() - began < least:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best, n = min(best, time.perf_counter() - start), n + 1
    return best


def product_rate(config, batch, dtype, device):
    """FLOP/s of (batch n_tok, d_model) x (d_model, d_mlp)."""
    a = torch.randn(batch * config.n_tok, config.d_model, device=device, dtype=dtype)
    b = torch.randn(config.d_model, config.d_mlp, device=device, dtype=dtype)
    a @ b
    return 2 * a.shape[0] * config.d_model * config.d_mlp / seconds(lambda: a @ b, device)


def training_step(config, batch, dtype, device):
    """A function that makes one step, and the operations it takes."""
    model = SpectrumTransformer(config, 0).to(device)
    optimizer, generator = torch.optim.AdamW(model.parameters(), 1e-4), torch.Generator().manual_seed(0)
    flux = (1 + 0.1 * torch.randn(batch, config.n_pix, generator=generator)).to(device)
    hidden = model.draw_chunks(batch, generator).to(device)

    def step():
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model.masked_loss(flux, hidden)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops(), sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["small", "paper"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 64])
    a = parser.parse_args()
    where = torch.cuda.get_device_name() if a.device == "cuda" else f"{torch.get_num_threads()} threads"
    columns = ("precision", "batch", "s / step", "spectra/s", "GFLOP/s", "product", "share", "peak MB")
    print(f"{where}; torch {torch.__version__}\n{'size':8s}" + "".join(f"{name:>11s}" for name in columns))
    for size in a.sizes:
        for name, dtype in PRECISIONS.items():
            for batch in a.batches:
                step, flops, n = training_step(PRESETS[size], batch, dtype, a.device)
                t, ceiling = seconds(step, a.device), product_rate(PRESETS[size], batch, dtype, a.device)
                peak = torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                row = (f"{t:.3f}", f"{batch / t:.1f}", f"{flops / t / 1e9:.0f}", f"{ceiling / 1e9:.0f}", f"{flops / t / ceiling:.0%}", f"{peak:.0f}")
                print(f"{size:8s}{name:>11s}{batch:11d}" + "".join(f"{cell:>11s}" for cell in row), flush=True)
        print(f"{size}: {n:,} parameters, {flops / a.batches[-1] / 1e9:.2f} GFLOP a spectrum and step")
