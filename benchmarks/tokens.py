"""What the request models cost at the published sizes, beside the published code's figures: training steps and answers, float32 and bfloat16.

    python benchmarks/tokens.py [--threads 2] [--sizes paper small]

CPU seconds of all threads, the least of the repeats, and the peak memory; each cell in a process of its own. The published code's figures are of
torch 2.13 on 2 cores, on a machine that was not idle, with AdamW. It decodes one request at a time, and has dropout on attention weights too.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from spectrakit.models import spectra_fm, star_transformer
from spectrakit.models.request_transformer import RequestTransformer
from spectrakit.models.tokens import Tokens
from spectrakit.pretraining.requests import RequestLoss
from spectrakit.training import TrainConfig, optimizers

# cell: (model, stars, tokens in the context, requests, optimiser of a training step, CPU seconds and GiB of the published code)
CELLS = {
    "SpectraFM, training step": ("spectra_fm", 64, 512, 1, "AdamW", 31.6, 6.9),
    "SpectraFM, step with Muon": ("spectra_fm", 64, 512, 1, "Muon", 31.6, 6.9),
    "SpectraFM, 5 labels of 64 stars": ("spectra_fm", 64, 512, 5, None, 7.3, None),
    "stars, training step of 64": ("stars", 64, 64, 1, "AdamW", 0.476, 0.78),
    "stars, step of 64 with Muon": ("stars", 64, 64, 1, "Muon", 0.476, 0.78),
    "stars, training step of 512": ("stars", 512, 64, 1, "AdamW", 4.47, 2.5),
    "stars, step of 512 with Muon": ("stars", 512, 64, 1, "Muon", 4.47, 2.5),
    "stars, 110 coefficients of 64": ("stars", 64, 4, 110, None, 3.7, None),
    "stars, 110 coefficients of one": ("stars", 1, 4, 110, None, None, None),
}


def random_tokens(n, n_tok, n_identity, waves, generator):
    """Without padding; fluxes where there are waves."""
    identity = torch.ones(n, n_tok, dtype=torch.long) if waves else torch.randint(1, n_identity + 1, (n, n_tok), generator=generator)
    value, error = torch.randn(n, n_tok, generator=generator), 0.1 * torch.ones(n, n_tok)
    places = (15157 + 1793 * torch.rand(n, n_tok, generator=generator), torch.full((n, n_tok), 22500.0)) if waves else ()
    return Tokens(identity, value, error, *places)


def work(cell, size, precision):
    """A function that does what is to be timed."""
    kind, n, n_context, n_request, optimizer, *_ = CELLS[cell]
    waves = kind == "spectra_fm"
    presets, n_identity = (spectra_fm.PRESETS, len(spectra_fm.IDENTITY)) if waves else (star_transformer.PRESETS, len(star_transformer.VOCABULARY))
    network, generator = RequestTransformer(presets[size], n_identity, waves, 0).train(optimizer is not None), torch.Generator().manual_seed(0)
    context, requests = (random_tokens(n, k, n_identity, waves, generator) for k in (n_context, n_request))
    if waves:
        none = torch.zeros(n, n_request)
        requests = Tokens(torch.arange(n_request).expand(n, -1) % 5 + 2, none, none, none, none)
    loss, moved_by = RequestLoss(network), optimizers(network, TrainConfig(1, 1e-4, 0, muon=optimizer == "Muon"))
    cast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")                     # noqa: E731

    def step():
        with cast():
            terms = loss(*(part for tokens in (context, requests) for part in tokens if part is not None))
        torch.stack([term for term in terms.values() if torch.isfinite(term)]).sum().backward()           # one request is no flux: its mean is none
        for one in moved_by:
            one.step()
            one.zero_grad()

    @torch.no_grad()
    def answer():
        with cast():
            return network(context, requests)
    return step if optimizer else answer


def measure(cell, size, precision, threads, least=10.0):
    """CPU seconds, wall seconds, GiB."""
    torch.set_num_threads(threads)
    run, best, began = work(cell, size, precision), (float("inf"), float("inf")), time.perf_counter()
    run()
    while time.perf_counter() - began < least or best[0] == float("inf"):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return *best, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", default=["paper"])
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.cell:
        print(json.dumps(measure(*a.cell, a.threads)))
        sys.exit()
    print(f"{a.threads} threads; torch {torch.__version__}\n{'':34}{'size':>8}{'':>8}{'CPU s':>10}{'wall s':>10}{'GiB':>8}{'published':>11}{'ratio':>8}")
    for size in a.sizes:
        for cell, (*_, published, _) in CELLS.items():
            for precision in ("fp32", "bf16"):
                command = [sys.executable, __file__, "--threads", str(a.threads), "--cell", cell, size, precision]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                cpu, wall, memory = json.loads(done.stdout)
                ratio = f"{published:11.3f}{published / cpu:8.1f}" if published and size == "paper" else ""
                print(f"{cell:34}{size:>8}{precision:>8}{cpu:10.3f}{wall:10.3f}{memory:8.2f}{ratio}", flush=True)
