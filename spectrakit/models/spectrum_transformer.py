"""The masked transformer of SpecCLIP for one spectrum: tokens, attention, blocks, masking, loss. The whole model is on this page.

A spectrum of 1462 pixels is standardised, cut into overlapping windows of 20 pixels, and preceded by one token that carries log10 of the
standard deviation. Chunks of neighbouring tokens are set to zero and the network has to restore them from the rest.

FAQ
---
*Why are q, kv and out separate Linears?* They are in SpecCLIP (Zhao et al. 2026, arXiv:2507.01939), and LoRA finds them by name. torch's own
``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` take fused paths in evaluation mode that never call the submodules: an adapter on them
trains and then has no effect.
*Where does the wavelength enter?* Through the position of a token alone: the grid belongs to the weights.
*Why does the mean of a spectrum not enter?* Continuum-normalised spectra have a mean near one; SpecCLIP keeps the standard deviation only.
Gaia XP spectra keep their continuum: their statistics token holds mean and standard deviation, and every pixel is a token (``XP_PRESETS``).
*What does the overlap of the windows give away?* Half of a hidden window at the end of a chunk stands in its visible neighbour: of the 200
numbers of a chunk of ten windows, 20 can be copied. The mean and standard deviation of the whole spectrum say something of what is hidden, too.
``leak=False`` takes the 20 out of the loss and the two from the visible pixels alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..errors import MismatchError, SpectrumError


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of one spectrum transformer; saved as JSON beside its weights."""

    n_pix: int = 1462
    window: int = 20
    stride: int = 10
    drop_last: bool = False          # True: as published, the last window is always dropped and with it pixels 1460 and 1461
    n_positions: int = 150
    d_model: int = 128
    n_layer: int = 6
    n_head: int = 4
    d_mlp: int = 512
    n_chunks: int = 6                # of masked tokens, one in each equal part of the sequence
    chunk: int = 10                  # neighbouring tokens a chunk
    keep_mean: bool = False          # statistics token: (mean, std) as for Gaia XP; otherwise log10 std
    ddof: int = 0                    # of the standard deviation; published: 1
    double_scaled: bool = False      # as in the released code: attention logits q.k / d_head, not q.k / sqrt(d_head)
    published_chunks: bool = False   # chunks start up to two tokens earlier, so that the last tokens of each part are never hidden
    leak: bool = True                # as published: numbers that a visible window shows count in the masked loss, hidden pixels in mean and std

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of every window; the last window ends with the spectrum unless the published behaviour is asked for."""
        full = list(range(0, self.n_pix - self.window + 1, self.stride))
        if not self.drop_last and full[-1] + self.window < self.n_pix:
            full.append(self.n_pix - self.window)
        return tuple(full)

    @property
    def n_statistics(self) -> int:
        """Leading channels of every token that only the statistics token fills."""
        return 2 if self.keep_mean else 1

    @property
    def n_tok(self) -> int:
        """Windows and the statistics token."""
        return len(self.starts) + 1


PRESETS = {
    "paper": TransformerConfig(drop_last=True, d_model=768, n_layer=6, n_head=6, d_mlp=3072, ddof=1),
    "small": TransformerConfig(d_model=128, n_layer=4, n_head=4, d_mlp=512, leak=False),
    "tiny": TransformerConfig(d_model=32, n_layer=2, n_head=2, d_mlp=64, leak=False),
}
_XP = {"n_pix": 343, "window": 1, "stride": 1, "n_positions": 350, "chunk": 20, "keep_mean": True, "ddof": 1}
XP_PRESETS = {name: replace(config, drop_last=False, **_XP) for name, config in PRESETS.items()}


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, several heads; ``return_weights`` gives the very weights that were used.

    ``double_scaled``: q k^T / d_head, which is what the released code computes (it scales q, and torch's function scales again); there the maps
    shown are those of a single scaling, so not the ones used.
    """

    def __init__(self, d_model: int, n_head: int, double_scaled: bool = False):
        super().__init__()
        self.n_head = n_head
        self.scale = (d_model // n_head) ** (-1.0 if double_scaled else -0.5)
        self.q = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "n n_tok d_model"], return_weights: bool = False):
        n, n_tok, d_model = x.shape
        heads = lambda t: t.view(n, n_tok, self.n_head, d_model // self.n_head).transpose(1, 2)      # (n, n_head, n_tok, d_head)        # noqa: E731
        q, (k, v) = heads(self.q(x)), (heads(t) for t in self.kv(x).chunk(2, dim=-1))
        slow = q.dtype == torch.bfloat16 and q.device.type == "cpu"              # torch's fused kernel is, 4 times: benchmarks/throughput.py
        if return_weights or slow:
            with torch.autocast(q.device.type, enabled=False):                   # the softmax stays in bf16 too
                weights = (self.scale * q @ k.transpose(-2, -1)).softmax(-1)     # (n, n_head, n_tok, n_tok)
                y = weights @ v
        else:
            weights, y = None, F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(y.transpose(1, 2).reshape(n, n_tok, d_model)), weights if return_weights else None


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.attention = Attention(config.d_model, config.n_head, config.double_scaled)
        self.up, self.down = nn.Linear(config.d_model, config.d_mlp), nn.Linear(config.d_mlp, config.d_model)

    def forward(self, x: Float[Tensor, "n n_tok d_model"], return_weights: bool = False):
        y, weights = self.attention(self.norm1(x), return_weights)
        x = x + y
        return x + self.down(F.gelu(self.up(self.norm2(x)))), weights


class SpectrumTransformer(nn.Module):
    """Flux (n, n_pix), continuum-normalised (LRS) or divided by its value at 550 nm (XP) -> tokens -> embedding; and back to tokens for pretraining.

    Parameters
    ----------
    config : sizes; ``PRESETS`` (LRS) and ``XP_PRESETS`` have ``paper`` (42,677,013 and 42,802,947 parameters), ``small`` and ``tiny``.
    seed : of the initial weights (truncated normal: 1 / sqrt(d_model) for embeddings, 1 / sqrt(2 fan_in n_layer) inside the blocks).
    """

    def __init__(self, config: TransformerConfig, seed: int):
        super().__init__()
        self.config = config
        width = config.window + config.n_statistics
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Linear(width, config.d_model)
            self.position = nn.Parameter(torch.empty(config.n_positions, config.d_model))
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
            self.norm = nn.LayerNorm(config.d_model)
            self.restore = nn.Linear(config.d_model, width)
            self._initialise()
        pixels = torch.tensor(config.starts)[:, None] + torch.arange(config.window)
        self.register_buffer("pixels", pixels, persistent=False)                 # (n_tok - 1, window)

    def _initialise(self) -> None:
        c = self.config
        for tensor in (self.embedding.weight, self.position):
            nn.init.trunc_normal_(tensor, std=c.d_model**-0.5)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=(2 * layer.in_features * c.n_layer) ** -0.5)
                nn.init.zeros_(layer.bias)

    def tokenize(self, flux: Float[Tensor, "n n_pix"], hidden: Bool[Tensor, "n n_tok"] | None = None) -> Float[Tensor, "n n_tok width"]:
        """Statistics token (log10 std, 0, ...), then one token a window: (0, 20 standardised fluxes). With ``keep_mean`` (mean, std, 0, ...), (0, 0, flux).

        ``hidden`` are the tokens about to be hidden from ``encode``: see ``statistics``.

        Raises
        ------
        SpectrumError
            Wrong number of pixels, NaN, or a constant spectrum, whose standardised flux would be 0 / 0.
        """
        if flux.shape[1] != self.config.n_pix:
            raise SpectrumError(f"{flux.shape[1]} pixels given; this model reads {self.config.n_pix}. Resample with spectrakit.continuum.")
        if not torch.isfinite(flux).all():
            raise SpectrumError("The flux holds NaN or infinite values; mask these pixels and fill them (spectrakit.continuum.fill_masked).")
        std, mean = self.statistics(flux, hidden)
        if not (std > 1e-5).all():
            raise SpectrumError("A spectrum is constant, or wholly hidden; there is no line in it to look at. Leave it out.")
        windows = ((flux - mean) / std)[:, self.pixels]                          # (n, n_tok - 1, window)
        tokens = F.pad(windows, (self.config.n_statistics, 0, 1, 0))             # channels in front, token 0 in front
        tokens[:, 0, :self.config.n_statistics] = torch.cat([mean, std], 1) if self.config.keep_mean else std.log10()
        return tokens

    def statistics(self, flux: Float[Tensor, "n n_pix"], hidden: Bool[Tensor, "n n_tok"] | None = None) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Standard deviation and mean that standardise a spectrum: of all pixels; without ``leak`` of those that a visible window shows."""
        if self.config.leak or hidden is None:
            return torch.std_mean(flux, dim=1, keepdim=True, correction=self.config.ddof)
        shown = self.shown(hidden)
        count = shown.sum(1, keepdim=True)
        mean = flux.where(shown, 0.0).sum(1, keepdim=True) / count
        return ((flux - mean).where(shown, 0.0).square().sum(1, keepdim=True) / (count - self.config.ddof)).sqrt(), mean

    def masked_tokens(self, mask: Bool[Tensor, "n n_pix"]) -> Bool[Tensor, "n n_tok"]:
        """True for windows with more than half of their pixels unusable; they are hidden like the ones masked in pretraining."""
        return F.pad(mask[:, self.pixels].float().mean(-1) > 0.5, (1, 0))

    def encode(self, tokens: Float[Tensor, "n n_tok width"], hidden: Bool[Tensor, "n n_tok"] | None = None, return_attention: bool = False):
        """Tokens, some of them hidden (set to zero) -> (n, n_tok, d_model); with ``return_attention`` also a list of (n, n_head, n_tok, n_tok)."""
        if hidden is not None:
            tokens = tokens.masked_fill(hidden[..., None], 0.0)
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        maps = []
        for block in self.blocks:
            x, weights = block(x, return_attention)
            maps.append(weights)
        return (self.norm(x), maps) if return_attention else self.norm(x)

    def forward(self, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None) -> Float[Tensor, "n d_model"]:
        """The embedding: the mean over the tokens, the statistics token included, hidden windows left out."""
        hidden = torch.zeros(len(flux), self.config.n_tok, dtype=torch.bool, device=flux.device) if mask is None else self.masked_tokens(mask)
        tokens = self.encode(self.tokenize(flux, hidden), hidden)
        weight = (~hidden).to(tokens.dtype)[..., None]
        return (tokens * weight).sum(1) / weight.sum(1)

    def draw_chunks(self, n: int, generator: torch.Generator) -> Bool[Tensor, "n n_tok"]:
        """Which tokens pretraining hides: one chunk of neighbours at a random place in each of ``n_chunks`` equal parts.

        With ``published_chunks`` the parts are rounded down to one length and the last start in each is left out, as in the released code: at its
        sizes tokens 23, 47, 71, 72, 96, 120, 144 and 145 are never hidden.

        Raises
        ------
        MismatchError
            A chunk is longer than a part.
        """
        c = self.config
        edges = torch.arange(c.n_chunks + 1) * c.n_tok // c.n_chunks
        room = edges.diff() - c.chunk + 1                                        # possible starts, counted from the part's edge
        if c.published_chunks:
            room = torch.full_like(room, c.n_tok // c.n_chunks - c.chunk)
        if (room < 1).any():
            raise MismatchError(f"A chunk of {c.chunk} tokens has no place in a part of {int(edges.diff().min())}: there are {c.n_tok} tokens in {c.n_chunks} parts"
                                f"{', and the published starts need a part one token longer' if c.published_chunks else ''}. Hide fewer or shorter chunks.")
        first = edges[:-1] + (torch.rand(n, c.n_chunks, generator=generator) * room).long()
        hidden = torch.zeros(n, c.n_tok, dtype=torch.bool)
        return hidden.scatter_(1, (first[..., None] + torch.arange(c.chunk)).flatten(1), True)

    def shown(self, hidden: Bool[Tensor, "n n_tok"]) -> Bool[Tensor, "n n_pix"]:
        """True for pixels in a visible window."""
        visible = (~hidden[:, 1:, None]).float().expand(-1, -1, self.config.window).flatten(1)
        count = torch.zeros(len(hidden), self.config.n_pix, device=hidden.device)
        return count.scatter_add_(1, self.pixels.flatten().expand(len(hidden), -1), visible) > 0

    def copyable(self, hidden: Bool[Tensor, "n n_tok"]) -> Bool[Tensor, "n n_windows window"]:
        """True for the numbers of each window whose pixel a visible window shows as well: under a hidden one they need no model, only copying."""
        return self.shown(hidden)[:, self.pixels]

    def masked_loss(self, flux: Float[Tensor, "n n_pix"], hidden: Bool[Tensor, "n n_tok"]) -> Float[Tensor, ""]:
        """Mean of the ``masked_errors``."""
        return self.masked_errors(flux, hidden).mean()

    def masked_errors(self, flux: Float[Tensor, "n n_pix"], hidden: Bool[Tensor, "n n_tok"]) -> Float[Tensor, " n_counted"]:
        """Squared errors of the restored numbers that differ from the zeros shown in their place (SpecCLIP's definition).

        Raises
        ------
        SpectrumError
            There are none, so that their mean would be 0 / 0.
        """
        tokens = self.tokenize(flux, hidden)
        restored = self.restore(self.encode(tokens, hidden))
        counted = hidden[..., None] & (tokens != 0)
        if not self.config.leak:
            counted[:, 1:, self.config.n_statistics:] &= ~self.copyable(hidden)
        if not counted.any():
            raise SpectrumError(f"Nothing that counts is hidden: {int(hidden.sum())} of {hidden.numel()} tokens are, and every number in them is zero or shown by a "
                                "visible window too. Hide more tokens (draw_chunks).")
        return (restored - tokens)[counted].square()
