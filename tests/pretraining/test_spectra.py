"""The stages of one spectrum model: what each minimises and trains, and the whole of them, interrupted and not."""

import csv

import numpy as np
import pytest
import torch

from spectrakit.errors import MismatchError
from spectrakit.models.foundation import HEAD_LABELS, new_model
from spectrakit.pretraining import LabelLoss, MaskedLoss, head_loss, heads, pretrain, spectra, streams
from spectrakit.threads import one_thread

SIZES = dict(recipe="robust", n_masked=96, n_labelled=128, n_heads=150, batch=32, lr=2e-3, seed=0, precision="no")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 64)
    monkeypatch.setattr(heads, "STEPS", 10)
    with one_thread():
        yield


def batch(n=8):
    generator = torch.Generator().manual_seed(1)
    flux = 1 + 0.1 * torch.randn(n, 1462, generator=generator)
    labels = torch.tensor([5000.0, 3.0, -0.5, 0.1]) + torch.tensor([300.0, 1.0, 0.5, 0.1]) * torch.randn(n, 4, generator=generator)
    return flux, labels, generator


def tiny(seed=0):
    return new_model("tiny", survey="pretraining", recipe="robust", seed=seed)


def test_every_parameter_of_a_stage_is_trained_by_it():
    """What asks for a gradient gets one: several processes would wait for it in vain."""
    model, (flux, labels, generator) = tiny(), batch()
    hidden = model.encoder.draw_chunks(8, generator)
    for loss, inputs in ((MaskedLoss(model.encoder), (flux, hidden)), (LabelLoss(model), (flux, labels, hidden[:2]))):
        value = loss(*inputs)
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        for name, p in loss.named_parameters():
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name
        loss.zero_grad()


def test_losses_written_out():
    model, (flux, labels, generator) = tiny().eval(), batch()
    hidden = model.encoder.draw_chunks(2, generator)
    with torch.no_grad():
        masked, terms = model.encoder.masked_loss(flux[:2], hidden), LabelLoss(model)(flux, labels, hidden)
        torch.testing.assert_close(MaskedLoss(model.encoder)(flux[:2], hidden), masked, rtol=0, atol=0)
        assert list(terms) == [*HEAD_LABELS, "masked"]
        torch.testing.assert_close(terms["masked"], masked)
        for column, name in enumerate(HEAD_LABELS):
            torch.testing.assert_close(terms[name], head_loss(model.heads[name], model.encoder(flux), labels[:, column:column + 1]))


def log(path):
    with path.open() as f:
        return list(csv.reader(f))


def test_all_stages_interrupted_and_not(tmp_path, monkeypatch):
    """Stopped in the middle of the labels and started again: the same model, bit for bit; its card says how it was made."""
    whole = pretrain("tiny", "pretraining", tmp_path / "whole", **SIZES)
    simulate, calls = spectra.simulate, []
    def stopping(*a, **kw):
        calls.append(a)
        if len(calls) == 4:                                                              # two blocks of the first stage, then the second of the labels
            raise KeyboardInterrupt
        return simulate(*a, **kw)
    monkeypatch.setattr(spectra, "simulate", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain("tiny", "pretraining", tmp_path / "again", **SIZES)
    assert len(log(tmp_path / "again" / "labels.csv")) == 1 + 2
    again = pretrain("tiny", "pretraining", tmp_path / "again", **SIZES)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert not any(torch.equal(v, tiny().state_dict()[k]) for k, v in whole.named_parameters() if "kv.bias" not in k)
    assert whole.card.sigma == again.card.sigma
    assert set(whole.card.sigma) == set(HEAD_LABELS)
    assert not whole.training
    assert (tmp_path / "whole" / "labels.csv").read_text() == (tmp_path / "again" / "labels.csv").read_text()
    assert log(tmp_path / "whole" / "labels.csv")[0] == ["step", "loss", "lr", *HEAD_LABELS, "masked"]
    training = whole.card.training
    assert [training["stages"][name]["steps"] for name in ("masked", "labels")] == [3, 4]
    for name in ("masked", "labels"):
        said, written = np.array(training["log"][name]), np.array(log(tmp_path / "whole" / f"{name}.csv")[1:], float)[:, :2]
        np.testing.assert_allclose(said, written, atol=6e-5)                             # fewer steps than parts: each its own
    with pytest.raises(MismatchError, match="masked.safetensors was made with other settings"):
        pretrain("tiny", "pretraining", tmp_path / "whole", **{**SIZES, "lr": 1e-3})


def test_a_stage_can_be_left_out(tmp_path):
    model = pretrain("tiny", "pretraining", tmp_path, **{**SIZES, "n_masked": 0, "n_labelled": 0})
    assert all(torch.equal(v, tiny().encoder.state_dict()[k]) for k, v in model.encoder.state_dict().items())
    assert model.card.training["log"] == {"masked": [], "labels": []}
    assert all(p.name.startswith("head_") for p in tmp_path.iterdir())
    assert set(model.card.sigma) == set(HEAD_LABELS)
