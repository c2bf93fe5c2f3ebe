"""The stages of an aligned pair on a few hundred pairs: the same batches again, frozen encoders, a run cut in two, what the card says."""

import numpy as np
import pytest
import torch

from spectrakit.errors import MismatchError
from spectrakit.models.shipped import load_model
from spectrakit.pairs import simulate_pairs
from spectrakit.pretraining import heads, pairs
from spectrakit.pretraining.pairs import PairConfig, PairPool, pretrain_pair
from spectrakit.threads import one_thread

CONFIG = PairConfig(n_pairs=512, batch=64, autoencoder_steps=20, alignment_steps=12)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heads, "STEPS", 20)
    monkeypatch.setattr(pairs, "N_ERRORS", 64)
    with one_thread():
        yield


@pytest.fixture(scope="module")
def pool():
    return PairPool(512, 64, "robust", seed=1)


def test_a_batch_depends_on_seed_and_step_alone(pool):
    again = PairPool(512, 64, "robust", seed=1)
    for step in (0, 5, 9):
        for a, b in zip(pool(step), again(step), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(pool(0)[1], pool(1)[1])


def test_every_epoch_shows_each_pair_once_in_another_order(pool):
    first, second = (torch.cat([pool.rows(step) for step in range(8 * epoch, 8 * epoch + 8)]) for epoch in (0, 1))
    assert sorted(first.tolist()) == list(range(512)) == sorted(second.tolist())
    assert not torch.equal(first, second)


def test_pairs_are_pairs(pool):
    """Colour follows temperature in XP as line depths do in LRS: rows that were mixed up would not."""
    blue = pool.xp[:, 50] / pool.xp[:, 250]
    depth = 1 - pool.lrs.amin(1)
    assert np.corrcoef(blue.log(), pool.labels[:, 0])[0, 1] > 0.4
    assert abs(np.corrcoef(depth, pool.labels[:, 0])[0, 1]) > 0.2


def test_features_made_once_give_the_losses_of_the_spectra(pool):
    """Of the same rows, to the precision the tokens are kept in."""
    alignment = load_model("tiny_aligned").alignment
    loss, rows = pairs.PairLoss(alignment), pool.rows(3)
    tokens, latent = loss.features(pool)
    assert (tokens.dtype, tokens.shape, latent.shape) == (torch.float16, (512, 147, 32), (512, 8))
    lrs, xp = pool(3)
    with torch.no_grad():
        found, expected = loss(tokens[rows], latent[rows], lrs, xp), alignment(lrs, xp)
        mixed = loss(tokens[rows.flip(0)], latent[rows], lrs, xp)
    assert list(found) == list(expected) == ["contrast", "predict", "reconstruct"]
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-3, atol=0)
        assert mixed[name] > 1.02 * expected[name]


def test_a_trained_pair_keeps_the_encoder_and_knows_its_errors(tmp_path):
    spectrum = load_model("tiny")
    before = {k: v.clone() for k, v in spectrum.encoder.state_dict().items()}
    model = pretrain_pair(spectrum, "tiny", tmp_path, CONFIG, seed=0)
    for key, value in model.alignment.lrs.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert set(model.card.sigma) == {"lrs", "xp"}
    assert all(0 < s < 3000 for found in model.card.sigma.values() for s in found.values())
    assert (model.xp_error > 0).all()
    assert model.xp_error.median() < 1
    assert model.card.training["n_pairs"] == 512
    assert (tmp_path / "alignment.csv").read_text().splitlines()[0] == "step,loss,lr,contrast,predict,reconstruct"
    again = pretrain_pair(load_model("tiny"), "tiny", tmp_path, CONFIG, seed=0)                       # everything is there: nothing is trained
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with pytest.raises(MismatchError, match="was made with other settings"):
        pretrain_pair(load_model("tiny"), "tiny", tmp_path, PairConfig(512, 64, 20, 13), seed=0)


def test_without_decoders_there_is_no_error_to_measure(tmp_path):
    model = pretrain_pair(load_model("tiny"), "tiny", tmp_path, CONFIG, variant="base", seed=0)
    with pytest.raises(MismatchError, match="This model was aligned without decoders"):
        model.translate(simulate_pairs("lamost_lrs", 2, seed=0).lrs)
