"""The model without an encoder: its head alone on the prepared flux, saved and read again, and adapted like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.errors import MismatchError
from spectrakit.models.foundation import FoundationModel, new_flux_model
from spectrakit.models.heads import LabelHead
from spectrakit.pretraining import heads, pretrain_flux

STARS = sk.simulate("lamost_lrs", 6, seed=0)


@pytest.fixture(scope="module")
def model():
    untrained = new_flux_model("tiny", survey="pretraining", recipe="robust", seed=0)
    untrained.card = replace(untrained.card, sigma={"feh": 0.5})
    return untrained.eval()


def test_prediction_is_the_heads_on_the_flux(model):
    flux, _ = model.prepare(STARS)
    with torch.no_grad():
        expected = model.heads["feh"](flux)[:, 0].numpy()
    np.testing.assert_allclose(model.predict(STARS, "feh")[0], expected, rtol=1e-6)
    assert np.array_equal(model.embed(STARS), flux.numpy())
    assert len(model.embed(STARS[:0])) == 0


def test_counts():
    """As published, 2,059,009; without an encoder nothing else is trained."""
    assert sum(p.numel() for p in new_flux_model("paper", survey="pretraining", recipe="robust", seed=0).parameters()) == 4 * 2_059_009
    with torch.device("meta"):
        assert sum(p.numel() for p in LabelHead(1462).parameters()) == 2_059_009


def test_saved_and_read_again(model, tmp_path):
    model.save(tmp_path / "flux.safetensors")
    again = FoundationModel.load(tmp_path / "flux.safetensors")
    assert again.card == model.card
    assert np.array_equal(again.predict(STARS, "feh")[0], model.predict(STARS, "feh")[0])


def test_adapts_its_head_and_has_no_attention(model):
    stars = sk.simulate("desi", 30, seed=1)
    fit = sk.adapt(model, stars, label="feh", placement=("lora2",), seed=0, steps=15)
    assert fit.budget == 30
    with pytest.raises(MismatchError, match="matches no Linear of this network"):
        sk.adapt(model, stars, label="feh", placement=("lora1",), seed=0, steps=15)


def test_training_beats_the_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "STEPS", 60)
    trained = pretrain_flux("tiny", "pretraining", tmp_path, recipe="robust", n=1500, seed=0)
    stars = sk.simulate("lamost_lrs", 200, seed=5)
    value, sigma = trained.predict(stars, "feh")
    assert np.std(value - stars.label("feh")) < 0.8 * np.std(stars.label("feh"))
    assert (sigma == trained.card.sigma["feh"]).all()
    assert trained.card.training["n"] == 1500
