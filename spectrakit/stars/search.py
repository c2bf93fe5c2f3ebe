"""Stars like this one, asked by a spectrum or by labels: two small heads on the frozen encoder, so that both kinds of context of a star come to one place.

Only the heads learn, a contrastive loss (InfoNCE) on couples of contexts of one star. The published heads read a memory of 64 places laid end to end, so that
the order of the observables matters; these read its mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ..models.alignment import info_nce
from ..models.projection import PerceptronHead
from ..models.star_transformer import StarTransformer
from ..pretraining.stars import StarTable
from ..threads import one_thread
from ..training import TrainConfig, learning_rate

SIZE, SCALE, BATCH = 64, 15.5, 256                    # numbers of an embedding; logit scale, as in ``alignment``; stars a step


@torch.no_grad()
def memory(model: StarTransformer, known: dict[str, Float[np.ndarray, " n"]], batch: int = 512) -> Float[torch.Tensor, "n d_model"]:
    """Mean of the encoder's memory over what is known of each star; 0 where nothing is."""
    model.eval()
    context, parts = model.context(known), []
    for start in range(0, len(context.identity), batch):
        found, padding = model.network.encode(context.rows(slice(start, start + batch)))
        there = (~padding)[..., None].float()
        parts.append((found * there).sum(1) / there.sum(1).clamp(min=1))
    return torch.cat(parts).cpu()


class StarSearch:
    """``fit`` on the stars of a table; then ``retrieval.search(search.embed(known, 0), search.embed(others, 1), k)`` either way round.

    Parameters
    ----------
    sides : names of the known observables of the two kinds of question, say BP/RP 0-31, and labels.
    """

    def __init__(self, model: StarTransformer, sides: tuple[Sequence[str], Sequence[str]], seed: int = 0):
        self.model, self.sides = model, tuple(tuple(names) for names in sides)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = [PerceptronHead(model.card.sizes.d_model, SIZE, 4 * SIZE, 0.0) for _ in sides]
        self.seed = seed

    def fit(self, table: StarTable, steps: int = 1500) -> StarSearch:
        """Stars of which nothing is known on one of the sides teach nothing and are left out."""
        known = [table.known(names) for names in self.sides]
        has = np.all([np.isfinite(np.stack(list(side.values()), 1)).any(1) for side in known], 0)
        first, second = (memory(self.model, {name: value[has] for name, value in side.items()}) for side in known)
        config, rng = TrainConfig(steps, 1e-3, self.seed), np.random.default_rng(self.seed)
        optimizer = torch.optim.AdamW([p for head in self.heads for p in head.parameters()], lr=config.lr, weight_decay=config.weight_decay)
        with one_thread():
            for step in range(steps):
                rows = torch.as_tensor(rng.choice(len(first), min(BATCH, len(first)), replace=False))
                optimizer.param_groups[0]["lr"] = learning_rate(config, step)
                optimizer.zero_grad()
                info_nce(self.heads[0](first[rows]), self.heads[1](second[rows]), SCALE).backward()
                optimizer.step()
        for head in self.heads:
            nn.Module.eval(head)
        return self

    @torch.no_grad()
    def embed(self, known: dict[str, Float[np.ndarray, " n"]], side: int) -> Float[np.ndarray, "n 64"]:
        """Embeddings of stars by what is known on side 0 or 1."""
        return self.heads[side](memory(self.model, known)).double().numpy()
