"""Known tokens in, any wanted ones out, each with its error: the encoder and decoder that SpectraFM and the Transformer for stars share.

The encoder lets the known tokens look at each other; order carries no meaning. A request then looks at them once a block, at other requests never,
so that asking for 110 numbers in one pass gives the answers of 110 passes. A small network reads mean and ln variance off what each request found.

FAQ
---
*Why an extra key?* Attention has to look somewhere. Each has one learned key and value beside the tokens, which are there even when no token is.
*What is hidden where?* Padding, in encoder and decoder alike, in training as in use. A bad pixel is padding.
*Where does this differ from the published code?* There, one request is decoded at a time; attention weights have dropout too (torch's fused kernel
on CPUs has none); the variance has no floor (SpectraFM adds 1e-8).

Sources: Leung & Bovy 2024 (MNRAS 527, 1494), section 3; Koblischke & Bovy 2024, SpectraFM (arXiv:2411.04750).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .tokens import PADDING, TokenEmbedding, Tokens

FLOOR = 1e-6                                          # of the variance of a standardised value: 0.1 % of its scatter
TOGETHER = 4096                                       # tokens in one pass on a CPU: more leave the caches, and the system clears their memory anew each time


@dataclass(frozen=True)
class RequestConfig:
    """Sizes; saved as JSON beside the weights. A block is (heads, hidden numbers of its perceptron)."""

    d_model: int
    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    head: tuple[int, ...]                             # hidden layers between the decoder and the two answers
    n_context: int                                    # most tokens that were in a context in training
    dropout: float
    turned: bool = False                              # see ``tokens``

    @classmethod
    def from_card(cls, card: dict) -> RequestConfig:
        """Read back from JSON, where tuples are lists."""
        blocks = {side: tuple(tuple(block) for block in card[side]) for side in ("encoder", "decoder")}
        return cls(**{**card, **blocks, "head": tuple(card["head"])})


class Attention(nn.Module):
    """Multi-head attention of ``x`` to ``memory`` with one learned key and value more; the sizes of ``nn.MultiheadAttention(add_bias_kv=True)``."""

    def __init__(self, d_model: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.q, self.k, self.v, self.out = (nn.Linear(d_model, d_model) for _ in range(4))
        self.extra = nn.Parameter(torch.empty(2, 1, 1, d_model))

    def forward(self, x: Float[Tensor, "n n_query d_model"], memory: Float[Tensor, "n n_key d_model"], padding: Bool[Tensor, "n n_key"],
                return_weights: bool = False):
        """(n, n_query, d_model), and on demand the weights (n, n_head, n_query, n_key + 1), the learned key's last."""
        n = len(x)
        k, v = (torch.cat([layer(memory), extra.to(memory).expand(n, -1, -1)], 1) for layer, extra in zip((self.k, self.v), self.extra, strict=True))
        q, k, v = (t.float().view(n, t.shape[1], self.n_head, x.shape[2] // self.n_head).transpose(1, 2) for t in (self.q(x), k, v))  # fused is fastest in 32 bits
        allowed = F.pad(~padding, (0, 1), value=True)[:, None, None]
        with torch.autocast(x.device.type, enabled=False):
            weights = None
            if return_weights:
                weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(~allowed, -math.inf).softmax(-1)
                y = weights @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed if padding.any() else None)
        return self.out(y.transpose(1, 2).reshape(x.shape)), weights


class Block(nn.Module):
    """norm(x + attention), then norm(x + perceptron): the norms come after the sums, as published."""

    def __init__(self, d_model: int, n_head: int, d_mlp: int, dropout: float):
        super().__init__()
        self.attention = Attention(d_model, n_head)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.up, self.down, self.dropout = nn.Linear(d_model, d_mlp), nn.Linear(d_mlp, d_model), nn.Dropout(dropout)

    def forward(self, x, memory, padding, return_weights: bool = False):
        """Shapes as in ``Attention``."""
        y, weights = self.attention(x, memory, padding, return_weights)
        x = self.norm1(x + self.dropout(y))
        return self.norm2(x + self.dropout(self.down(self.dropout(F.gelu(self.up(x)))))), weights


class RequestTransformer(nn.Module):
    """Context tokens and request tokens -> mean and ln variance of every request, in units of ``centre`` and ``spread``.

    Parameters
    ----------
    n_identity : size of the vocabulary, padding not counted.
    waves : whether tokens have wavelengths and resolving powers.
    seed : of the initial weights (Xavier uniform, biases 0; tables of identities: see ``tokens``).
    spans : disjoint ranges of wavelength, for each of which sigmas are calibrated apart.
    """

    def __init__(self, config: RequestConfig, n_identity: int, waves: bool, seed: int, spans: Sequence[tuple[float, float]] = ()):
        super().__init__()
        self.config, self.spans, d = config, spans, config.d_model
        widths = (d, *config.head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = TokenEmbedding(n_identity, d, waves, config.turned)
            self.encoder = nn.ModuleList(Block(d, *sizes, config.dropout) for sizes in config.encoder)
            self.decoder = nn.ModuleList(Block(d, *sizes, config.dropout) for sizes in config.decoder)
            self.head = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
            self.mean, self.log_variance = nn.Linear(widths[-1], 1), nn.Linear(widths[-1], 1)
            self.dropout = nn.Dropout(config.dropout)
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
                elif isinstance(layer, Attention):
                    nn.init.xavier_normal_(layer.extra.view(2, d))
        self.register_buffer("centre", torch.zeros(n_identity + 1))
        self.register_buffer("spread", torch.ones(n_identity + 1))
        self.register_buffer("stretch", torch.ones(1 + len(spans), n_identity + 1))

    def standardize(self, tokens: Tokens) -> Tokens:
        """Values and errors in units of their identity's ``centre`` and ``spread``."""
        centre, spread = self.centre[tokens.identity], self.spread[tokens.identity]
        return tokens._replace(value=(tokens.value - centre) / spread, error=tokens.error / spread)

    def encode(self, context: Tokens) -> tuple[Float[Tensor, "n n_context d_model"], Bool[Tensor, "n n_context"]]:
        """The memory that requests look at, and its padding."""
        padding = context.identity == PADDING
        x = self.embedding(self.standardize(context))
        for block in self.encoder:
            x, _ = block(x, x, padding)
        return x, padding

    def forward(self, context: Tokens, requests: Tokens) -> tuple[Float[Tensor, "n n_request"], Float[Tensor, "n n_request"]]:
        """Mean and ln variance of the standardised values asked for."""
        n, n_tok = context.identity.shape
        many = max(1, TOGETHER // max(1, n_tok, requests.identity.shape[1]) if context.value.device.type == "cpu" else n)
        parts = [slice(i, i + many) for i in range(0, max(1, n), many)]                # of no star one pass, too: its answers have a shape
        answers = [self._pass(context.rows(part), requests.rows(part)) for part in parts]
        return tuple(torch.cat(group) for group in zip(*answers, strict=True))

    def _pass(self, context: Tokens, requests: Tokens) -> tuple[Float[Tensor, "n n_request"], Float[Tensor, "n n_request"]]:
        memory, padding = self.encode(context)
        x = self.embedding.request(requests)
        for block in self.decoder:
            x, _ = block(x, memory, padding)
        for layer in self.head:
            x = self.dropout(F.gelu(layer(x)))
        with torch.autocast(x.device.type, enabled=False):            # 8 bits of mantissa would show in the answers
            log_variance = self.log_variance(x.float())[..., 0]
            return self.mean(x.float())[..., 0], torch.logaddexp(log_variance, torch.full_like(log_variance, math.log(FLOOR)))

    def answer(self, context: Tokens, requests: Tokens) -> tuple[Float[Tensor, "n n_request"], Float[Tensor, "n n_request"]]:
        """Value and standard deviation in the units of what was asked for, the second times ``stretch``, by which wrong ones are calibrated after
        training; differentiable in the values of the context."""
        mean, log_variance = self(context, requests)
        spread, stretch = self.spread[requests.identity], self.stretch[self.span(context)[:, None], requests.identity]
        return mean * spread + self.centre[requests.identity], (0.5 * log_variance).exp() * spread * stretch

    def span(self, context: Tokens) -> Int[Tensor, " n"]:
        """Which row of ``stretch`` is each star's: 1 for fluxes in the first of the ``spans``, and so on; 0 without any."""
        row = torch.zeros(len(context.identity), dtype=torch.long, device=context.identity.device)
        for k, (low, high) in enumerate(self.spans, 1):
            row[((context.wave >= low - 2) & (context.wave <= high + 2)).any(1)] = k
        return row

    def attention(self, context: Tokens, requests: Tokens) -> Float[Tensor, "n n_layer n_head n_request n_context"]:
        """Where each request looks, in each block of the decoder: shares of the tokens, that sum to 1; padding has none.

        The learned key's share is cut off and the rest scaled up, as published. Blocks with fewer heads repeat theirs: means over heads are right.
        A context without tokens gives 0.
        """
        memory, padding = self.encode(context)
        x, maps = self.embedding.request(requests), []
        for block in self.decoder:
            x, weights = block(x, memory, padding, return_weights=True)
            share = weights[..., :-1]
            maps.append(share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny))
        most = max(n_head for n_head, _ in self.config.decoder)
        return torch.stack([weights.repeat_interleave(most // weights.shape[1], 1) for weights in maps], 1)


def gaussian_loss(value: Float[Tensor, "*n"], mean: Float[Tensor, "*n"], log_variance: Float[Tensor, "*n"], error: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """-ln of the normal density of ``value``, whose variance is the predicted one plus that of the value's own error; both published models' loss, with
    the constant they leave out."""
    variance = log_variance.exp() + error.square()
    return 0.5 * ((value - mean).square() / variance + variance.log() + math.log(2 * math.pi))
