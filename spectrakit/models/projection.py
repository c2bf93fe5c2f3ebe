"""The heads that project two kinds of spectra into one space: learned query and cross-attention for LRS tokens, a perceptron for XP latents.

Both end with x + down(gelu(up(x))). LoRA3 adapts ``attention.out``, ``mlp.up`` and ``mlp.down`` of the LRS head: 147,456 parameters at rank 16. In
torch's ``nn.MultiheadAttention``, which the released code uses, the output Linear is never called, so an adapter around it (24,576 of these
parameters) would never train.

Source: Zhao et al. 2026, SpecCLIP (arXiv:2507.01939).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v for one query a spectrum: q from the query, k and v from its tokens."""

    def __init__(self, d_token: int, d_embed: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.q = nn.Linear(d_embed, d_embed)
        self.kv = nn.Linear(d_token, 2 * d_embed)
        self.out = nn.Linear(d_embed, d_embed)

    def forward(self, query: Float[Tensor, " d_embed"], tokens: Float[Tensor, "n n_tok d_token"], hidden: Bool[Tensor, "n n_tok"] | None = None,
                return_weights: bool = False):
        """(n, d_embed); hidden tokens are not attended to. With ``return_weights`` also what was given to each token, (n, n_head, n_tok)."""
        n, n_tok, _ = tokens.shape
        q = self.q(query).view(1, self.n_head, 1, -1).expand(n, -1, -1, -1)                       # (n, n_head, 1, d_head)
        k, v = (t.view(n, n_tok, self.n_head, q.shape[-1]).transpose(1, 2) for t in self.kv(tokens).chunk(2, dim=-1))
        seen = None if hidden is None else ~hidden[:, None, None]                                 # (n, 1, 1, n_tok)
        if not return_weights:
            return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).flatten(1))
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        weights = (logits if seen is None else logits.masked_fill(~seen, -float("inf"))).softmax(-1)
        return self.out((weights @ v).flatten(1)), weights[:, :, 0]


class Widened(nn.Module):
    """x + dropout(down(gelu(up(x)))), four times as wide inside."""

    def __init__(self, d: int, dropout: float):
        super().__init__()
        self.up, self.down, self.dropout = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x + self.dropout(self.down(F.gelu(self.up(x))))


class CrossAttentionHead(nn.Module):
    """Tokens (n, n_tok, d_token) -> embedding (n, d_embed): one learned query attends to them. 7,087,104 parameters at 768, 768, 4 heads."""

    def __init__(self, d_token: int, d_embed: int, n_head: int, dropout: float):
        super().__init__()
        self.query = nn.Parameter(torch.randn(d_embed))
        self.attention = CrossAttention(d_token, d_embed, n_head)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(d_embed)
        self.mlp = Widened(d_embed, dropout)

    def forward(self, tokens: Float[Tensor, "n n_tok d_token"], hidden: Bool[Tensor, "n n_tok"] | None = None) -> Float[Tensor, "n d_embed"]:
        return self.mlp(self.norm(self.dropout(self.attention(self.query, tokens, hidden))))

    def attention_map(self, tokens: Float[Tensor, "n n_tok d_token"], hidden: Bool[Tensor, "n n_tok"] | None = None) -> Float[Tensor, "n n_head n_tok"]:
        """The weights with which the query reads the tokens; they add up to 1 in each head."""
        return self.attention(self.query, tokens, hidden, return_weights=True)[1]


class PerceptronHead(nn.Module):
    """Latent (n, d_latent) -> embedding (n, d_embed): the latent is one vector, there is nothing to attend to. 7,100,568 parameters at 768, 768, 1160."""

    def __init__(self, d_latent: int, d_embed: int, d_wide: int, dropout: float):
        super().__init__()
        self.project = nn.Linear(d_latent, d_embed)
        self.widen, self.norm_wide = nn.Linear(d_embed, d_wide), nn.LayerNorm(d_wide)
        self.narrow, self.norm = nn.Linear(d_wide, d_embed), nn.LayerNorm(d_embed)
        self.dropout = nn.Dropout(dropout)
        self.mlp = Widened(d_embed, dropout)

    def forward(self, latent: Float[Tensor, "n d_latent"]) -> Float[Tensor, "n d_embed"]:
        wide = F.gelu(self.norm_wide(self.widen(self.project(latent))))
        return self.mlp(self.dropout(self.norm(self.narrow(wide))))
