"""The stages of an aligned pair: the XP autoencoder, then the contrastive stage on frozen encoders, then heads on what they agree on."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from astropy.stats import mad_std
from jaxtyping import Float, Float16
from torch import Tensor, nn
from tqdm import tqdm

from ..library import load_library
from ..models.aligned import AlignedCard, AlignedModel
from ..models.alignment import OTHER, Alignment
from ..models.alignment import PRESETS as ALIGNMENTS
from ..models.foundation import HEAD_LABELS, FoundationModel
from ..models.xp_autoencoder import PRESETS as AUTOENCODERS
from ..models.xp_autoencoder import XPAutoencoder
from ..pairs import bright, simulate_pairs
from ..surveys import PRETRAINING, get_survey
from ..training import TrainConfig, train
from .heads import fit_heads
from .streams import BLOCK

N_HEADS = 32_768                                                    # pairs that heads are fitted to
N_ERRORS = 2048                                                     # stars that the errors of translation are measured on
POPULATIONS = ("training", "gaia")                                  # in turn: all labels alike, then stars as they are, which are hard to tell apart


@dataclass(frozen=True)
class PairConfig:
    """How much an aligned pair is trained; steps are of ``batch`` pairs."""

    n_pairs: int
    batch: int
    autoencoder_steps: int
    alignment_steps: int
    lr: float = 1e-3
    precision: str = "no"


class PairPool:
    """Simulated pairs held in memory (7.2 kB each) and drawn from in a new order each epoch; batch ``step`` depends on seed and step alone.

    Systematics of each star are of a strength from 0 to 1.
    """

    def __init__(self, n: int, batch: int, recipe: str, seed: int):
        self.batch, self.seed = batch, seed
        blocks = [_block(i, min(BLOCK, n), recipe, seed) for i in range(-(-n // BLOCK))]
        self.lrs, self.xp, self.labels = (torch.cat(parts)[:n] for parts in zip(*blocks, strict=True))

    def rows(self, step: int) -> Tensor:
        """Which pairs make batch ``step``."""
        per_epoch = len(self.lrs) // self.batch
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(len(self.lrs), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        return order[place * self.batch:(place + 1) * self.batch]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """LRS (batch, 1462) and XP (batch, 343)."""
        rows = self.rows(step)
        return self.lrs[rows], self.xp[rows]


class PairLoss(nn.Module):
    """What the contrastive stage minimises, on what the frozen encoders have made of all pairs, once.

    ``features`` : LRS tokens (n, n_tok, d_model) in half precision, of 38 kB a pair for ``small``, and XP latents (n, d_latent).
    """

    def __init__(self, alignment: Alignment):
        super().__init__()
        self.alignment = alignment

    def forward(self, tokens: Tensor, latent: Tensor, lrs: Tensor, xp: Tensor) -> dict[str, Tensor]:
        return self.alignment.losses({"lrs": (tokens.float(), None), "xp": (latent,)}, {"lrs": lrs, "xp": xp})

    @torch.no_grad()
    def features(self, pool: PairPool) -> tuple[Float16[Tensor, "n n_tok d_model"], Float[Tensor, "n d_latent"]]:
        config, device = self.alignment.lrs.config, next(self.parameters()).device
        tokens = torch.empty(len(pool.lrs), config.n_tok, config.d_model, dtype=torch.float16)
        latent = torch.empty(len(pool.lrs), self.alignment.xp.config.d_latent)
        for start in tqdm(range(0, len(tokens), 256), desc="features", mininterval=10):
            rows = slice(start, start + 256)
            tokens[rows] = self.alignment.features("lrs", pool.lrs[rows].to(device))[0].cpu()
            latent[rows] = self.alignment.features("xp", pool.xp[rows].to(device))[0].cpu()
        return tokens, latent


def _block(number: int, n: int, recipe: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    survey = replace(PRETRAINING, population=POPULATIONS[number % len(POPULATIONS)])
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    pairs = simulate_pairs(survey, n, seed=own, strength=np.random.default_rng(own).uniform(0.0, 1.0, n), recipe=recipe)
    return *pairs.tensors(), torch.as_tensor(np.stack([pairs.lrs.label(k) for k in HEAD_LABELS], 1), dtype=torch.float32)


def pretrain_pair(spectrum: FoundationModel, preset: str, folder: Path, config: PairConfig, *, variant: str = "pr", seed: int) -> AlignedModel:
    """All stages after the spectrum model's own; each resumes where it was stopped. ``spectrum``'s encoder stays as it is, bit for bit.

    Parameters
    ----------
    preset, variant : sizes of autoencoder, heads and decoders (``alignment.PRESETS``), and which of them there are.
    folder : for checkpoints and logs, one of each a stage.

    Raises
    ------
    MismatchError
        ``folder`` holds checkpoints of other settings.
    """
    began = time.time()
    pool = PairPool(config.n_pairs, config.batch, spectrum.card.recipe, seed)
    xp = XPAutoencoder(AUTOENCODERS[preset], seed)
    stages = {"autoencoder": TrainConfig(config.autoencoder_steps, config.lr, seed, precision=config.precision),
              "alignment": TrainConfig(config.alignment_steps, config.lr, seed + 1, precision=config.precision)}
    train(xp, lambda step: pool(step)[1:], stages["autoencoder"], folder, "autoencoder")
    alignment = Alignment(spectrum.encoder, xp, replace(ALIGNMENTS[preset], variant=variant), seed)
    if variant != "base" and not alignment.config.standardized:
        alignment.set_scaling(pool.lrs, pool.xp)
    _align(alignment, pool, stages["alignment"], folder)
    training = {**asdict(config), "variant": variant, "seed": seed, "stages": {k: asdict(v) for k, v in stages.items()}}
    model = AlignedModel(AlignedCard(spectrum.card, alignment.card(), load_library("xp").sha256, {}, training))
    model.alignment.load_state_dict(alignment.state_dict())
    model.to(next(alignment.parameters()).device)
    fresh = PairPool(min(N_HEADS, config.n_pairs), config.batch, spectrum.card.recipe, seed + 2000)
    sigma = {m: fit_heads(model.heads[m], _embedded(model, m, getattr(fresh, m)), fresh.labels, folder / m, seed) for m in OTHER}
    if variant != "base":
        _measure_errors(model, N_ERRORS, seed + 1)
    model.card = replace(model.card, sigma=sigma, training={**training, "seconds": round(time.time() - began)})
    return model.eval()


def _align(alignment: Alignment, pool: PairPool, config: TrainConfig, folder: Path) -> None:
    """The contrastive stage; nothing is computed where it is finished already."""
    loss, features = PairLoss(alignment), []

    def batches(step):
        features[:] = features or loss.features(pool)
        rows = pool.rows(step)
        return *(part[rows] for part in features), *pool(step)
    train(loss, batches, config, folder, "alignment")


@torch.no_grad()
def _embedded(model: AlignedModel, m: str, flux: Tensor) -> Tensor:
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model.alignment.embed(m, part.to(device)).cpu() for part in flux.split(256)])


def _measure_errors(model: AlignedModel, n: int, seed: int) -> None:
    """Scatter of translations about what the other survey would see of the same stars without noise."""
    seen = simulate_pairs(replace(PRETRAINING, population="gaia"), n, seed, recipe=model.card.lrs.recipe)
    labels = seen.xp.labels.copy()
    labels["g"] = 6.0
    clear = simulate_pairs(bright(get_survey("lamost_lrs")), n, seed, labels=labels, recipe=model.card.lrs.recipe)
    for m in OTHER:
        error = model.translate(getattr(seen, m)).flux - getattr(clear, OTHER[m]).flux
        getattr(model, f"{OTHER[m]}_error").copy_(torch.as_tensor(mad_std(error, axis=0)).clamp(min=1e-4))
