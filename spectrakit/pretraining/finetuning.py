"""From simulated to observed stars: SpectraFM's second and third stage.

FAQ
---
*What are the stages?* Pretraining on simulations (``pixels.py``); many observed stars in one piece of the spectrum, all labels; few labelled stars in another
piece, one label.
*Who chooses the step at which training stops?* Labels that are counted. The published epochs were chosen with 4,000 further labelled stars, 2,000 of
them metal-poor, and for the network from scratch with test stars.
*What may be trained?* As published, everything in the second stage, the embedding and the first block of the encoder in the third: ``STAGE_THREE``.

Source: Koblischke & Bovy 2024 (arXiv:2411.04750).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import LabelError, MismatchError
from ..models.pixel_tokens import Bins, bin_pixels
from ..models.request_transformer import RequestTransformer, gaussian_loss
from ..models.spectra_fm import IDENTITY, SpectraFM
from ..models.tokens import Tokens
from ..spectra import SpectraSet
from .stopping import descend, stretch

STAGE_THREE = ("embedding", "encoder.0")


def window(stars: SpectraSet, low: float | int, high: float | int) -> SpectraSet:
    """The pixels from ``low`` to ``high`` Angstrom, in the medium of the set. Normalise first: a continuum depends on the range it is fitted over.

    Raises
    ------
    MismatchError
        Fewer than two pixels lie there.
    """
    inside = (stars.wave >= low) & (stars.wave <= high)
    if inside.sum() < 2:
        raise MismatchError(f"{inside.sum()} pixels lie in {low:.0f}-{high:.0f} A; the spectra cover {stars.wave[0]:.0f}-{stars.wave[-1]:.0f} A ({stars.medium}).")
    return stars.with_flux(stars.wave[inside], stars.flux[:, inside], stars.ivar[:, inside], stars.mask[:, inside], stars.resolution[inside],
                           normalization=stars.normalization, step=f"cut to {low:.0f}-{high:.0f} A")


def finetune(model: SpectraFM, stars: SpectraSet, validation: SpectraSet, errors: Mapping[str, float | int], *, steps: int, lr: float, seed: int, batch: int = 32,
             n_tok: int | None = None, parts: Sequence[str] = ("",), checks: int = 10) -> SpectraFM:
    """A copy of ``model``, trained further on labelled spectra until labels it did not see are predicted no better; sigmas stretched to cover 68.3 % of these.

    Parameters
    ----------
    stars, validation : spectra with the labels named in ``errors``; both count as labelled. Normalised ones may be cut (``window``).
    errors : standard error of each label, K and dex: the loss adds it to the predicted variance.
    steps, lr : of AdamW with linear warm-up over a tenth and cosine decay; the step with the least loss of ``validation`` among ``checks`` and the start is kept.
    n_tok : each step reads as many single pixels of each star, drawn anew. None: all tokens, as in use.
    parts : beginnings of the names of the parameters that are trained, all by default; ``STAGE_THREE`` as published.

    Raises
    ------
    LabelError
        A star without a label.
    MismatchError
        Spectra the model was not made for, or nothing to train.
    """
    tuned, names = copy.deepcopy(model), list(errors)
    targets = [_request(s, errors) for s in (stars, validation)]
    held, bins = tuned.context(validation), tuned.bins(stars) if n_tok is None else _pixels(tuned, stars)
    network, generator = tuned.network.eval(), torch.Generator().manual_seed(seed)
    trained = [p for name, p in network.named_parameters() if name.startswith(tuple(parts))]
    if not trained:
        raise MismatchError(f"No parameter begins with {', '.join(parts)}; expected embedding, encoder.0, decoder, head and the like.")

    def draw() -> Float[Tensor, ""]:
        rows = torch.randperm(len(stars), generator=generator)[:batch]
        chosen = None if n_tok is None else torch.rand(len(rows), bins.wave.numel(), generator=generator).argsort(1)[:, :n_tok]
        return _loss(network, _rows(bins, rows).tokens(chosen), targets[0].rows(rows)).mean()

    def unseen() -> float:
        return torch.cat([_loss(network, held.rows(part), targets[1].rows(part)) for part in torch.arange(len(validation)).split(64)]).mean().item()

    history, kept = descend(network, trained, draw, unseen, torch.optim.AdamW(trained, lr, betas=(0.9, 0.98), weight_decay=0.01), steps, checks)
    stage = {"labels": names, "stars": len(stars), "validation": len(validation), "steps": kept, "history": history, "seed": seed}
    tuned.card = replace(model.card, training={**model.card.training, "finetuned": [*model.card.training.get("finetuned", []), stage]})
    for name, (value, sigma) in tuned.request(validation, names).items():
        network.stretch[network.span(held)[0], IDENTITY[name]] *= stretch(value - validation.label(name), sigma)
    return tuned


def _loss(network: RequestTransformer, context: Tokens, asked: Tokens) -> Float[Tensor, "n n_label"]:
    """Minus the log density of the labels, in standardised units."""
    mean, log_variance = network(context, asked)
    true = network.standardize(asked)
    return gaussian_loss(true.value, mean, log_variance, true.error)


def _request(stars: SpectraSet, errors: Mapping[str, float | int]) -> Tokens:
    """The labels as what is asked for, with their errors."""
    if unknown := [name for name in errors if name not in IDENTITY or name == "flux"]:
        raise LabelError(f"No label {unknown[0]!r}; this model knows: {', '.join(name for name in IDENTITY if name != 'flux')}.")
    value = torch.as_tensor(np.stack([stars.label(name) for name in errors], 1), dtype=torch.float32)
    identity, none = torch.tensor([IDENTITY[name] for name in errors]).expand(value.shape), torch.zeros(value.shape)
    return Tokens(identity, value, torch.tensor([float(error) for error in errors.values()]).expand(value.shape), none, none)


def _pixels(model: SpectraFM, stars: SpectraSet) -> Bins:
    """Single pixels as tokens."""
    stars = model.prepare(stars)
    usable = torch.as_tensor(~stars.mask & (np.where(stars.mask, 0, stars.ivar) > 0))
    flux, ivar, _ = stars.to_torch()
    return bin_pixels(stars.wave, stars.resolution, flux, torch.where(usable, ivar, 1.0).rsqrt(), ~usable, 1)


def _rows(bins: Bins, rows: Tensor) -> Bins:
    return replace(bins, flux=bins.flux[rows], error=bins.error[rows], mask=bins.mask[rows])
