"""One training loop, on accelerate: a laptop's cores, one GPU, or several processes started with torchrun, from the same script."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from .errors import MismatchError
from .models.alignment import BatchNorm, n_processes
from .models.foundation import check_names
from .weights import load_tensors, save_tensors


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser settings of one stage; AdamW, linear warm-up, cosine to zero, gradients clipped at norm 1.

    ``muon``: matrices of Linears with more than one output are moved by Muon (Jordan et al. 2024), everything else by AdamW. All directions of a matrix then
    move alike, weak ones too, in steps whose rms is AdamW's (Liu et al. 2025, arXiv:2502.16982), so that ``lr`` means the same.
    """

    steps: int
    lr: float
    seed: int
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    precision: str = "no"            # "bf16" where the processor has it: twice as fast, same result within the noise of the seed
    save_every: int = 250
    muon: bool = False


def train(module: nn.Module, batches: Callable[[int], tuple[Tensor, ...]], config: TrainConfig, folder: Path, name: str) -> None:
    """Minimise ``module(*batches(step))`` in place, a scalar or a dict of scalars to be added up; logged to ``folder/name.csv``.

    Started again, it goes on where it was stopped. A batch depends on its step alone and dropout is seeded by the step, so an interrupted and
    resumed run equals an uninterrupted one bit for bit on the same machine. Batches are made in full precision, outside the autocast region.

    ``batches(step)`` is the whole batch on each of several processes; process r of R takes the rows r, r + R, ... of every part. Their mean
    gradient is that of one process, if a loss is a mean over rows or ``global_mean``; so are statistics of BatchNorm. Dropout is drawn by each
    process for itself. Every parameter that asks for a gradient must get one in each step. All processes read and one writes ``folder``.

    Raises
    ------
    MismatchError
        The checkpoint in ``folder`` belongs to other settings or another module, or a batch cannot be shared equally.
    FloatingPointError
        The loss or its gradient is no longer finite; the last checkpoint is kept.
    """
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    optimizers, first = _start(module.to(accelerator.device), config, checkpoint := folder / f"{name}.safetensors")
    if first >= config.steps:
        return
    wrapped, *optimizers = accelerator.prepare(_share_statistics(module).train(), *optimizers)
    log = _Log(folder / f"{name}.csv", first) if accelerator.is_main_process else None
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=name, mininterval=10, disable=not accelerator.is_local_main_process)
    for step in bar:
        values, norm = _step(wrapped, optimizers, batches(step), config, step, accelerator)
        if not math.isfinite(sum(values.values()) + norm):
            raise FloatingPointError(f"{name}: the loss is {values['loss']}, its gradient {norm} at step {step}; the checkpoint {checkpoint.name} is older. "
                                     "Lower lr, start again.")
        for optimizer in optimizers:
            optimizer.step()
        if log is not None:
            bar.set_postfix(log.write(step, values, learning_rate(config, step)), refresh=False)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                _save(checkpoint, module, optimizers, config, step + 1)
    accelerator.wait_for_everyone()                                    # none leaves while another still writes


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def optimizers(module: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for matrices where ``config.muon`` asks for it."""
    matrices = [m.weight for m in module.modules() if config.muon and isinstance(m, nn.Linear) and m.out_features > 1 and m.weight.requires_grad]
    taken = {id(p) for p in matrices}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    found = [torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)]
    if matrices:
        found.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return found


def global_mean(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over the values of all processes, of which each may have another number, as a loss that ``train`` can average over processes.

    Where counts differ the mean of means is not the mean: here each process divides its sum by its share of the count of all.
    """
    if n_processes() == 1:
        return values.mean()
    count = torch.tensor(values.numel(), device=values.device)
    dist.all_reduce(count)
    return values.sum() * n_processes() / count


def _step(wrapped: nn.Module, optimizers: list, batch, config: TrainConfig, step: int, accelerator) -> tuple[dict[str, float], float]:
    """Gradients of one step; the loss and its terms, means over the processes, and the norm of the gradient before it is clipped."""
    n, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    if odd := [len(part) for part in batch if len(part) % n]:
        raise MismatchError(f"{n} processes cannot share {odd[0]} rows of a batch equally; let every part of it have a multiple of {n} rows.")
    share = [part[rank::n].to(device) for part in batch]              # not in one piece: a shorter part may be of the first rows of a longer one
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        torch.manual_seed((config.seed * 1_000_003 + step) * n + rank)
        terms = wrapped(*share)
    loss, terms = (sum(terms.values()), terms) if isinstance(terms, dict) else (terms, {})
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
    values = accelerator.reduce(torch.stack([loss, *terms.values()]).detach(), "mean").tolist()
    return dict(zip(("loss", *terms), values, strict=True)), norm.item()


def _share_statistics(module: nn.Module) -> nn.Module:
    """Statistics of BatchNorm over all processes: of a share they would be those of another, smaller batch. With one process nothing changes."""
    for layer in module.modules():
        if n_processes() > 1 and isinstance(layer, nn.BatchNorm1d):
            layer.__class__ = BatchNorm                               # same weights, same buffers, same names
    return module


class _Log:
    """step, loss, learning rate, terms of the loss; rows after the checkpoint that is resumed are dropped."""

    def __init__(self, path: Path, first: int):
        lines = path.read_text().splitlines() if path.is_file() else []
        self.kept = [row for row in csv.reader(lines) if row and row[0].isdigit() and int(row[0]) < first]
        self.path, self.smooth = path, {}

    def write(self, step: int, values: dict[str, float], lr: float) -> dict[str, str]:
        """Add a row; returns running means as one reads them."""
        loss, *terms = values.values()
        if not self.smooth:
            self._begin(["step", "loss", "lr", *list(values)[1:]])
        with self.path.open("a", newline="") as f:
            csv.writer(f).writerow([step, f"{loss:.6f}", f"{lr:.3e}", *(f"{term:.6f}" for term in terms)])
        self.smooth = {k: 0.98 * self.smooth.get(k, v) + 0.02 * v for k, v in values.items()}
        return {k: f"{v:.4f}" for k, v in self.smooth.items()}

    def _begin(self, header: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as f:
            csv.writer(f).writerows([header, *self.kept])
        os.replace(temporary, self.path)


def _save(path: Path, module: nn.Module, optimizers: list, config: TrainConfig, step: int) -> None:
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    for j, optimizer in enumerate(optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{j}.{i}.{k}": v for k, v in state.items()}
    save_tensors(path, tensors, {"step": step, "config": asdict(config)})


def _start(module: nn.Module, config: TrainConfig, path: Path) -> tuple[list[torch.optim.Optimizer], int]:
    """The optimisers and the first step: those of the checkpoint, whose weights are loaded, where there is one."""
    found = optimizers(module, config)
    if not path.is_file():
        return found, 0
    tensors, meta = load_tensors(path)
    saved = TrainConfig(**{**meta["config"], "betas": tuple(meta["config"]["betas"])})
    if saved != config:
        raise MismatchError(f"{path.name} was made with other settings ({saved}); remove it to start afresh, or go back to them.")
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    check_names(module.state_dict(), weights)
    module.load_state_dict(weights)
    for j, optimizer in enumerate(found):
        state = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"optimizer{j}."):
                _, i, name = key.split(".")
                state["state"].setdefault(int(i), {})[name] = value
        optimizer.load_state_dict(state)
    return found, meta["step"]
