"""One training loop, on accelerate: a laptop's cores, one GPU, or several processes started with torchrun, from the same script."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .errors import MismatchError
from .weights import load_tensors, save_tensors


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser settings of one stage; AdamW, linear warm-up, cosine to zero, gradients clipped at norm 1."""

    steps: int
    lr: float
    seed: int
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    precision: str = "no"            # "bf16" where the processor has it: twice as fast, same result within the noise of the seed
    save_every: int = 250


def train(model: nn.Module, loss: Callable[..., Tensor], batches: Callable[[int], tuple], config: TrainConfig, folder: Path, name: str) -> None:
    """Minimise ``loss(model, *batches(step))`` in place, logging to ``folder/name.csv``; started again, it goes on where it was stopped.

    A batch depends on its step alone and dropout is seeded by the step, so an interrupted and resumed run equals an uninterrupted one bit for
    bit on the same machine. Batches are made in full precision, outside the autocast region: a spectrum rounded to bf16 is another spectrum.

    Raises
    ------
    MismatchError
        The checkpoint in ``folder`` belongs to other settings.
    FloatingPointError
        The loss or its gradient is no longer finite; the last checkpoint is kept.
    """
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    checkpoint, first = folder / f"{name}.safetensors", 0
    if checkpoint.is_file():
        first = _resume(checkpoint, model, optimizer, config)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    wrapped.train()
    log = _Log(folder / f"{name}.csv", first) if accelerator.is_main_process else None
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=name, mininterval=10, disable=not accelerator.is_local_main_process)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        batch = [part.to(accelerator.device) for part in batches(step)]
        with torch.random.fork_rng(devices=[]), torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            torch.manual_seed(config.seed * 1_000_003 + step)
            value = loss(wrapped, *batch)
        accelerator.backward(value)
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        if not (torch.isfinite(value) and torch.isfinite(norm)):
            raise FloatingPointError(f"{name}: the loss is {value.item()}, its gradient {norm.item()} at step {step}; the checkpoint {checkpoint.name} is older. "
                                     "Lower lr, start again.")
        optimizer.step()
        optimizer.zero_grad()
        if log is not None:
            log.write(step, value.item(), learning_rate(config, step))
            bar.set_postfix(loss=f"{log.smooth:.4f}", refresh=False)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                _save(checkpoint, accelerator.unwrap_model(wrapped), optimizer, config, step + 1)
    accelerator.wait_for_everyone()                                    # none leaves while another still writes


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


class _Log:
    """step, loss, learning rate; rows after the checkpoint that is resumed are dropped."""

    def __init__(self, path: Path, first: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [row for row in csv.reader(lines) if row and row[0].isdigit() and int(row[0]) < first]
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", newline="") as f:
            csv.writer(f).writerows([["step", "loss", "lr"], *kept])
        os.replace(temporary, path)
        self.path, self.smooth = path, float(kept[-1][1]) if kept else math.nan

    def write(self, step: int, loss: float, lr: float) -> None:
        self.smooth = loss if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * loss
        with self.path.open("a", newline="") as f:
            csv.writer(f).writerow([step, f"{loss:.6f}", f"{lr:.3e}"])


def _save(path: Path, model: nn.Module, optimizer, config: TrainConfig, step: int) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    save_tensors(path, tensors, {"step": step, "config": asdict(config)})


def _resume(path: Path, model: nn.Module, optimizer, config: TrainConfig) -> int:
    tensors, meta = load_tensors(path)
    saved = TrainConfig(**{**meta["config"], "betas": tuple(meta["config"]["betas"])})
    if saved != config:
        raise MismatchError(f"{path.name} was made with other settings ({saved}); remove it to start afresh, or go back to them.")
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            state["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(state)
    return meta["step"]
