"""adapt: what it improves, what it counts, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.placements import Placement
from spectrakit.errors import LabelError, MismatchError


@pytest.fixture(scope="module")
def stars():
    """120 simulated stars whose [Fe/H] scale is off by 0.4 dex: something that labels can teach."""
    spectra = sk.normalize(sk.simulate("miles", n=120, seed=5))
    labels = spectra.labels.copy()
    labels["feh"] = labels["feh"] + 0.4 * labels["feh"].unit
    return replace(spectra, labels=labels)


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


def test_encoder_adapters_and_full_fine_tuning_run(stars):
    for placement in (("lora1", "lora2"), ("full",)):
        fit = sk.adapt(sk.load_model("tiny"), stars[:20], label="feh", placement=placement, seed=0, steps=15)
        assert np.isfinite(fit.predict(stars[60:70])[0]).all() and fit.budget == 20


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
    with pytest.raises(MismatchError, match="matches no Linear of this network"):
        sk.adapt(model, stars[:50], label="feh", placement=(Placement("x", ("decoder.*",), 2, 4, ""),), seed=0)
