"""The table of a fit's adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .adapters import label_network, load, switched
from .kinds import LOW_RANK
from .network import PARTS
from .placements import Placement

PREFIX = "base_model.model."                                                     # peft's, before the names of our network
COLUMNS = ["placement", "module", "kind", "rank", "alpha", "parameters", "norm", "on", "share"]


def table(fit, on: Sequence[str], states: list[dict[str, Tensor]], rank: Mapping[str, int], strength: float | int):
    """``Fit.status``; ``states`` are already truncated to ``rank``."""
    import pandas as pd
    rows = [row for p in fit.placements for row in _adapters(fit, p, states, rank)] if fit.placements else _whole(fit)
    result = pd.DataFrame(rows, columns=COLUMNS).astype({"rank": "Int64", "alpha": "Int64"})
    result["on"] = result.placement.isin(on) if fit.placements else True
    result["norm"] *= abs(strength)
    return result


def counted(network: nn.Module, p: Placement, values: Mapping[str, Tensor], rank: int | None = None) -> tuple[dict[str, int], int]:
    """Trained numbers of a placement by module, those alone that ``rank`` keeps; and all weights of its ``part`` with them, which its share refers to."""
    stored = getattr(network.peft_config[p.name], "r", 0)
    kept = p.rank if rank is None else min(rank, p.rank)
    sizes = {module: sum(values[k].numel() // stored * kept if ".lora_A." in k or ".lora_B." in k else values[k].numel() for k in keys)
             for module, keys in _keys(p, values).items()}
    base = (v.numel() for k, v in label_network(network).named_parameters() if (not p.part or k.split(".")[0] in p.part) and f"{PREFIX}{k}" not in values)
    return sizes, sum(base) + sum(sizes.values())


def _keys(p: Placement, values: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Module -> names of the placement's weights there."""
    keys: dict[str, list[str]] = {}
    for key in values:                                                           # PREFIX MODULE.lora_A.NAME.weight, and the like
        path = key.removeprefix(PREFIX).split(".")
        if p.name in path:
            keys.setdefault(".".join(path[:path.index(p.name) - 1]), []).append(key)
    return keys


def _adapters(fit, p: Placement, states, rank: Mapping[str, int]) -> list[dict]:
    config = fit.network.peft_config[p.name]
    sizes, whole = counted(fit.network, p, states[0], rank.get(p.name))
    norms = _norms(fit, p, states)
    shown = None if p.kind == "ia3" else rank.get(p.name, getattr(config, "r", 0) or p.rank)
    return [{"placement": p.name, "module": module, "kind": p.kind, "rank": shown, "alpha": getattr(config, "lora_alpha", None), "parameters": size,
             "norm": norms[module], "share": size / whole} for module, size in sizes.items()]


@torch.no_grad()
def _norms(fit, p: Placement, states) -> dict[str, float]:
    """Mean over the members of the Frobenius norm of the change of each module's weight."""
    modules = _keys(p, states[0])
    layers, norms = {m: label_network(fit.network).get_submodule(m) for m in modules}, dict.fromkeys(modules, 0.0)
    with switched(fit.network, (p.name,)):
        for values in states:
            if p.kind not in LOW_RANK or p.kind == "dora":
                load(fit.network, values)
            for module, layer in layers.items():
                own = {key.split(".")[-3]: values[key].double() for key in modules[module]} if p.kind in LOW_RANK else {}
                norm = _seen(layer) if p.kind == "dora" or not own else layer.scaling[p.name] * _product(own["lora_A"], own["lora_B"])
                norms[module] += norm / len(states)
    return norms


def _product(A: Tensor, B: Tensor) -> float:
    """The norm of B A without B A: the trace of (B^T B) (A A^T) is its square."""
    return float(((B.T @ B) * (A @ A.T)).sum().clamp(min=0).sqrt())


def _seen(layer: nn.Module) -> float:
    """The norm of what the layer does to unit vectors beyond its base; for any kind, but a matrix product dearer."""
    weight = layer.get_base_layer().weight
    x = torch.cat([torch.zeros_like(weight[:1]), torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)])
    change = layer(x) - layer.get_base_layer()(x)
    return float((change[1:] - change[0]).norm())


def _whole(fit) -> list[dict]:
    """One row a part of the network; a part that the model does not have is change altogether."""
    base, rows = dict(fit.model.network(fit.label).named_parameters()), []
    total = sum(v.numel() for v in label_network(fit.network).parameters())
    for part in (*PARTS, "residual"):
        keys = [key for key in fit.states[0] if key.split(".")[0] == part]
        if keys:
            size = sum(fit.states[0][key].numel() for key in keys)
            change = [sum((s[k] - base[k] if k in base else s[k]).detach().double().square().sum() for k in keys).sqrt() for s in fit.states]
            rows.append({"placement": fit.placement[0], "module": part, "kind": fit.placement[0], "rank": None, "alpha": None, "parameters": size,
                         "norm": float(sum(change)) / len(change), "share": size / total})
    return rows
