"""Where a transformer reads: the attention weights that its forward pass uses, brought from tokens to pixels.

FAQ
---
*Whose attention?* A weight has a reader (query) and something read (key). The embedding of a ``SpectrumTransformer`` is the mean over its tokens, so the
readers are all tokens alike (``reader="mean"``); its statistics token is a reader of its own (``"statistics"``).
*Why does it not depend on the label?* All heads read one embedding. A model with a request token a label has one row of weights a label; ``to_pixels``
takes these as well.
*Is a high weight a reason?* It says where was read, not what was made of it (Jain & Wallace 2019, arXiv:1902.10186): ``significance`` tests it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .errors import MismatchError
from .models.spectrum_transformer import SpectrumTransformer

READERS = ("mean", "statistics")


@torch.no_grad()
def attention_maps(encoder: SpectrumTransformer, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None,
                   batch: int = 32) -> Float[Tensor, "n n_layer n_head n_tok n_tok"]:
    """The weights of every layer and head, row = reader; each row sums to 1. 5.5 MB a star for ``small``, float32.

    Parameters
    ----------
    flux, mask : as ``FoundationModel.prepare`` gives them.
    """
    hidden = None if mask is None else encoder.masked_tokens(mask)
    parts = []
    for start in range(0, len(flux), batch):
        rows = slice(start, start + batch)
        gone = None if hidden is None else hidden[rows]
        _, maps = encoder.encode(encoder.tokenize(flux[rows], gone), gone, return_attention=True)
        parts.append(torch.stack(maps, 1))
    return torch.cat(parts)


def rollout(maps: Float[Tensor, "n n_layer n_head n_tok n_tok"]) -> Float[Tensor, "n n_tok n_tok"]:
    """Attention roll-out (Abnar & Zuidema 2020, arXiv:2005.00928): half of a token stays, half is what its heads read on average, layer after layer.

    Row = token of the last layer, column = token of the input; each row sums to 1.
    """
    same = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    path = same.expand(len(maps), -1, -1)
    for layer in maps.mean(2).unbind(1):
        path = 0.5 * (layer + same) @ path
    return path


def token_scores(attention: Float[Tensor, "n n_tok n_tok"], reader: str = "mean") -> Float[Tensor, "n n_windows"]:
    """What the reader reads of each window: one layer's weights averaged over heads, or a roll-out -> one number a window.

    Parameters
    ----------
    reader : ``"mean"``, all tokens alike, as the embedding; or ``"statistics"``, the first token alone. What is read of the statistics token is left out.

    Raises
    ------
    MismatchError
        Unknown reader.
    """
    if reader not in READERS:
        raise MismatchError(f"No reader {reader!r}; there are: {', '.join(READERS)}.")
    return (attention.mean(1) if reader == "mean" else attention[:, 0])[:, 1:]


def to_pixels(scores: Float[Tensor, "*n n_scores"], windows: Int[Tensor, "n_windows window"], n_pix: int) -> Float[Tensor, "*n n_pix"]:
    """Each token's score spread over its pixels; a pixel in several windows has their mean, so that equal scores stay equal.

    Parameters
    ----------
    windows : pixel numbers of each token's window, ``encoder.pixels``. A pixel in none has the score 0: nothing was read there.

    Raises
    ------
    MismatchError
        Another number of scores than of windows, or windows beyond the spectrum.
    """
    if scores.shape[-1] != len(windows) or int(windows.max()) >= n_pix:
        raise MismatchError(f"{scores.shape[-1]} scores for {len(windows)} windows up to pixel {int(windows.max())} of {n_pix}; expected one a window, inside the "
                            "spectrum. Leave the score of the statistics token out (token_scores).")
    share = torch.zeros(len(windows), n_pix, dtype=scores.dtype, device=scores.device)
    share.scatter_(1, windows, 1.0)
    return scores @ (share / share.sum(0).clamp(min=1))
