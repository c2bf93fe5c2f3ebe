"""SpectraFM's pretraining: the same stars through several instruments, and random questions about their labels and fluxes without end."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .. import population
from ..continuum import normalize
from ..library import LABELS, load_library
from ..models.pixel_tokens import FLUX, Bins, bin_pixels
from ..models.spectra_fm import IDENTITY, PRESETS, SpectraFM, SpectraFMCard, own_pixels
from ..models.tokens import PADDING, Tokens, join
from ..simulation import simulate
from ..surveys import APOGEE, COMMON, DESI, H_BAND, LAMOST, PRETRAINING, Survey, Systematics
from ..training import TrainConfig, train
from .requests import RequestLoss

SPANS = (COMMON, H_BAND)
H_TRAINING = replace(APOGEE, name="h_training", population="training", snr=(30.0, 300.0), good=None, source="the APOGEE grid with wider systematics",
                     systematics=Systematics(velocity=1.0, spread=0.1, tilt=0.15, calibration=0.03, lines=0.4))
SURVEYS = (PRETRAINING, replace(DESI, name="desi_training", snr=PRETRAINING.snr, systematics=PRETRAINING.systematics), H_TRAINING)
CALIBRATION = (LAMOST, DESI, APOGEE)                  # pretraining has wider systematics: its sigmas would be too large for them
CHANCES = (0.25, 0.15, 0.6)                           # of a batch's context to be of each survey
WIDTHS = ((1, 2, 3, 4), (1, 2, 4, 5), (1, 4, 8, 12, 16))        # pixels averaged to a token; the last two fit a whole spectrum into 512
LENGTHS = (64, 128, 256, 512)                         # tokens in a batch's contexts, at most n_context
CHUNK = 1024                                          # stars normalised at a time: memory
N_SAME, N_OTHER, KNOWN = 16, 8, 0.15                  # fluxes asked for: of the context's survey, of another; chance of a label to be told


@dataclass(frozen=True, eq=False)
class Block:
    """The same stars through one survey, normalised, on its own pixels."""

    wave: Float[np.ndarray, " n_pix"]
    resolution: Float[np.ndarray, " n_pix"]
    flux: Float[Tensor, "n n_pix"]
    error: Float[Tensor, "n n_pix"]

    def bins(self, rows: Tensor, width: int, generator: torch.Generator) -> Bins:
        """Some stars' spectra averaged to tokens; up to a tenth of each star's pixels are bad, drawn anew each time."""
        flux = self.flux[rows]
        bad = torch.rand(flux.shape, generator=generator) < 0.1 * torch.rand(len(rows), 1, generator=generator)
        return bin_pixels(self.wave, self.resolution, flux, self.error[rows], bad, width)


class SpectraTokens:
    """Questions about simulated stars. Batch ``step`` depends on seed and step alone.

    A batch's contexts are of one survey, one width of pixels and one number of tokens; each star's are drawn for itself: half of the batches from the whole
    spectrum, the others from a window of it where they fit. Fluxes asked for are of other pixels of the same star, and of another survey's
    spectrum of it. Each label is told with a chance of 0.15, and asked for otherwise. In each eighth batch labels alone are told, no pixel.

    Parameters
    ----------
    n_stars : simulated at a time, of which ``epochs`` times as many questions are asked.
    surveys : what to simulate; ``CHANCES`` and ``WIDTHS`` are theirs.
    """

    def __init__(self, n_context: int, batch: int, seed: int, n_stars: int = 4096, epochs: int = 4, surveys: tuple[Survey, ...] = SURVEYS):
        self.n_context, self.batch, self.seed, self.n_stars, self.surveys = n_context, batch, seed, n_stars, surveys
        self.steps = epochs * n_stars // batch                                   # per block
        self.block = lru_cache(maxsize=1)(self._block)

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """Context and requests as ``RequestLoss`` takes them."""
        blocks, labels = self.block(step // self.steps)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(labels), (self.batch,), generator=generator)
        told, asked = _label_tokens(labels[rows], generator, 0.8 if step % 8 == 7 else KNOWN)
        survey = int(torch.multinomial(torch.tensor(CHANCES[:len(blocks)]), 1, generator=generator))
        other = (survey + 1 + int(torch.randint(max(1, len(blocks) - 1), (), generator=generator))) % len(blocks)
        own = blocks[survey].bins(rows, _pick(WIDTHS[survey], generator), generator)
        far = blocks[other].bins(rows, _pick(WIDTHS[other], generator), generator)
        seen, rest = self.split(own, len(rows), generator)
        far = far.tokens(torch.randint(far.wave.numel(), (len(rows), N_OTHER), generator=generator))
        requests = join(own.tokens(rest), far, asked)
        return *(told if step % 8 == 7 else join(own.tokens(seen), told)), *requests

    def split(self, bins: Bins, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which bins each star's context has (n, n_tok), and which others are asked for (n, 16)."""
        n_bin = bins.wave.numel()
        n_tok = min(_pick(LENGTHS, generator), self.n_context, int(0.9 * n_bin))
        key = torch.rand(n, n_bin, generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            first = (torch.rand(n, 1, generator=generator) * (n_bin - n_tok)).long()
            place = torch.arange(n_bin)
            key = key + ((place < first) | (place >= first + n_tok))
        order = key.argsort(1)
        rest = n_tok + torch.randperm(n_bin - n_tok, generator=generator)[:N_SAME]
        return order[:, :n_tok], order[:, rest]

    def _block(self, number: int) -> tuple[list[Block], Tensor]:
        seeds = np.random.SeedSequence([self.seed, number]).generate_state(2 + len(self.surveys))
        labels = population.draw("training", self.n_stars, np.random.default_rng(int(seeds[0])), load_library("hband"))
        strength = np.random.default_rng(int(seeds[1])).uniform(0.0, 1.0, self.n_stars)
        blocks = [_observed(survey, labels, strength, int(seed)) for survey, seed in zip(self.surveys, seeds[2:], strict=True)]
        return blocks, torch.as_tensor(labels, dtype=torch.float32)


def _observed(survey: Survey, labels, strength, seed: int) -> Block:
    parts = []
    for i, start in enumerate(range(0, len(labels), CHUNK)):
        rows = slice(start, start + CHUNK)
        own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        stars = simulate(survey, len(labels[rows]), own, labels=labels[rows], strength=strength[rows])
        parts.append(normalize(stars, "robust", own_pixels(stars.wave, SPANS)))
    flux, error = (torch.cat([torch.as_tensor(make(p), dtype=torch.float32) for p in parts]) for make in (lambda p: p.flux, lambda p: p.ivar**-0.5))
    return Block(parts[0].wave, parts[0].resolution, flux, error)


def _label_tokens(labels: Float[Tensor, "n 5"], generator: torch.Generator, chance: float) -> tuple[Tokens, Tokens]:
    """Labels told and labels asked for: padding in one where there is a token in the other."""
    told = torch.rand(labels.shape, generator=generator) < chance
    identity = torch.tensor([IDENTITY[name] for name in LABELS]).expand(labels.shape)
    none = torch.zeros_like(labels)
    return tuple(Tokens(torch.where(there, identity, PADDING), torch.where(there, labels, 0.0), none, none, none) for there in (told, ~told))


def _pick(choices: tuple[int, ...], generator: torch.Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def pretrain_spectra_fm(preset: str, folder: Path, *, steps: int, batch: int, lr: float, seed: int, precision: str) -> SpectraFM:
    """Train on questions about simulated stars; resumes where it was stopped. The card is filled in, the labels' sigmas are calibrated.

    Raises
    ------
    MismatchError
        ``folder`` holds a checkpoint of other settings.
    """
    began = time.time()
    model = SpectraFM(SpectraFMCard(PRESETS[preset], "robust", SPANS, {name: load_library(name).sha256 for name in ("optical", "hband")}, {}, {}), seed)
    stream = SpectraTokens(model.card.sizes.n_context, batch, seed)
    labels = population.draw("training", 4096, np.random.default_rng(seed), load_library("hband"))
    centre = np.median(labels, 0)
    model.network.centre[FLUX + 1:] = torch.as_tensor(centre)
    model.network.spread[FLUX + 1:] = torch.as_tensor(1.4826 * np.median(np.abs(labels - centre), 0))
    config = TrainConfig(steps, lr, seed, warmup=500, weight_decay=0.01, betas=(0.9, 0.98), precision=precision, muon=True)
    train(RequestLoss(model.network), stream, config, folder, "spectra_fm")
    model.cpu()
    training = {"stars": -(-steps // stream.steps) * stream.n_stars, "batch": batch, "stage": asdict(config), "seed": seed}
    model.card = replace(model.card, training=training)
    model.card = replace(model.card, scatter=calibrate_spectra_fm(model, seed + 1000), training={**training, "seconds": round(time.time() - began)})
    return model.eval()


def calibrate_spectra_fm(model: SpectraFM, seed: int, n: int = 2048) -> dict[str, dict[str, float]]:
    """Stretch each label's sigma until it covers 68.3 % of other stars of the surveys as declared, all surveys of a span together.

    Returns ``{survey: {label: robust scatter}}``.
    """
    ratios, scatter = defaultdict(list), {}
    for i, survey in enumerate(CALIBRATION):
        stars = simulate(survey, n, seed + i)
        span, scatter[survey.name] = int(model.network.span(model.context(stars[:1]))[0]), {}
        for name, (value, sigma) in model.request(stars, LABELS).items():
            residual = value - stars.label(name)
            ratios[span, IDENTITY[name]].append(np.abs(residual) / sigma)
            scatter[survey.name][name] = round(float(1.4826 * np.median(np.abs(residual))), 4)
    for where, parts in ratios.items():
        model.network.stretch[where] *= float(np.quantile(np.concatenate(parts), 0.6827))
    return scatter
