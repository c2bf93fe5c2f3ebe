"""The contrastive stage of SpecCLIP: two frozen encoders, two heads, one space in which both spectra of a star lie close together.

Three variants. ``base``: InfoNCE alone. ``pr``: from the embedding, decoders also reconstruct the own spectrum and predict the other one.
``split``: the embedding falls into a shared part, which is compared and predicts, and a private part, which only helps to reconstruct.

FAQ
---
*What are the decoders' targets?* In the released code they differ: LRS is reconstructed standardised spectrum by spectrum, but predicted from XP as
plain normalised flux; XP is flux over its value at 550 nm in both. ``standardized=True`` (``paper``) keeps that. Otherwise all four targets are the
flux itself, in units of each pixel's mean and standard deviation over the training set (``set_scaling``), so that the four terms weigh alike.
*Which logit scale?* 15.5, fixed, as the released training step uses it. (It also stores ln 15.5, for a switch that has no effect there.)
``learnable_scale=True`` trains its logarithm; nothing clamps it.
*How many negatives?* Those of all processes: n of them with batches of b have n b - 1. (The released code compares inside each process alone.)

Source: Zhao et al. 2026, SpecCLIP (arXiv:2507.01939).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..errors import MismatchError, SpectrumError
from .projection import CrossAttentionHead, PerceptronHead
from .spectrum_transformer import SpectrumTransformer, TransformerConfig
from .xp_autoencoder import AutoencoderConfig, XPAutoencoder

OTHER = {"lrs": "xp", "xp": "lrs"}


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of heads and decoders; saved as JSON beside the weights. Those of the encoders are theirs."""

    variant: str = "base"                            # "base", "pr", "split"
    d_embed: int = 768                               # base and pr
    d_shared: int = 512                              # split
    d_private: int = 256                             # split, with half of the attention heads
    n_head: int = 4
    d_wide: int = 1160                               # inside the XP head
    lrs_widths: tuple[int, ...] = (4, 4, 4)          # hidden layers of the decoders to LRS, in units of the embedding
    xp_widths: tuple[int, ...] = (4, 2, 1)
    lrs_join: int = 1462                             # split: numbers that shared and private part each bring to the reconstruction
    xp_join: int = 343
    dropout: float = 0.1
    logit_scale: float = 15.5
    learnable_scale: bool = False
    standardized: bool = False                       # as published: the LRS reconstruction is of the standardised spectrum


_SMALL = {"lrs_widths": (2, 2), "xp_widths": (2, 1), "dropout": 0.0}             # no dropout: simulated pairs never repeat
PRESETS = {
    "paper": AlignmentConfig(standardized=True),
    "small": AlignmentConfig(d_embed=128, d_shared=96, d_private=32, d_wide=192, lrs_join=192, xp_join=96, **_SMALL),
    "tiny": AlignmentConfig(d_embed=16, d_shared=12, d_private=8, n_head=2, d_wide=24, lrs_join=24, xp_join=16, **_SMALL),
}


class _Total(torch.autograd.Function):
    """Sum over all processes; the gradient is the sum of theirs. (torch's own differentiable collectives are deprecated.)"""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Total.apply(gradient)


def n_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Float[Tensor, "n d"]) -> Float[Tensor, "n_all d"]:
    """The rows of all processes one after the other, with gradients to each of them. All need the same number of rows."""
    if n_processes() == 1:
        return x
    places = [torch.zeros_like(x)] * n_processes()
    places[dist.get_rank()] = x
    return _Total.apply(torch.cat(places))


def info_nce(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], scale: float | Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: which of all rows of ``b`` belongs to this row of ``a``, and the reverse; mean of the two cross-entropies.

    Logits are ``scale`` times the cosine. Rows shorter than 1e-3 are divided by 1e-3, as published. With several processes this one asks for its
    own rows among the rows of all, so that the mean over processes is the loss of one process with the whole batch.
    """
    with torch.autocast(a.device.type, enabled=False):                           # bf16 would round logits to 1 part in 256
        a, b = (F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, eps=1e-3) for x in (a, b))
        first = dist.get_rank() * len(a) if n_processes() > 1 else 0
        own = torch.arange(first, first + len(a), device=a.device)
        return (F.cross_entropy(scale * a @ gather(b).T, own) + F.cross_entropy(scale * b @ gather(a).T, own)) / 2


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d, whose statistics in training are those of the batches of all processes. (nn.SyncBatchNorm needs a GPU.)"""

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        if not self.training or n_processes() == 1:
            return super().forward(x)
        kind, x, n = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32)), len(x) * n_processes()     # statistics of bf16 numbers are not bf16
        mean = _Total.apply(x.sum(0)) / n
        variance = _Total.apply((x - mean).square().sum(0)) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        return ((x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias).to(kind)


class Decoder(nn.Module):
    """Linear - GELU - BatchNorm - Dropout for each width, then Linear: embedding (n, d) -> spectrum (n, n_pix)."""

    def __init__(self, d: int, widths: tuple[int, ...], n_pix: int, dropout: float):
        super().__init__()
        sizes = [d, *(d * width for width in widths)]
        self.linears = nn.ModuleList([*(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)), nn.Linear(sizes[-1], n_pix)])
        self.norms = nn.ModuleList(BatchNorm(size) for size in sizes[1:])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n n_pix"]:
        for linear, norm in zip(self.linears, self.norms, strict=False):
            x = self.dropout(norm(F.gelu(linear(x))))
        return self.linears[-1](x)


class JoinedDecoder(nn.Module):
    """out(gelu(hidden(shared part, private part))): embeddings (n, d_shared) and (n, d_private) -> spectrum (n, n_pix)."""

    def __init__(self, d_shared: int, d_private: int, d_join: int, n_pix: int):
        super().__init__()
        self.shared, self.private = nn.Linear(d_shared, d_join), nn.Linear(d_private, d_join)
        self.hidden, self.out = nn.Linear(2 * d_join, 2 * d_join), nn.Linear(2 * d_join, n_pix)

    def forward(self, shared: Float[Tensor, "n d_shared"], private: Float[Tensor, "n d_private"]) -> Float[Tensor, "n n_pix"]:
        return self.out(F.gelu(self.hidden(torch.cat([self.shared(shared), self.private(private)], 1))))


class Alignment(nn.Module):
    """Both encoders, frozen, and what is trained on them. ``forward`` gives the losses, ``embed``, ``reconstruct`` and ``predict`` the results.

    Parameters
    ----------
    lrs, xp : pretrained encoders; from now on their weights need no gradient.
    config : sizes; ``PRESETS`` has ``paper`` (99,710,814 parameters with the encoders, ``pr`` 168,293,752, ``split`` 126,229,506), ``small``, ``tiny``.
    seed : of the initial weights.

    Raises
    ------
    MismatchError
        An unknown variant.
    """

    def __init__(self, lrs: SpectrumTransformer, xp: XPAutoencoder, config: AlignmentConfig, seed: int):
        super().__init__()
        if config.variant not in ("base", "pr", "split"):
            raise MismatchError(f"No variant {config.variant!r}; there are: base, pr, split.")
        self.lrs, self.xp, self.config = lrs.requires_grad_(False), xp.requires_grad_(False), config
        c, split = config, config.variant == "split"
        d = c.d_shared if split else c.d_embed
        n_pix = {"lrs": lrs.config.n_pix, "xp": xp.config.n_pix}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.shared = self._heads(d, c.n_head)
            if split:
                self.private = self._heads(c.d_private, c.n_head // 2)
                join = {"lrs": c.lrs_join, "xp": c.xp_join}
                self.restorers = nn.ModuleDict({m: JoinedDecoder(d, c.d_private, join[m], n_pix[m]) for m in n_pix})
            elif c.variant == "pr":
                self.restorers = nn.ModuleDict({m: self._decoder(m, d, n_pix[m]) for m in n_pix})
            if c.variant != "base":
                self.predictors = nn.ModuleDict({m: self._decoder(m, d, n_pix[m]) for m in n_pix})
                for m, size in n_pix.items():
                    self.register_buffer(f"{m}_mean", torch.zeros(size))
                    self.register_buffer(f"{m}_std", torch.ones(size))
        if c.learnable_scale:
            self.log_scale = nn.Parameter(torch.tensor(math.log(c.logit_scale)))

    def _heads(self, d: int, n_head: int) -> nn.ModuleDict:
        c = self.config
        return nn.ModuleDict({"lrs": CrossAttentionHead(self.lrs.config.d_model, d, n_head, c.dropout),
                              "xp": PerceptronHead(self.xp.config.d_latent, d, c.d_wide, c.dropout)})

    def _decoder(self, m: str, d: int, n_pix: int) -> Decoder:
        return Decoder(d, self.config.lrs_widths if m == "lrs" else self.config.xp_widths, n_pix, self.config.dropout)

    @property
    def scale(self) -> float | Float[Tensor, ""]:
        """What cosines are multiplied by."""
        return self.log_scale.exp() if self.config.learnable_scale else self.config.logit_scale

    def set_scaling(self, lrs: Float[Tensor, "n n_lrs"], xp: Float[Tensor, "n n_xp"]) -> None:
        """Store mean and standard deviation of each pixel of the training spectra; decoders work in these units from then on.

        A constant pixel, as XP at 550 nm is once divided by itself, keeps the unit 1.

        Raises
        ------
        MismatchError
            There are no decoders, or their targets are the published ones.
        SpectrumError
            NaN or infinite fluxes.
        """
        if self.config.variant == "base" or self.config.standardized:
            raise MismatchError("This model has no decoders, or those of the published targets: there is nothing to scale.")
        for m, flux in (("lrs", lrs), ("xp", xp)):
            if not torch.isfinite(flux).all():
                raise SpectrumError(f"The {m} fluxes hold NaN or infinite values; mask these pixels and fill them (spectrakit.continuum.fill_masked).")
            std, mean = torch.std_mean(flux, dim=0)
            getattr(self, f"{m}_mean").copy_(mean)
            getattr(self, f"{m}_std").copy_(torch.where(std > 1e-6 * flux.abs().amax(dim=0), std, 1.0))

    def features(self, m: str, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None) -> tuple[Tensor | None, ...]:
        """What the heads of ``"lrs"`` (tokens, hidden tokens or None) or ``"xp"`` (latent) read."""
        if m == "xp":                                                            # that encoder has no mask
            return (self.xp.encode(flux),)
        hidden = None if mask is None else self.lrs.masked_tokens(mask)
        return self.lrs.encode(self.lrs.tokenize(flux, hidden), hidden), hidden

    def embed(self, m: str, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None) -> Float[Tensor, "n d"]:
        """The shared embedding of spectra of ``"lrs"`` or ``"xp"``, in which cosines are compared; ``mask`` (LRS) hides windows."""
        return self.shared[m](*self.features(m, flux, mask))

    def predict(self, m: str, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"] | None = None) -> Float[Tensor, "n n_other"]:
        """The flux in the other survey, predicted from a spectrum of ``"lrs"`` or ``"xp"``."""
        return self._flux(OTHER[m], self.predictors[OTHER[m]](self.embed(m, flux, mask)))

    def reconstruct(self, m: str, flux: Float[Tensor, "n n_pix"]) -> Float[Tensor, "n n_pix"]:
        """The flux itself, back from its embedding; with ``standardized`` LRS less its mean over its standard deviation."""
        return self._flux(m, self.restorers[m](*self._parts(m, self.features(m, flux))))

    def _parts(self, m: str, features) -> list[Tensor]:
        return [self.shared[m](*features)] + ([self.private[m](*features)] if self.config.variant == "split" else [])

    def _flux(self, m: str, units: Tensor) -> Tensor:
        return units * getattr(self, f"{m}_std") + getattr(self, f"{m}_mean")

    def _units(self, m: str, flux: Tensor) -> Tensor:
        return (flux - getattr(self, f"{m}_mean")) / getattr(self, f"{m}_std")

    def forward(self, lrs: Float[Tensor, "n n_lrs"], xp: Float[Tensor, "n n_xp"]) -> dict[str, Tensor]:
        """The losses of n pairs, to be added up: ``contrast``; with decoders ``reconstruct`` and ``predict``, mean absolute errors, LRS plus XP."""
        flux = {"lrs": lrs, "xp": xp}
        return self.losses({m: self.features(m, flux[m]) for m in flux}, flux)

    def losses(self, features: dict[str, tuple], flux: dict[str, Tensor]) -> dict[str, Tensor]:
        """``forward`` from what the encoders made (``features``): frozen, they need not make it again in every step."""
        parts = {m: self._parts(m, features[m]) for m in flux}
        losses = {"contrast": info_nce(parts["lrs"][0], parts["xp"][0], self.scale)}
        if self.config.variant != "base":
            target = {m: self._units(m, flux[m]) for m in flux}
            predicted = {m: self.predictors[m](parts[OTHER[m]][0]) for m in flux}
            losses["predict"] = sum((predicted[m] - target[m]).abs().mean() for m in flux)
            if self.config.standardized:
                lrs = flux["lrs"]
                target["lrs"] = (lrs - lrs.mean(1, keepdim=True)) / lrs.std(1, keepdim=True)
            losses["reconstruct"] = sum((self.restorers[m](*parts[m]) - target[m]).abs().mean() for m in flux)
        return losses

    def card(self) -> dict:
        """What ``from_card`` needs to build this model again, as JSON can hold it."""
        return {"lrs": asdict(self.lrs.config), "xp": asdict(self.xp.config), "alignment": asdict(self.config)}

    @classmethod
    def from_card(cls, card: dict) -> Alignment:
        """An untrained model of the same sizes; its weights are to be loaded."""
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in card["alignment"].items()}
        return cls(SpectrumTransformer(TransformerConfig(**card["lrs"]), 0), XPAutoencoder(AutoencoderConfig(**card["xp"]), 0), AlignmentConfig(**config), 0)
