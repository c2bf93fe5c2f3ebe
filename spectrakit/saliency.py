"""Which pixels move a network's answer: gradients, integrated gradients, occlusion. For any function of the flux.

A ``function`` takes flux (n, n_pix) to k answers (n, k), each star for itself (BatchNorm in evaluation mode). ``label_function`` makes one of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention import attention_maps, rollout, to_pixels, token_scores
from .models.spectra_fm import SpectraFM
from .models.spectrum_transformer import SpectrumTransformer
from .models.tokens import PADDING, Tokens
from .spectra import SpectraSet

Function = Callable[[Tensor], Tensor]


def label_function(encoder: nn.Module, heads: Iterable[nn.Module]) -> Function:
    """Flux (n, n_pix) -> what each head (embedding -> one label) answers, (n, k). Encoder and heads are put into evaluation mode.

    >>> function = label_function(model.encoder, [model.heads["teff"], model.heads["feh"]])
    """
    encoder, heads = encoder.eval(), [head.eval() for head in heads]

    def function(flux):
        embedding = encoder(flux)
        return torch.cat([head(embedding) for head in heads], 1)
    return function


def pixel_scores(encoder: SpectrumTransformer, heads: Iterable[nn.Module], flux: Float[Tensor, "n n_pix"], sigma: Float[Tensor, "n n_pix"],
                 steps: int = 8) -> dict[str, Float[Tensor, "n k n_pix"]]:
    """Five answers to "which pixels does this network use", each at least 0, one row a head.

    ``attention`` of the last layer and ``roll-out``, both as all tokens read, which is what the embedding is made of, and so the same for every head;
    ``gradient`` times ``sigma``, the noise of the pixels; ``integrated gradients`` from the mean of these stars, with ``steps`` points; ``occlusion`` of one
    window, spread over its pixels. The encoder runs once a window and ``steps`` + 1 times a star, and back that often for each head.
    """
    heads, n_pix = list(heads), flux.shape[1]
    function, maps = label_function(encoder, heads), attention_maps(encoder, flux)
    read = {"attention": maps[:, -1].mean(1), "roll-out": rollout(maps)}
    scores = {name: to_pixels(token_scores(attention), encoder.pixels, n_pix)[:, None].expand(-1, len(heads), -1) for name, attention in read.items()}
    return scores | {"gradient": gradients(function, flux).abs() * sigma[:, None],
                     "integrated gradients": integrated_gradients(function, flux, flux.mean(0), steps).abs(),
                     "occlusion": to_pixels(occlusion(function, flux, encoder.pixels).abs(), encoder.pixels, n_pix)}


@torch.no_grad()
def request_scores(model: SpectraFM, stars: SpectraSet, labels: Sequence[str], steps: int = 8) -> dict[str, Float[Tensor, "n k n_pix"]]:
    """The same of a model that answers requests, one row a label, on the pixels of ``model.prepare(stars)``; what a token scores, each of its pixels scores.

    ``attention`` of the label's request in the last block of the decoder, and the mean over its ``all blocks``: unlike the embedding's, they may differ from
    label to label; ``gradient`` times the error of the token; ``integrated gradients`` from the mean of these stars; ``occlusion``: the answer less that without
    the token.

    Raises
    ------
    MismatchError, SpectrumError
        As ``SpectraFM.bins``.
    LabelError
        The model does not know a label.
    """
    stars = model.eval().prepare(stars)
    bins, maps = model.bins(stars), model.attention(stars, labels).mean(2)
    baseline = bins.flux.sum(0) / (~bins.mask).sum(0).clamp(min=1)
    found = {"attention": maps[:, -1], "all blocks": maps.mean(1), "gradient": [], "integrated gradients": [], "occlusion": []}
    for i, flux in enumerate(bins.flux.split(1)):
        star = bins.tokens().rows(slice(i, i + 1))
        function = _request_function(model, star, labels)
        found["gradient"].append(gradients(function, flux).abs() * bins.error[i])
        found["integrated gradients"].append(integrated_gradients(function, flux, baseline, steps).abs())
        found["occlusion"].append(_without_each(model, star, labels))
    whole = {name: part if isinstance(part, Tensor) else torch.cat(part) for name, part in found.items()}
    return {name: part.repeat_interleave(bins.width, -1)[..., :stars.wave.size] for name, part in whole.items()}


def _request_function(model: SpectraFM, star: Tokens, labels: Sequence[str]) -> Function:
    """Flux of one star's tokens (m, n_bin) -> answers (m, k); the rest of the tokens is the star's."""
    def function(flux):
        context = Tokens(*(part.expand(len(flux), -1) for part in star))._replace(value=flux)
        return model(context, model.requests(labels, len(flux)))[0]
    return function


def _without_each(model: SpectraFM, star: Tokens, labels: Sequence[str], batch: int = 64) -> Float[Tensor, "1 k n_bin"]:
    n_bin = star.identity.shape[1]
    whole, parts = model(star, model.requests(labels, 1))[0], []
    for gone in torch.eye(n_bin, dtype=torch.bool).split(batch):
        context = Tokens(*(part.expand(len(gone), -1) for part in star))
        context = context._replace(identity=context.identity.masked_fill(gone, PADDING))
        parts.append(model(context, model.requests(labels, len(gone)))[0])
    return (whole - torch.cat(parts)).abs().T[None]


def gradients(function: Function, flux: Float[Tensor, "n n_pix"], batch: int = 32) -> Float[Tensor, "n k n_pix"]:
    """d answer / d flux of each pixel, signed. The noise a pixel sends into the answer is the gradient times its sigma.

    For the best linear unbiased estimate that noise is proportional to ``sensitivity.marginal``, pixel by pixel (Gauss-Markov): times sigma, and only
    then, a gradient can be compared with it.
    """
    parts = []
    for part in flux.detach().split(batch):
        with torch.enable_grad():
            part = part.clone().requires_grad_(True)
            answers = function(part)
            parts.append(torch.stack([torch.autograd.grad(answer.sum(), part, retain_graph=True)[0] for answer in answers.unbind(1)], 1))
    return torch.cat(parts)


def integrated_gradients(function: Function, flux: Float[Tensor, "n n_pix"], baseline: Float[Tensor, " n_pix"], steps: int = 16,
                         batch: int = 32) -> Float[Tensor, "n k n_pix"]:
    """Each pixel's share in ``function(flux) - function(baseline)``, one baseline for all stars (Sundararajan et al. 2017, arXiv:1703.01365).

    (flux - baseline) times the mean gradient at ``steps`` midpoints of the straight way between them. The shares sum to the difference (completeness), up to
    an error of the order of 1 / ``steps``: where a ReLU switches, the gradient jumps, and no finer rule helps.
    """
    at = (torch.arange(steps).to(flux) + 0.5) / steps
    way = torch.lerp(baseline, flux[:, None], at[:, None]).flatten(0, 1)
    return (flux - baseline)[:, None] * gradients(function, way, batch).unflatten(0, (len(flux), steps)).mean(1)


@torch.no_grad()
def occlusion(function: Function, flux: Float[Tensor, "n n_pix"], windows: Int[Tensor, "m window"], batch: int = 64) -> Float[Tensor, "n k m"]:
    """``function(flux)`` less the answer when one window of neighbouring pixels is bridged by a straight line between the pixels beside it.

    At an end of the spectrum, where there is a pixel on one side only, it is continued.
    """
    first, last = windows[:, 0] - 1, windows[:, -1] + 1
    t = (windows - first[:, None]).to(flux) / (last - first)[:, None]
    left, right = torch.where(first < 0, last, first), torch.where(last >= flux.shape[1], first, last)
    bridges = torch.lerp(flux[:, left, None], flux[:, right, None], t)                    # (n, m, window)
    changed = []
    for row, bridge in zip(flux, bridges, strict=True):
        copies = row.expand(len(windows), -1).scatter(1, windows, bridge)
        changed.append(torch.cat([function(part) for part in copies.split(batch)]).T)
    return torch.cat([function(part) for part in flux.split(batch)])[:, :, None] - torch.stack(changed)
