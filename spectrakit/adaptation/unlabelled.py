"""Adapting without a single label: by the encoder's own task on spectra of the new survey, or by pairs of spectra of the same stars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import MismatchError, SpectrumError
from ..models.aligned import AlignedModel
from ..models.alignment import info_nce
from ..models.foundation import HEAD_LABELS, FoundationModel
from ..pairs import Pairs
from ..spectra import SpectraSet
from .adapters import insert, label_network, trainable
from .frozen import Frozen, prepared
from .members import ticking
from .network import LabelNetwork, first_stage
from .placements import Placement

Loss = Callable[[Int[Tensor, " n"]], Float[Tensor, ""]]                          # of the rows of one step


def adapt_unlabelled(model: FoundationModel | AlignedModel, stars: SpectraSet | Pairs, *, placement: Sequence[str | Placement] = ("lora1",), seed: int,
                     steps: int = 200, batch: int = 32, lr: float = 1e-3, progress: bool | Callable[[int, int], object] = False) -> FoundationModel | AlignedModel:
    """A copy of ``model`` adapted to ``stars`` without labels, the adapters merged into its weights: ``sk.adapt`` and everything else go on from there.

    Parameters
    ----------
    stars : spectra: windows of them are hidden and restored, as in pretraining (``SpectrumTransformer.masked_errors``; windows masked in the data are never
        asked for). ``Pairs``: which Gaia XP spectrum belongs to which LRS spectrum (``info_nce``), for an aligned pair; its XP side stays as it is.
    placement : ``("lora1",)`` and other places in the encoder; with pairs also places in the projection, ``("lora3",)`` or ``("lora1", "lora3")``.
    seed : of the adapters' initial weights, the order of the stars and the windows hidden.
    steps, batch, lr : of AdamW with linear warm-up and linear decay. Without labels nothing says when to stop.
    progress : as in ``adapt``.

    Raises
    ------
    MismatchError
        A placement that these spectra do not teach, pairs for a model that is not one of them, or spectra that the model was not made for.
    SpectrumError
        Fewer than 2 spectra.
    """
    if len(stars) < 2:
        raise SpectrumError(f"{len(stars)} spectra; at least 2 are needed, and about a hundred to be of use.")
    if isinstance(stars, Pairs) and not isinstance(model, AlignedModel):
        raise MismatchError("Pairs of spectra adapt an aligned model, e.g. sk.load_model('small_aligned'); give this one spectra: pairs.lrs.")
    network = insert(model.network(HEAD_LABELS[0]), tuple(placement), seed)
    _check(network, stars)
    generator = torch.Generator().manual_seed(seed)
    loss = _contrastive(model, network, stars) if isinstance(stars, Pairs) else _masked(model, network, stars, generator)
    optimizer = torch.optim.AdamW(trainable(network).values(), lr=lr, weight_decay=0.0)
    network.eval()
    with ticking(progress, steps, "unlabelled") as tick:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1, (step + 1) / 20) * (1 - step / steps)
            optimizer.zero_grad()
            loss(torch.randperm(len(stars), generator=generator)[:batch]).backward()
            optimizer.step()
            tick()
    return _merged(model, network, {"spectra": len(stars), "kind": type(stars).__name__, "placement": list(network.peft_config), "steps": steps, "seed": seed})


def _check(network: nn.Module, stars: SpectraSet | Pairs) -> None:
    taught = ("encoder", "projection") if isinstance(stars, Pairs) else ("encoder",)
    wrong = [name for name in trainable(network) if first_stage([name]) >= len(taught)]
    if wrong:
        raise MismatchError(f"Without labels {type(stars).__name__} teach {' and '.join(taught)} only; this placement would train {wrong[0]}. "
                            f"Use {' and '.join(('lora1', 'lora3')[:len(taught)])}.")


def _masked(model, network: nn.Module, stars: SpectraSet, generator: torch.Generator) -> Loss:
    flux, mask = prepared(model, stars)
    encoder = label_network(network).encoder
    bad = encoder.masked_tokens(mask)

    def loss(rows):
        hidden = encoder.draw_chunks(len(rows), generator).to(bad.device) & ~bad[rows]
        return encoder.masked_errors(flux[rows], hidden).mean()
    return loss


def _contrastive(model: AlignedModel, network: nn.Module, pairs: Pairs) -> Loss:
    inside, stage, scale = label_network(network), first_stage(trainable(network)), float(model.alignment.scale)
    features = Frozen(model)(inside, stage, *prepared(model, pairs.lrs))
    target = torch.as_tensor(model.embed(pairs.xp), device=features[0].device)
    return lambda rows: info_nce(inside.run(*(t[rows] for t in features), first=stage, last=2)[0], target[rows], scale)


def _merged(model, network: nn.Module, about: dict):
    merged: LabelNetwork = network.merge_and_unload()
    copy = deepcopy(model)
    if isinstance(model, AlignedModel):
        copy.alignment.shared["lrs"].load_state_dict(merged.projection.state_dict())
    (copy.alignment.lrs if isinstance(model, AlignedModel) else copy.encoder).load_state_dict(merged.encoder.state_dict())
    copy.card = replace(model.card, training={**model.card.training, "unlabelled": [*model.card.training.get("unlabelled", []), about]})
    return copy.eval()
