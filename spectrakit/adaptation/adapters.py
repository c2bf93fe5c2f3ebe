"""Putting adapters into a network with peft, and taking their weights out again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..errors import MismatchError
from ..models.heads import LabelHead
from ..models.spectrum_transformer import SpectrumTransformer
from .placements import FULL, Placement, get_placement, target_modules


class LabelNetwork(nn.Module):
    """Encoder and one head in a row: flux (n, n_pix) -> label (n,). BatchNorm keeps its statistics, whatever mode it is put in."""

    def __init__(self, encoder: SpectrumTransformer, head: LabelHead):
        super().__init__()
        self.encoder, self.head = encoder, head
        head.freeze_statistics()

    def forward(self, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"]) -> Float[Tensor, " n"]:
        return self.head(self.encoder(flux, mask))[:, 0]


def insert(network: LabelNetwork, placements: Sequence[str | Placement], seed: int) -> nn.Module:
    """A ``PeftModel`` with one LoRA adapter a placement, all active, everything else frozen; ``("full",)`` makes every weight trainable instead.

    Raises
    ------
    MismatchError
        An unknown placement, a pattern that matches nothing, or ``"full"`` beside others.
    """
    network.requires_grad_(False)
    if FULL in placements:
        if len(placements) > 1:
            raise MismatchError(f"'full' trains every weight; nothing can stand beside it, found {', '.join(map(str, placements))}.")
        return network.requires_grad_(True)
    from peft import LoraConfig, get_peft_model
    chosen = [get_placement(p) for p in placements]
    configs = {p.name: LoraConfig(r=p.rank, lora_alpha=p.alpha, target_modules=target_modules(network, p)) for p in chosen}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (first, config), *others = configs.items()
        model = get_peft_model(network, config, adapter_name=first)
        for name, config in others:
            model.add_adapter(name, config)
    model.base_model.set_adapter(list(configs))
    return model


def label_network(model: nn.Module) -> LabelNetwork:
    """The network inside, adapted or not."""
    return model.base_model.model if hasattr(model, "base_model") else model


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Names and values of what is trained: the adapters' weights, or all weights."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
