"""adapt: what it improves, what it counts, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.frozen import Frozen
from spectrakit.adaptation.placements import PLACEMENTS, Placement
from spectrakit.errors import LabelError, MismatchError


@pytest.fixture(scope="module")
def fit(stars):
    return sk.adapt(sk.load_model("tiny"), stars[:50], validation=stars[50:59], label="feh", placement=("lora2",), seed=0)


def test_an_offset_of_the_label_scale_is_learned(stars, fit):
    test = stars[60:]
    zero = sk.metrics.score(test.label("feh"), sk.load_model("tiny").predict(test, "feh")[0])
    adapted = sk.metrics.score(test.label("feh"), fit.predict(test)[0])
    assert zero.bias < -0.3 and abs(adapted.bias) < 0.15 and adapted.r2 > zero.r2


def test_budget_counts_training_and_validation(fit):
    assert fit.budget == 59 and len(fit.states) == 5 and 0 < fit.steps <= 150 and len(fit.history) == 16
    assert fit.history[0] > 0.3 > min(fit.history)


def test_sigma_is_positive_and_covers(stars, fit):
    value, sigma = fit.predict(stars[60:])
    assert value.shape == sigma.shape == (60,) and (sigma > 0).all()
    assert 0.5 < (np.abs(value - stars[60:].label("feh")) < sigma).mean() < 0.95


def test_same_seed_same_numbers_and_the_model_is_left_alone(stars, fit):
    model = sk.load_model("tiny")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    again = sk.adapt(model, stars[:50], validation=stars[50:59], label="feh", placement=("lora2",), seed=0)
    assert np.array_equal(again.predict(stars[60:])[0], fit.predict(stars[60:])[0])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("name", "placement", "trained"), [
    ("tiny", ("lora1", "lora2"), 3848), ("tiny", ("full",), None), ("tiny", "head", 4961), ("tiny", ("residual",), 64 * 33 + 65),
    ("tiny_aligned", ("lora1", "lora3", "lora4"), 6792), ("tiny_aligned", ("full",), None), ("tiny", (replace(PLACEMENTS["lora2"], kind="ia3"),), 113)])
def test_every_way_to_adapt_runs_and_leaves_the_model_alone(stars, name, placement, trained):
    model = sk.load_model(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit = sk.adapt(model, stars[:12], label="feh", placement=placement, seed=0, steps=15)
    assert np.isfinite(fit.predict(stars[60:70])[0]).all() and fit.budget == 12
    assert [part.shape for part in fit.predict(stars[:0])] == [(0,), (0,)]
    assert fit.n_trained == (trained or sum(p.numel() for p in model.network("feh").parameters()))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_aligned_pair_learns_the_offset_too(stars):
    model = sk.load_model("tiny_aligned")
    fit = sk.adapt(model, stars[:50], validation=stars[50:59], label="feh", placement=("lora4",), seed=0)
    zero, adapted = (sk.metrics.score(stars[60:].label("feh"), f(stars[60:])) for f in (lambda s: model.predict(s, "feh")[0], lambda s: fit.predict(s)[0]))
    assert abs(zero.bias) > 0.25 and abs(adapted.bias) < 0.15 and adapted.r2 > zero.r2


def test_frozen_parts_that_are_shared_give_the_same_fit(stars, fit, monkeypatch):
    model = sk.load_model("tiny")
    frozen = Frozen(model)
    settings = {"validation": stars[50:59], "label": "feh", "seed": 0}
    sk.adapt(model, stars[:59], label="feh", placement=("residual",), seed=0, steps=15, frozen=frozen).predict(stars[60:])
    monkeypatch.setattr("spectrakit.adaptation.frozen._compute", lambda *a: pytest.fail("computed again"))
    again = sk.adapt(model, stars[:50], placement=("lora2",), frozen=frozen, **settings)
    np.testing.assert_allclose(again.predict(stars[60:])[0], fit.predict(stars[60:])[0], atol=1e-4)
    with pytest.raises(MismatchError, match="computed by another model"):
        sk.adapt(sk.load_model("tiny"), stars[:50], placement=("lora2",), frozen=frozen, **settings)


def test_progress_is_told_and_can_stop(stars):
    told = []

    def stop_at_20(done, total):
        told.append((done, total))
        if done == 20:
            raise InterruptedError
    with pytest.raises(InterruptedError):
        sk.adapt(sk.load_model("tiny"), stars[:20], label="feh", placement=("lora2",), seed=0, steps=15, progress=stop_at_20)
    assert told == [(i, 75) for i in range(1, 21)]


def test_what_is_under_the_mask_changes_nothing(stars, fit):
    mask = stars[60:].mask.copy()
    mask[:, 100:130] = True
    clean = replace(stars[60:], mask=mask)
    flux = clean.flux.copy()
    flux[:, 100:130] = np.nan
    assert np.array_equal(fit.predict(clean)[0], fit.predict(replace(clean, flux=flux))[0])


def test_wrong_inputs(stars):
    model = sk.load_model("tiny")
    with pytest.raises(LabelError, match=r"No head for 'age'; this model has: teff, logg, feh, alpha_fe"):
        sk.adapt(model, stars[:50], label="age", placement=("lora2",), seed=0)
    with pytest.raises(LabelError, match="8 training stars; at least 10 are needed"):
        sk.adapt(model, stars[:8], label="feh", placement=("lora2",), seed=0)
    missing = stars[:50].labels.copy()
    missing["feh"][3] = np.nan
    with pytest.raises(LabelError, match="1 of 50 stars have no 'feh'"):
        sk.adapt(model, replace(stars[:50], labels=missing), label="feh", placement=("lora2",), seed=0)
    with pytest.raises(MismatchError, match="normalised by 'specclip', this model was trained on 'robust'"):
        sk.adapt(model, replace(stars[:50], normalization="specclip"), label="feh", placement=("lora2",), seed=0)
    with pytest.raises(MismatchError, match="steps=14; at least 15 are needed"):
        sk.adapt(model, stars[:50], label="feh", placement=("lora2",), seed=0, steps=14)
    with pytest.raises(MismatchError, match="matches no Linear of this network"):
        sk.adapt(model, stars[:50], label="feh", placement=(Placement("x", ("decoder.*",), 2, 4, ""),), seed=0)


def test_gaia_xp_spectra_are_no_target():
    pairs, model = sk.simulate_pairs("lamost_lrs", 12, seed=5), sk.load_model("tiny_aligned")
    with pytest.raises(MismatchError, match="These are Gaia XP spectra, and only the LRS side of an aligned pair can be adapted"):
        sk.adapt(model, pairs.xp, label="feh", placement=("lora4",), seed=0)
    with pytest.raises(MismatchError, match="These are Gaia XP spectra"):
        sk.adapt(model, pairs.lrs, label="feh", placement=("lora4",), seed=0, steps=15).predict(pairs.xp)
