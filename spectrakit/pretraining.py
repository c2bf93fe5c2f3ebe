"""Pretraining on simulated spectra: masked modelling, then the labels the simulation knows, then heads on the frozen encoder."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from astropy.stats import biweight_scale
from torch import Tensor

from .continuum import fill_masked, normalize
from .models.foundation import HEAD_LABELS, FoundationModel, new_model
from .models.spectrum_transformer import SpectrumTransformer
from .simulation import simulate
from .threads import one_thread
from .training import TrainConfig, train

BLOCK = 4096                                                        # spectra simulated at a time


class Stream:
    """An endless stream of simulated, normalised spectra and labels; batch ``step`` depends on the seed and the step alone."""

    def __init__(self, survey: str, recipe: str, batch: int, encoder: SpectrumTransformer, seed: int):
        self.survey, self.recipe, self.batch, self.encoder, self.seed = survey, recipe, batch, encoder, seed
        self._block = lru_cache(maxsize=1)(self._make)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Flux (batch, n_pix) and labels (batch, 4: teff, logg, feh, alpha_fe)."""
        block, row = divmod(step * self.batch, BLOCK)
        flux, labels = self._block(block)
        return flux[row:row + self.batch], labels[row:row + self.batch]

    def hidden(self, step: int, n: int) -> Tensor:
        """Tokens to hide in the first ``n`` spectra of a batch, (n, n_tok)."""
        return self.encoder.draw_chunks(n, torch.Generator().manual_seed(self.seed * 1_000_003 + step))

    def _make(self, block: int) -> tuple[Tensor, Tensor]:
        stars = normalize(simulate(self.survey, BLOCK, seed=int(np.random.SeedSequence([self.seed, block]).generate_state(1)[0])), self.recipe)
        return torch.as_tensor(fill_masked(stars), dtype=torch.float32), torch.as_tensor(np.stack([stars.label(k) for k in HEAD_LABELS], 1), dtype=torch.float32)


def pretrain(preset: str, survey: str, folder: Path, *, recipe: str, n_masked: int, n_labelled: int, n_heads: int, batch: int, lr: float, seed: int,
             precision: str) -> FoundationModel:
    """All stages; each resumes where it was stopped. Numbers count spectra. Returns the model with its card filled in."""
    began = time.time()
    model = new_model(preset, survey=survey, recipe=recipe, seed=seed)
    stages = {"masked": TrainConfig(n_masked // batch, lr, seed, precision=precision), "labels": TrainConfig(n_labelled // batch, lr, seed + 1, precision=precision)}
    stream = Stream(survey, recipe, batch, model.encoder, seed)
    train(_Masked(model), _masked_loss, lambda step: (stream(step)[0], stream.hidden(step, batch)), stages["masked"], folder, "masked")
    stream = Stream(survey, recipe, batch, model.encoder, seed + 1000)
    _scale_heads(model, stream)
    train(model, _label_loss, lambda step: (*stream(step), stream.hidden(step, batch // 4)), stages["labels"], folder, "labels")
    sigma = fit_heads(model, survey, n_heads, folder, seed + 2000)
    training = {"stages": {k: asdict(v) for k, v in stages.items()}, "batch": batch, "n_masked": n_masked, "n_labelled": n_labelled, "n_heads": n_heads,
                "seed": seed, "seconds": round(time.time() - began), "log": {name: _thinned(folder / f"{name}.csv") for name in stages}}
    model.card = replace(model.card, sigma=sigma, training=training)
    return model.eval()


def _thinned(path: Path, rows: int = 50) -> list[tuple[int, float]]:
    """(step, loss) averaged over ``rows`` equal parts of a log; goes with the weights."""
    log = np.loadtxt(path, delimiter=",", skiprows=1)
    return [(int(part[-1, 0]), round(float(part[:, 1].mean()), 4)) for part in np.array_split(log, rows)]


class _Masked(torch.nn.Module):
    """The masked loss as a module's forward, so that several processes can share gradients."""

    def __init__(self, model: FoundationModel):
        super().__init__()
        self.encoder = model.encoder

    def forward(self, flux, hidden):
        return self.encoder.masked_loss(flux, hidden)


def _masked_loss(model, flux, hidden):
    return model(flux, hidden)


def _label_loss(model, flux, labels, hidden):
    """Smooth absolute error of the four standardised labels; a quarter of each batch goes on restoring masked tokens, so that is not forgotten."""
    masked = model.encoder.masked_loss(flux[:len(hidden)], hidden)
    embedding, value = model.encoder(flux).float(), 0.0
    for column, label in enumerate(HEAD_LABELS):
        head = model.heads[label]
        value = value + torch.nn.functional.smooth_l1_loss(head(embedding)[:, 0] / head.y_std, labels[:, column] / head.y_std, beta=0.3)
    return value + 0.2 * masked


def _scale_heads(model: FoundationModel, stream: Stream) -> None:
    flux, labels = stream._make(0)
    with torch.no_grad():
        features = model.encoder(flux[:512])
    for column, label in enumerate(HEAD_LABELS):
        model.heads[label].set_scaling(torch.zeros_like(features), labels[:512, column:column + 1])


def fit_heads(model: FoundationModel, survey: str, n: int, folder: Path, seed: int) -> dict[str, float]:
    """Heads on the frozen encoder; returns their scatter (K, dex) on a tenth that was held out."""
    model.encoder.requires_grad_(False)
    stream = Stream(survey, model.card.recipe, BLOCK, model.encoder, seed)
    features, labels = zip(*((_embed(model, flux), y) for flux, y in (stream(i) for i in range(-(-n // BLOCK)))), strict=True)
    features, labels = torch.cat(features)[:n], torch.cat(labels)[:n]
    held, sigma = n // 10, {}
    for column, label in enumerate(HEAD_LABELS):
        head, x, y = model.heads[label], features[held:], labels[held:, column:column + 1]
        head.set_scaling(x, y)
        with one_thread():
            train(head, _head_loss, _head_batches(x, y, seed), TrainConfig(4000, 1e-3, seed, weight_decay=1e-3), folder, f"head_{label}")
        head.eval()
        with torch.no_grad():
            residual = head(features[:held]) - labels[:held, column:column + 1]
        sigma[label] = float(biweight_scale(residual.numpy()))
    model.encoder.requires_grad_(True)
    return sigma


@torch.no_grad()
def _embed(model: FoundationModel, flux: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model.encoder(part) for part in flux.split(256)])


def _head_loss(head, x, y):
    head = getattr(head, "module", head)
    return torch.nn.functional.smooth_l1_loss(head(x) / head.y_std, y / head.y_std, beta=0.3)


def _head_batches(x, y, seed: int, batch: int = 256):
    def batches(step):
        rows = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        return x[rows], y[rows]
    return batches
