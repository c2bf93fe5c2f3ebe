"""What adapters are compared with: each gets the same labels, none more, and gives a value and a sigma."""

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.rivals import adapted, from_scratch, linear_probe, recalibrate, regressor, rivals, zero_shot
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.baselines import RidgePCA
from spectrakit.splits import splits

MODEL = sk.load_model("tiny")


def test_they_all_go_through_compare(stars):
    parts = splits(np.arange(len(stars)), n_train=30, n_valid=9, n_splits=1, seed=0)
    methods = rivals(MODEL, "feh", unlabelled=stars[:40])
    quick = {name: m for name, m in methods.items() if name not in ("full fine-tuning", "from scratch")}
    quick |= {"LoRA2": adapted(MODEL, "feh", ("lora2",), steps=15), "ridge": regressor(lambda k: RidgePCA(10, seed=k), "feh")}
    table = sk.experiments.compare(stars, quick, "feh", parts, progress=False)
    whole = table[table.regime == "all"].set_index("method")
    assert set(whole.index) == set(quick) and np.isfinite(whole[["sigma", "bias", "r2"]].to_numpy()).all()
    bias = whole.bias.abs()
    assert bias["zero-shot"] > 0.25
    for name in ("ridge on embedding", "Gaussian process on embedding", "head only", "residual head"):   # labels tell of the offset of 0.4 dex
        assert bias[name] < 0.2, name


def test_validation_labels_are_used_by_the_probe(stars):
    """A probe of 20 + 10 stars is that of 30."""
    probe = linear_probe(MODEL, "feh")
    a, b = probe(stars[:20], stars[20:30], stars[60:], 0), probe(stars[:30], stars[:0], stars[60:], 0)
    np.testing.assert_allclose(a[0], b[0], atol=1e-8)
    assert not np.allclose(probe(stars[:20], stars[:0], stars[60:], 0)[0], b[0], atol=1e-3)


def test_the_probe_is_ridge_regression_in_closed_form(stars):
    x, y = MODEL.embed(stars[:40]).astype(float), stars[:40].label("feh")
    mean, std = x.mean(0), x.std(0)
    z, new = (x - mean) / std, (MODEL.embed(stars[60:]).astype(float) - mean) / std
    value, sigma = linear_probe(MODEL, "feh")(stars[:40], stars[:0], stars[60:], 0)
    answers = [new @ np.linalg.solve(z.T @ z + a * np.eye(len(mean)), z.T @ (y - y.mean())) + y.mean() for a in np.logspace(-3, 4, 29)]
    assert min(np.abs(a - value).max() for a in answers) < 1e-6 and (sigma == sigma[0]).all() and sigma[0] > 0


def test_recalibration_replaces_the_statistics_of_batchnorm_and_nothing_else(stars):
    before = {k: v.clone() for k, v in MODEL.state_dict().items()}
    new = recalibrate(MODEL, stars[:60])
    assert all(torch.equal(v, before[k]) for k, v in MODEL.state_dict().items())
    changed = {k for k, v in new.state_dict().items() if not torch.equal(v, before[k])}
    assert all(k.endswith(("running_mean", "running_var", "num_batches_tracked")) for k in changed) and len(changed) >= 2 * 3 * 4
    head = new.heads["feh"]
    x = head.linears[0]((torch.as_tensor(MODEL.embed(stars[:60])) - head.x_mean) / head.x_std).detach().double().numpy()
    np.testing.assert_allclose(head.norms[0].running_mean, x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.norms[0].running_var, x.var(0, ddof=1), rtol=1e-4)
    assert not np.array_equal(zero_shot(new, "feh")(None, None, stars[60:], 0)[0], MODEL.predict(stars[60:], "feh")[0])
    assert new.card.training["recalibrated"] == [60] and new.heads["feh"].norms[0].momentum == 0.1


def test_recalibration_of_an_aligned_pair_is_of_its_lrs_heads(stars):
    model = sk.load_model("tiny_aligned")
    new = recalibrate(model, stars[:30])
    changed = {k for k, v in new.state_dict().items() if not torch.equal(v, model.state_dict()[k])}
    assert changed and all(k.startswith("heads.lrs") for k in changed)
    with pytest.raises(SpectrumError, match="12 spectra; statistics of fewer than 20 would be noise"):
        recalibrate(model, stars[:12])
    with pytest.raises(MismatchError, match="These are Gaia XP spectra"):
        recalibrate(model, sk.simulate_pairs("lamost_lrs", 20, seed=5).xp)


def test_from_scratch_knows_nothing_of_pretraining(stars):
    """A model whose weights are all 0, and which would stay so, has only its sizes to give."""
    empty = sk.load_model("tiny")
    with torch.no_grad():
        for weight in empty.parameters():
            weight.zero_()
    value, sigma = from_scratch(empty, "feh", steps=15)(stars[:12], stars[20:22], stars[60:], 3)
    assert value.std() > 0.01 and (sigma > 0).all()
