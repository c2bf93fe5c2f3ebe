"""Where adapters sit. A placement is a declaration: names of Linears, kind, rank, alpha. Names that match nothing are an error."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ..errors import MismatchError
from .kinds import KINDS


@dataclass(frozen=True)
class Placement:
    """Adapters on the Linears whose full names match ``targets`` (shell patterns); LoRA: W + (alpha / rank) B A, with B = 0 at the start.

    >>> replace(PLACEMENTS["lora1"], rank=2, alpha=4)          # dataclasses.replace: the same place, another rank
    >>> replace(PLACEMENTS["lora2"], kind="dora")              # another kind of adapter, see ``kinds.KINDS``

    ``part`` are the parts of the network whose weights ``share`` is counted against, () all. ``embedding`` is what the placement is made for: the
    ``"mean"`` over tokens, or the one ``"projected"`` by an aligned pair; "" any.

    Raises
    ------
    MismatchError
        An unknown kind, a rank or alpha that is not positive, or a name that peft would take for something else.
    """

    name: str
    targets: tuple[str, ...]
    rank: int
    alpha: int
    where: str
    kind: str = "lora"
    part: tuple[str, ...] = ()
    embedding: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise MismatchError(f"{self.name}: no kind {self.kind!r}; there are: {', '.join(KINDS)}.")
        if self.rank < 1 or self.alpha <= 0:
            raise MismatchError(f"{self.name}: rank {self.rank} and alpha {self.alpha}; both have to be positive.")
        taken = self.name in WHOLE or hasattr(nn.ModuleDict(), self.name)                  # peft keeps adapters there, torch refuses names of methods
        if not self.name.isidentifier() or taken or any(self.name in prefix for prefix in ("lora_", "vera_lambda_", "ia3_", "oft_")):
            raise MismatchError(f"A placement cannot be called {self.name!r}: its name becomes part of the names of weights. Use letters and digits, e.g. 'mine1'.")


WHOLE = {"full": "every weight", "head": "every weight of the head", "residual": "a small network beside the head"}      # no adapters: what they are compared with
_HEAD = ("head.linears.*",)
PLACEMENTS = {p.name: p for p in (
    Placement("lora1", ("encoder.blocks.*.attention.q", "encoder.blocks.*.attention.kv", "encoder.blocks.*.attention.out"), 4, 8, "attention of every layer",
              part=("encoder",)),
    Placement("lora2", _HEAD, 8, 16, "all four Linears of the label head", part=("head",), embedding="mean"),
    Placement("lora3", ("projection.attention.out", "projection.mlp.up", "projection.mlp.down"), 16, 32, "projection into the space of an aligned pair",
              part=("encoder", "projection"), embedding="projected"),
    Placement("lora4", _HEAD, 8, 16, "all four Linears of the label head on the projected embedding", part=("head",), embedding="projected"),
)}


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
        raise MismatchError(f"No placement {placement!r}; there are: {', '.join(PLACEMENTS)} and, alone, {', '.join(map(repr, WHOLE))}. One of your own: "
                            "Placement(name, targets, ...).")
    return PLACEMENTS[placement]


def target_modules(network: nn.Module, placement: Placement) -> list[str]:
    """Full names of the Linears a placement adapts, in the order of the network.

    Raises
    ------
    MismatchError
        A pattern matches no Linear; the message names the closest real ones. (peft itself skips such names when another one matches.)
        Or the placement is made for the other kind of embedding.
    """
    _check_embedding(network, placement)
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for pattern in placement.targets:
        if not any(fnmatchcase(name, pattern) for name in linears):
            close = get_close_matches(pattern, linears, n=3, cutoff=0.0)
            raise MismatchError(f"{placement.name}: {pattern!r} matches no Linear of this network; the closest are {', '.join(close)}.")
    return [name for name in linears if any(fnmatchcase(name, pattern) for pattern in placement.targets)]


def _check_embedding(network: nn.Module, placement: Placement) -> None:
    found = "mean" if getattr(network, "projection", None) is None else "projected"
    if placement.embedding in ("", found):
        return
    if found == "projected":
        raise MismatchError(f"{placement.name} is made for the mean of the tokens; this network reads the projected embedding of an aligned pair. Use lora1, lora3 "
                            "or lora4, or a model without projection: sk.load_model('small').")
    raise MismatchError(f"{placement.name} is made for the projected embedding of an aligned pair; this network reads the mean of the tokens. Use lora1 or lora2, "
                        "or an aligned model: sk.load_model('small_aligned').")
