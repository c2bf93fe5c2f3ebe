"""How many parameters each network has. ``python -m spectrakit.models.counts`` prints the table; at ``paper`` size they are the published numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from . import alignment, spectra_fm, spectrum_transformer, star_transformer, xp_autoencoder
from .alignment import Alignment
from .foundation import HEADS
from .heads import LabelHead
from .projection import CrossAttentionHead, PerceptronHead
from .request_transformer import RequestTransformer
from .spectrum_transformer import SpectrumTransformer
from .xp_autoencoder import XPAutoencoder

SIZES = ("paper", "small", "tiny")


def _lrs(size: str) -> SpectrumTransformer:
    return SpectrumTransformer(spectrum_transformer.PRESETS[size], 0)


def _xp(size: str) -> XPAutoencoder:
    return XPAutoencoder(xp_autoencoder.PRESETS[size], 0)


def _aligned(size: str, variant: str) -> Alignment:
    return Alignment(_lrs(size), _xp(size), replace(alignment.PRESETS[size], variant=variant), 0)


def _head(size: str, kind: str) -> nn.Module:
    c = alignment.PRESETS[size]
    if kind == "lrs":
        return CrossAttentionHead(spectrum_transformer.PRESETS[size].d_model, c.d_embed, c.n_head, c.dropout)
    return PerceptronHead(xp_autoencoder.PRESETS[size].d_latent, c.d_embed, c.d_wide, c.dropout)


NETWORKS: dict[str, Callable[[str], nn.Module]] = {
    "LRS transformer": _lrs,
    "XP transformer": lambda size: SpectrumTransformer(spectrum_transformer.XP_PRESETS[size], 0),
    "XP autoencoder": _xp,
    "LRS head (cross-attention)": lambda size: _head(size, "lrs"),
    "XP head (perceptron)": lambda size: _head(size, "xp"),
    "aligned pair, base": lambda size: _aligned(size, "base"),
    "aligned pair, pr": lambda size: _aligned(size, "pr"),
    "aligned pair, split": lambda size: _aligned(size, "split"),
    "label head on embeddings": lambda size: LabelHead(spectrum_transformer.PRESETS[size].d_model, HEADS[size]),
    "label head on fluxes": lambda size: LabelHead(1462, HEADS[size]),
    "SpectraFM": lambda size: RequestTransformer(spectra_fm.PRESETS[size], len(spectra_fm.IDENTITY), waves=True, seed=0),
    "transformer for stars": lambda size: RequestTransformer(star_transformer.PRESETS[size], len(star_transformer.VOCABULARY), waves=False, seed=0),
}


def count(network: nn.Module) -> int:
    """Parameters, frozen ones included; buffers are none."""
    return sum(p.numel() for p in network.parameters())


def parameter_counts() -> dict[str, dict[str, int]]:
    """``{network: {size: parameters}}``, counted on networks without memory."""
    with torch.device("meta"):
        return {name: {size: count(make(size)) for size in SIZES} for name, make in NETWORKS.items()}


def table() -> str:
    """``parameter_counts`` as text."""
    lines = [f"{'':28}" + "".join(f"{size:>14}" for size in SIZES)]
    return "\n".join(lines + [f"{name:28}" + "".join(f"{row[size]:>14,}" for size in SIZES) for name, row in parameter_counts().items()])


if __name__ == "__main__":
    print(table())
