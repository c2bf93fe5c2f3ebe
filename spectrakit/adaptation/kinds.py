"""Kinds of adapters: what each adds to a Linear y = W x + b, and the peft settings that make it so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import MismatchError


@dataclass(frozen=True)
class Kind:
    """``config`` is the name of peft's class, ``settings`` what a placement fills it with, ``lr`` the usual learning rate."""

    config: str
    settings: Callable[..., dict]
    lr: float = 1e-3


KINDS = {
    # W + (alpha / rank) B A, B = 0 at the start (Hu et al. 2021)
    "lora": Kind("LoraConfig", lambda p: {"r": p.rank, "lora_alpha": p.alpha}),
    # the rows of that matrix brought to lengths that are trained too (Liu et al. 2024)
    "dora": Kind("LoraConfig", lambda p: {"r": p.rank, "lora_alpha": p.alpha, "use_dora": True}),
    # alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023)
    "rslora": Kind("LoraConfig", lambda p: {"r": p.rank, "lora_alpha": p.alpha, "use_rslora": True}),
    # W + (alpha / rank) (B A - B0 A0), from the leading singular vectors B0, A0 of W (Meng et al. 2024); see start_from_singular_vectors
    "pissa": Kind("LoraConfig", lambda p: {"r": 2 * p.rank, "lora_alpha": 2 * p.alpha}),
    # W + diag(b) B diag(d) A with fixed random A and B; no alpha; published with ranks of 256 and more (Kopiczko et al. 2023)
    "vera": Kind("VeraConfig", lambda p: {"r": p.rank}, lr=1e-2),
    # diag(l) (W x + b); neither rank nor alpha (Liu et al. 2022)
    "ia3": Kind("IA3Config", lambda p: {"feedforward_modules": []}, lr=1e-2),
    # W R with R made of rotations of ``rank`` neighbouring inputs each; no alpha (Qiu et al. 2023)
    "oft": Kind("OFTConfig", lambda p: {"oft_block_size": p.rank}),
}
LOW_RANK = ("lora", "dora", "rslora", "pissa")                                   # these have a B A that can be truncated


def peft_config(placement, targets: list[str]):
    """peft's configuration of one placement."""
    import peft
    kind = KINDS[placement.kind]
    return getattr(peft, kind.config)(target_modules=targets, **kind.settings(placement))


def check_together(placements) -> None:
    """Raise ``MismatchError`` for kinds that peft cannot put into one network."""
    configs = {KINDS[p.kind].config for p in placements}
    if len(configs) > 1 or (len(placements) > 1 and "VeraConfig" in configs):
        found = ", ".join(f"{p.name} ({p.kind})" for p in placements)
        raise MismatchError(f"These kinds cannot stand in one network: {found}. {', '.join(LOW_RANK)} go together; ia3 and oft with their own kind alone; vera, "
                            "whose placements would share their random matrices, in one placement at a time.")


@torch.no_grad()
def start_from_singular_vectors(layer: nn.Module, name: str) -> None:
    """PiSSA without touching W: B A - B0 A0 as one adapter of twice the rank, [B, -B0] [A; A0], of which the second halves get no gradient.

    peft writes W - B0 A0 into the network instead, so that there is no base left to switch back to; saved, its adapters are converted to this very form.
    """
    A, B, r = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.r[name] // 2
    if not A.is_meta:
        U, S, Vh = torch.linalg.svd(layer.get_base_layer().weight, full_matrices=False)
        k, root = min(r, len(S)), (S[:r] / layer.scaling[name]).sqrt()           # where W has fewer than r, the rest starts like LoRA
        A[:k], B[:, :k] = root[:, None] * Vh[:k], U[:, :k] * root
        A[r:], B[:, r:] = A[:r], -B[:, :r]
    A.register_hook(lambda gradient: torch.cat([gradient[:r], torch.zeros_like(gradient[r:])]))
    B.register_hook(lambda gradient: torch.cat([gradient[:, :r], torch.zeros_like(gradient[:, r:])], 1))
