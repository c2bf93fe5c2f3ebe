"""Where adapters sit. A placement is a declaration: names of Linears, rank, alpha. Names that match nothing are an error."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ..errors import MismatchError


@dataclass(frozen=True)
class Placement:
    """LoRA on the Linears whose full names match ``targets`` (shell patterns): W + (alpha / rank) B A, with B = 0 at the start."""

    name: str
    targets: tuple[str, ...]
    rank: int
    alpha: int
    where: str


PLACEMENTS = {p.name: p for p in (
    Placement("lora1", ("encoder.blocks.*.attention.q", "encoder.blocks.*.attention.kv", "encoder.blocks.*.attention.out"), 4, 8, "attention of every layer"),
    Placement("lora2", ("head.linears.*",), 8, 16, "all four Linears of the label head"),
)}
FULL = "full"                      # every weight of encoder and head: no adapter, the comparison


def get_placement(placement: str | Placement) -> Placement:
    """A placement by name, or a declaration of one's own as it is.

    Raises
    ------
    MismatchError
        The name is unknown.
    """
    if isinstance(placement, Placement):
        return placement
    if placement not in PLACEMENTS:
        raise MismatchError(f"No placement {placement!r}; there are: {', '.join(PLACEMENTS)} and {FULL!r}. One of your own: Placement(name, targets, ...).")
    return PLACEMENTS[placement]


def target_modules(network: nn.Module, placement: Placement) -> list[str]:
    """Full names of the Linears a placement adapts, in the order of the network.

    Raises
    ------
    MismatchError
        A pattern matches no Linear; the message names the closest real ones. (peft itself skips such names when another one matches.)
    """
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for pattern in placement.targets:
        if not any(fnmatchcase(name, pattern) for name in linears):
            close = get_close_matches(pattern, linears, n=3, cutoff=0.0)
            raise MismatchError(f"{placement.name}: {pattern!r} matches no Linear of this network; the closest are {', '.join(close)}.")
    return [name for name in linears if any(fnmatchcase(name, pattern) for pattern in placement.targets)]
