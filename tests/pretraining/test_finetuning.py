"""SpectraFM's later stages: windows, what is trained and what is not, where training stops, sigmas, the network from scratch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from spectrakit.errors import LabelError, MismatchError
from spectrakit.library import load_library
from spectrakit.models.spectra_fm import IDENTITY, PRESETS, SpectraFM, SpectraFMCard
from spectrakit.pretraining.finetuning import STAGE_THREE, _loss, _request, finetune, window
from spectrakit.pretraining.pixels import SPANS
from spectrakit.pretraining.scratch import train_scratch
from spectrakit.pretraining.stopping import descend, stretch
from spectrakit.simulation import simulate

ERRORS = {"feh": 0.05}

pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture(scope="module")
def model():
    card = SpectraFMCard(PRESETS["tiny"], "robust", SPANS, {name: load_library(name).sha256 for name in ("optical", "hband")}, {}, {"steps": 0})
    model = SpectraFM(card, seed=0).eval()
    model.network.centre[IDENTITY["feh"]], model.network.spread[IDENTITY["feh"]] = -0.8, 0.8
    return model


@pytest.fixture(scope="module")
def stars(model):
    """64 normalised stars, a window of 200 pixels."""
    done = model.prepare(simulate("lamost_lrs", 64, 3))
    return window(done, done.wave[700], done.wave[899])


def test_window_keeps_pixels_and_normalisation(model, stars):
    assert stars.wave.size == 200
    done = model.prepare(simulate("lamost_lrs", 64, 3))
    assert np.array_equal(stars.flux, done.flux[:, 700:900])
    assert np.array_equal(stars.resolution, done.resolution[700:900])
    assert stars.normalization == "robust"
    with pytest.raises(MismatchError, match="0 pixels lie in 9000-9100 A; the spectra cover"):
        window(stars, 9000, 9100)


def test_only_the_named_parts_are_trained(model, stars):
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    tuned = finetune(model, stars[:48], stars[48:], ERRORS, steps=6, lr=5e-3, seed=0, parts=STAGE_THREE, checks=6)
    assert tuned.card.training["finetuned"][0]["steps"] > 0
    for name, p in tuned.network.named_parameters():
        # attention to one request or to itself needs no extra key where a token is never empty; everything else of these parts moves
        assert torch.equal(p, before[name]) != name.startswith(STAGE_THREE) or name.endswith("extra") or "attention.k.bias" in name, name
        assert torch.equal(dict(model.network.named_parameters())[name], before[name]), f"{name} of the model passed in"
    with pytest.raises(MismatchError, match="No parameter begins with heads"):
        finetune(model, stars[:8], stars[8:16], ERRORS, steps=1, lr=1e-3, seed=0, parts=("heads",))


def test_it_learns_and_stops_at_the_best_check(model, stars):
    tuned = finetune(model, stars[:48], stars[48:], ERRORS, steps=30, lr=3e-3, seed=0, checks=6)
    stage = tuned.card.training["finetuned"][0]
    assert len(stage["history"]) == 7
    assert stage["steps"] == 5 * int(np.argmin(stage["history"]))
    assert min(stage["history"]) < stage["history"][0] - 0.1
    held, target = tuned.context(stars[48:]), _request(stars[48:], ERRORS)
    with torch.no_grad():
        assert _loss(tuned.network, held, target).mean().item() == pytest.approx(min(stage["history"]), abs=1e-4), "the weights kept are those of the best check"


def test_same_seed_same_weights(model, stars):
    one, two, other = (finetune(model, stars[:16], stars[16:24], ERRORS, steps=3, lr=1e-3, seed=s, n_tok=40, batch=8, checks=3).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_sigmas_cover_the_validation_stars(model, stars):
    """Rank ceil(0.6827 (n + 1)) of n: of 16 the 12th, so 12 lie inside, the last on the edge."""
    tuned = finetune(model, stars[:16], stars[16:32], ERRORS, steps=1, lr=1e-4, seed=0)
    value, sigma = tuned.predict(stars[16:32], "feh")
    assert (np.abs(value - stars.label("feh")[16:32]) <= sigma * (1 + 1e-5)).sum() == math.ceil(0.6827 * 17)


def test_stretch_in_the_long_run():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.1, 0.2, 4000)
    assert stretch(3 * sigma * rng.standard_normal(4000), sigma) == pytest.approx(3, rel=0.05)
    assert stretch(np.array([1.0, 2.0]), np.ones(2)) == 2.0                     # too few to leave any outside


def test_label_errors_widen_the_loss(model, stars):
    """By hand: a normal density whose variance is the predicted one and that of the label."""
    target = _request(stars[:4], {"feh": 0.4})
    with torch.no_grad():
        mean, log_variance = model.network(model.context(stars[:4]), target)
        found = _loss(model.network, model.context(stars[:4]), target)
    y = (torch.as_tensor(stars.label("feh")[:4]) + 0.8) / 0.8
    normal = torch.distributions.Normal(mean[:, 0].double(), (log_variance[:, 0].double().exp() + 0.5**2).sqrt())
    assert torch.allclose(found[:, 0].double(), -normal.log_prob(y), atol=1e-4)


def test_unknown_labels_are_told(model, stars):
    with pytest.raises(LabelError, match="No label 'mg_fe'; this model knows: teff, logg, feh"):
        finetune(model, stars[:8], stars[8:16], {"mg_fe": 0.1}, steps=1, lr=1e-3, seed=0)
    with pytest.raises(LabelError, match="flux"):
        finetune(model, stars[:8], stars[8:16], {"flux": 0.1}, steps=1, lr=1e-3, seed=0)


def test_descend_goes_back_to_the_best_check():
    """Away from the minimum of what is watched: the start is kept."""
    x = torch.nn.Parameter(torch.tensor([1.0]))
    module = torch.nn.Module()
    module.x = x
    history, kept = descend(module, [x], lambda: (x - 3).square().sum(), lambda: float((x - 1).square()), torch.optim.SGD([x], 0.1), 10, 5)
    assert kept == 0
    assert x.item() == 1.0
    assert history[0] == 0.0
    assert len(history) == 6
    history, kept = descend(module, [x], lambda: (x - 3).square().sum(), lambda: float((x - 3).square()), torch.optim.SGD([x], 0.1), 10, 5)
    assert kept == 10
    assert x.item() > 1.5


def test_scratch_network_learns_a_line():
    """Flux that is a straight line in the label, hardly any noise: better than the mean by far."""
    stars, rng = simulate("lamost_lrs", 100, 5), np.random.default_rng(0)
    depth = np.exp(-0.5 * ((np.arange(60) - 30) / 5) ** 2)
    flux = 1 - 0.2 * (stars.label("feh")[:, None] + 1) * depth + 0.001 * rng.standard_normal((100, 60))
    ivar, mask = np.full(flux.shape, 1e6), np.zeros(flux.shape, bool)
    stars = stars.with_flux(stars.wave[:60], flux, ivar, mask, stars.resolution[:60], normalization="robust", step="made up")
    made = train_scratch(stars[:60], stars[60:80], "feh", 0.02, steps=25, lr=1e-3, seed=0, checks=5)
    value, sigma = made.predict(stars[80:])
    assert np.sqrt(np.mean((value - stars.label("feh")[80:]) ** 2)) < 0.3 * stars.label("feh").std()
    masked = replace(stars[80:], mask=np.arange(60) == np.full((20, 1), 30), flux=np.where(np.arange(60) == 30, np.nan, flux[80:]))
    assert np.abs(made.predict(masked)[0] - value).max() < 0.1
    assert (sigma > 0).all()
    assert made.steps > 0
