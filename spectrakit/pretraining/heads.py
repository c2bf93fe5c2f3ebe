"""Heads on frozen features: trained on nine tenths of them, measured on the tenth that was held out."""

from __future__ import annotations

from pathlib import Path

import torch
from astropy.stats import biweight_scale
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import MismatchError
from ..models.heads import LabelHead
from ..threads import one_thread
from ..training import TrainConfig, train

STEPS, BATCH = 4000, 256


def head_loss(head: LabelHead, features: Float[Tensor, "n d"], label: Float[Tensor, "n 1"]) -> Float[Tensor, ""]:
    """Smooth absolute error of one label in units of its scatter over the training set, quadratic below 0.3."""
    return nn.functional.smooth_l1_loss(head(features) / head.y_std, label / head.y_std, beta=0.3)


class _HeadLoss(nn.Module):
    def __init__(self, head: LabelHead):
        super().__init__()
        self.head = head

    def forward(self, features: Float[Tensor, "n d"], label: Float[Tensor, "n 1"]) -> Float[Tensor, ""]:
        return head_loss(self.head, features, label)


def fit_heads(heads: nn.ModuleDict, features: Float[Tensor, "n d"], labels: Float[Tensor, "n_rows k"], folder: Path, seed: int) -> dict[str, float]:
    """Train each head in place on all rows but the first tenth; ``{label: robust scatter there}`` in the unit of the label.

    Parameters
    ----------
    heads : one a label, in the order of the columns of ``labels`` (their own units: K, dex); left in evaluation mode.
    features : what the heads read; whatever made them is not trained.
    folder : for checkpoints and logs ``head_LABEL``; heads on other features need another folder.
    seed : of the rows each step draws.

    Raises
    ------
    MismatchError
        Numbers of heads and labels or of rows differ, or there are fewer than 100 rows.
    """
    if labels.shape[1] != len(heads) or len(labels) != len(features):
        raise MismatchError(f"{len(heads)} heads and {len(features)} features, but {len(labels)} rows of {labels.shape[1]} labels; "
                            "give one row a feature and one column a head.")
    if len(features) < 100:
        raise MismatchError(f"{len(features)} rows; a tenth of them is held out to measure the scatter, so at least 100 are needed.")
    held, sigma = len(features) // 10, {}
    for column, (name, head) in enumerate(heads.items()):
        x, y = features[held:], labels[held:, column:column + 1]
        head.set_scaling(x, y)
        with one_thread():
            train(_HeadLoss(head), _batches(x, y, seed), TrainConfig(STEPS, 1e-3, seed, weight_decay=1e-3), folder, f"head_{name}")
        head.eval()
        with torch.no_grad():
            residual = head(features[:held].to(head.y_std.device)).cpu() - labels[:held, column:column + 1]
        sigma[name] = float(biweight_scale(residual.numpy()))
    return sigma


def _batches(x: Tensor, y: Tensor, seed: int):
    def batches(step):
        rows = torch.randint(len(x), (BATCH,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        return x[rows], y[rows]
    return batches
