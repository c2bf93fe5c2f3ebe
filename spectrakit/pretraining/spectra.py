"""The stages of one spectrum model: masked modelling, then the labels the simulation knows, then heads on the frozen encoder."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..continuum import fill_masked, normalize
from ..models.foundation import HEAD_LABELS, FoundationModel, new_flux_model, new_model
from ..models.spectrum_transformer import SpectrumTransformer
from ..simulation import simulate
from ..training import TrainConfig, global_mean, train
from .heads import fit_heads, head_loss
from .streams import BLOCK, Stream


class MaskedLoss(nn.Module):
    """What the masked stage minimises, over the batches of all processes; holds the encoder and nothing else."""

    def __init__(self, encoder: SpectrumTransformer):
        super().__init__()
        self.encoder = encoder

    def forward(self, flux: Float[Tensor, "n n_pix"], hidden: Bool[Tensor, "n n_tok"]) -> Float[Tensor, ""]:
        return global_mean(self.encoder.masked_errors(flux, hidden))


class LabelLoss(nn.Module):
    """What the label stage minimises: the error of each label (``head_loss``), and that of masked tokens, so that they are not forgotten.

    ``hidden`` is of the first rows of ``flux`` alone, half of them in ``pretrain``.
    """

    def __init__(self, model: FoundationModel):
        super().__init__()
        self.encoder, self.heads = model.encoder, model.heads

    def forward(self, flux: Float[Tensor, "n n_pix"], labels: Float[Tensor, "n k"], hidden: Bool[Tensor, "n_masked n_tok"]) -> dict[str, Tensor]:
        masked = global_mean(self.encoder.masked_errors(flux[:len(hidden)], hidden))
        embedding = self.encoder(flux)
        losses = {name: head_loss(head, embedding, labels[:, i:i + 1]) for i, (name, head) in enumerate(self.heads.items())}
        return {**losses, "masked": masked}


def pretrain(preset: str, survey: str, folder: Path, *, recipe: str, n_masked: int, n_labelled: int, n_heads: int, batch: int, lr: float, seed: int,
             precision: str) -> FoundationModel:
    """All stages; each resumes where it was stopped. Returns the model with its card filled in.

    Parameters
    ----------
    preset, survey, recipe : of the model, of the spectra that are simulated, and of their normalisation.
    folder : for checkpoints and logs, one of each a stage.
    n_masked, n_labelled, n_heads : spectra seen by each stage; 0 leaves one of the first two out.
    batch : spectra a step, those of all processes together; half of it has to be a multiple of their number.

    Raises
    ------
    MismatchError
        ``folder`` holds checkpoints of other settings, or the batch cannot be divided.
    """
    began = time.time()
    model = new_model(preset, survey=survey, recipe=recipe, seed=seed)
    stages = {"masked": TrainConfig(n_masked // batch, lr, seed, precision=precision), "labels": TrainConfig(n_labelled // batch, lr, seed + 1, precision=precision)}
    make = _simulated(survey, recipe)
    stream, hidden = Stream(make, batch, seed), _chunks(model.encoder, seed)
    train(MaskedLoss(model.encoder), lambda step: (stream(step)[0], hidden(step, batch)), stages["masked"], folder, "masked")
    stream, hidden = Stream(make, batch, seed + 1000), _chunks(model.encoder, seed + 1000)
    _scale_heads(model, stream.block(0)[1][:512])
    train(LabelLoss(model), lambda step: (*stream(step), hidden(step, batch // 2)), stages["labels"], folder, "labels")
    sigma = fit_heads(model.heads, *_embedded(model, Stream(make, batch, seed + 2000), n_heads), folder, seed + 2000)
    training = {"stages": {k: asdict(v) for k, v in stages.items()}, "batch": batch, "n_masked": n_masked, "n_labelled": n_labelled, "n_heads": n_heads,
                "seed": seed, "seconds": round(time.time() - began), "log": {name: _thinned(folder / f"{name}.csv") for name in stages}}
    model.card = replace(model.card, sigma=sigma, training=training)
    return model.eval()


def pretrain_flux(preset: str, survey: str, folder: Path, *, recipe: str, n: int, seed: int) -> FoundationModel:
    """Heads on the flux of ``n`` simulated spectra (5.8 kB each, all in memory), no encoder."""
    began = time.time()
    model = new_flux_model(preset, survey=survey, recipe=recipe, seed=seed)
    make = _simulated(survey, recipe)
    flux, labels = (torch.cat(parts)[:n] for parts in zip(*(Stream(make, BLOCK, seed)(step) for step in range(-(-n // BLOCK))), strict=True))
    sigma = fit_heads(model.heads, flux, labels, folder, seed)
    model.card = replace(model.card, sigma=sigma, training={"n": n, "seed": seed, "seconds": round(time.time() - began)})
    return model.eval()


def _simulated(survey: str, recipe: str):
    """``make`` of a ``Stream``: flux (n, n_pix), normalised, and labels (n, 4); systematics of each star of a strength from 0 to 1.

    The whole range, because the encoder knows from the depth of lines how much they scatter: heads that have only seen it at its strongest read better
    spectra with a bias (-0.15 dex in feh at strength 0).
    """
    def make(n, seed):
        stars = normalize(simulate(survey, n, seed, strength=np.random.default_rng(seed).uniform(0.0, 1.0, n)), recipe)
        labels = np.stack([stars.label(name) for name in HEAD_LABELS], 1)
        return torch.as_tensor(fill_masked(stars), dtype=torch.float32), torch.as_tensor(labels, dtype=torch.float32)
    return make


def _chunks(encoder: SpectrumTransformer, seed: int):
    """Tokens to hide in the first ``n`` spectra of the batch of a step."""
    return lambda step, n: encoder.draw_chunks(n, torch.Generator().manual_seed(seed * 1_000_003 + step))


def _scale_heads(model: FoundationModel, labels: Tensor) -> None:
    """Labels in units of their scatter; the embedding, which is still to change, as it is."""
    for column, head in enumerate(model.heads.values()):
        head.set_scaling(torch.zeros(len(labels), model.card.encoder.d_model), labels[:, column:column + 1])


@torch.no_grad()
def _embedded(model: FoundationModel, stream: Stream, n: int) -> tuple[Tensor, Tensor]:
    """Embeddings and labels of the first ``n`` spectra."""
    model.eval()
    device, features, labels = model.encoder.position.device, [], []
    for flux, y in map(stream, range(-(-n // stream.batch))):
        features.append(model.encoder(flux.to(device)).cpu())
        labels.append(y)
    return torch.cat(features)[:n], torch.cat(labels)[:n]


def _thinned(path: Path, rows: int = 50) -> list[tuple[int, float]]:
    """(step, loss) averaged over ``rows`` equal parts of a log; goes with the weights. Nothing where a stage was left out."""
    if not path.is_file():
        return []
    log = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 1), ndmin=2)
    return [(int(part[-1, 0]), round(float(part[:, 1].mean()), 4)) for part in np.array_split(log, min(rows, len(log)))]
