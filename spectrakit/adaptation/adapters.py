"""Putting adapters into a network with peft, switching them, and taking their weights out again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import MismatchError
from .kinds import check_together, peft_config, start_from_singular_vectors
from .network import LabelNetwork
from .placements import WHOLE, Placement, get_placement, target_modules

RESIDUAL_WIDTH = 64


def insert(network: LabelNetwork, placements: Sequence[str | Placement], seed: int) -> nn.Module:
    """A ``PeftModel`` with one adapter a placement, all active, everything else frozen; ``("full",)``, ``("head",)`` and ``("residual",)`` need no adapter.

    Raises
    ------
    MismatchError
        An unknown placement, one that does not fit the network, a pattern that matches nothing, kinds that cannot stand together, two placements of
        one name, or ``"full"``, ``"head"`` or ``"residual"`` beside others.
    """
    network.requires_grad_(False)
    if not placements:
        raise MismatchError("No placement is given, so nothing would be trained; expected e.g. placement=('lora2',).")
    whole = [p for p in placements if p in WHOLE]
    if whole:
        if len(placements) > 1:
            raise MismatchError(f"{whole[0]!r} trains {WHOLE[whole[0]]}; nothing can stand beside it, found {', '.join(map(str, placements))}.")
        return _whole(network, whole[0], seed)
    from peft import get_peft_model
    chosen = [get_placement(p) for p in placements]
    targets = {p.name: target_modules(network, p) for p in chosen}
    _check(network, chosen, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(network, peft_config(chosen[0], targets[chosen[0].name]), adapter_name=chosen[0].name)
        for p in chosen[1:]:
            model.add_adapter(p.name, peft_config(p, targets[p.name]))
    model.base_model.set_adapter(list(targets))
    for p in chosen:
        if p.kind == "pissa":
            for name in targets[p.name]:
                start_from_singular_vectors(network.get_submodule(name), p.name)
    return model


def label_network(model: nn.Module) -> LabelNetwork:
    """The network inside, adapted or not."""
    return model.base_model.model if hasattr(model, "base_model") else model


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Names and values of what is trained: the adapters' weights, or all weights."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what is trained."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


@torch.no_grad()
def load(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Put a ``state`` back, whatever is switched on."""
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)


@contextmanager
def switched(model: nn.Module, on: Sequence[str], strength: float | int = 1.0):
    """Inside, the adapters ``on`` alone act; each adapted layer gives base + ``strength`` (adapted - base)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    if not on:
        with model.disable_adapter():
            yield
        return
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)] if strength != 1 else []
    hooks = [m.register_forward_hook(lambda m, x, y: torch.lerp(m.get_base_layer()(*x), y, float(strength))) for m in layers]
    model.base_model.set_adapter(list(on))
    try:
        yield
    finally:
        model.base_model.set_adapter(list(model.peft_config))
        for hook in hooks:
            hook.remove()


def _whole(network: LabelNetwork, name: str, seed: int) -> LabelNetwork:
    if name == "full":
        return network.requires_grad_(True)
    if name == "head":
        network.head.requires_grad_(True)
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.residual = nn.Sequential(nn.Linear(network.head.x_mean.numel(), RESIDUAL_WIDTH), nn.ReLU(), nn.Linear(RESIDUAL_WIDTH, 1))
    network.residual.to(network.head.x_mean.device)
    for weight in network.residual[-1].parameters():
        nn.init.zeros_(weight)                                                   # it starts from zero-shot
    return network


def _check(network: LabelNetwork, placements: list[Placement], targets: dict[str, list[str]]) -> None:
    if len(targets) < len(placements):
        raise MismatchError(f"Two placements have one name: {', '.join(p.name for p in placements)}. Give each its own: dataclasses.replace(placement, name=...).")
    check_together(placements)
    parts = {part for name, _ in network.named_modules() for part in name.split(".")}
    for p in placements:
        if p.name in parts:
            raise MismatchError(f"A placement cannot be called {p.name!r}: a part of the network is, and peft tells weights apart by these names.")
        odd = [name for name in targets[p.name] if p.kind == "oft" and network.get_submodule(name).in_features % p.rank]
        if odd:
            raise MismatchError(f"{p.name}: oft turns blocks of rank = {p.rank} inputs, but {odd[0]} has {network.get_submodule(odd[0]).in_features}. "
                                "Take a rank that divides it.")
