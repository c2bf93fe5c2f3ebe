"""The aligned pair as shipped: which encoder reads what, one space, translations on the other survey's grid, files, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.errors import LabelError, MismatchError, SpectrumError
from spectrakit.gaia_xp import WAVE
from spectrakit.models.aligned import AlignedModel
from spectrakit.models.shipped import SHIPPED, load_model
from spectrakit.surveys import LRS_GRID
from spectrakit.weights import load_tensors, save_tensors

MODEL = load_model("tiny_aligned")
PAIRS = sk.simulate_pairs("lamost_lrs", 24, seed=5)


def test_the_survey_decides_which_encoder_reads():
    lrs, xp = PAIRS.tensors()
    with torch.no_grad():
        np.testing.assert_allclose(MODEL.embed(PAIRS.lrs), MODEL.alignment.embed("lrs", lrs), atol=1e-5)
        np.testing.assert_allclose(MODEL.embed(PAIRS.xp), MODEL.alignment.embed("xp", xp), atol=1e-5)
    assert MODEL.embed(PAIRS.lrs).shape == MODEL.embed(PAIRS.xp).shape


def test_raw_spectra_are_normalised_first():
    labels = PAIRS.lrs.labels
    raw = sk.simulate("gaia_xp", 24, seed=2, labels=labels)
    np.testing.assert_array_equal(MODEL.embed(raw), MODEL.embed(sk.normalize(raw, "550nm")))
    raw = sk.simulate("lamost_lrs", 24, seed=2, labels=labels)
    np.testing.assert_array_equal(MODEL.embed(raw), MODEL.embed(sk.normalize(raw)))


def test_batches_do_not_matter_and_no_star_gives_none():
    np.testing.assert_allclose(MODEL.embed(PAIRS.xp, batch=5), MODEL.embed(PAIRS.xp), atol=1e-5)
    for stars in (PAIRS.lrs[:0], PAIRS.xp[:0]):
        assert MODEL.embed(stars).shape == (0, MODEL.embed(PAIRS.lrs).shape[1])


def test_masked_windows_are_hidden_from_the_embedding():
    mask = PAIRS.lrs.mask[:4].copy()
    mask[:, 300:340] = True
    changed = replace(PAIRS.lrs[:4], mask=mask)
    same = replace(changed, flux=np.where(changed.mask, 7.0, changed.flux))
    np.testing.assert_array_equal(MODEL.embed(changed), MODEL.embed(same))
    assert not np.allclose(MODEL.embed(changed), MODEL.embed(PAIRS.lrs[:4]), atol=1e-6)


@pytest.mark.parametrize("kind", ["lrs", "xp"])
def test_labels_are_the_heads_on_the_embedding(kind):
    stars = getattr(PAIRS, kind)
    value, sigma = MODEL.predict(stars, "feh")
    with torch.no_grad():
        expected = MODEL.heads[kind]["feh"](torch.as_tensor(MODEL.embed(stars)))[:, 0]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (sigma == MODEL.card.sigma[kind]["feh"]).all()


def test_translations_lie_on_the_other_surveys_grid():
    to_xp, to_lrs = MODEL.translate(PAIRS.lrs), MODEL.translate(PAIRS.xp)
    np.testing.assert_array_equal(to_xp.wave, WAVE)
    np.testing.assert_array_equal(to_lrs.wave, LRS_GRID)
    assert (to_xp.survey, to_xp.normalization) == ("gaia_xp", "550nm")
    assert (to_lrs.survey, to_lrs.normalization) == ("lamost_lrs", "robust")
    np.testing.assert_allclose(to_xp.ivar[3], MODEL.xp_error.double() ** -2, rtol=1e-5)
    assert to_xp.provenance["history"][-1] == "predicted from lamost_lrs"
    assert (to_xp.labels["star"] == PAIRS.lrs.labels["star"]).all()


def test_encoder_is_the_spectrum_models_bit_for_bit():
    for name in ("small", "tiny"):
        alone, pair = load_model(name), load_model(f"{name}_aligned")
        for key, value in alone.encoder.state_dict().items():
            assert torch.equal(value, pair.alignment.lrs.state_dict()[key]), key
        assert alone.card == pair.card.lrs


def test_a_saved_model_is_the_same_model(tmp_path):
    MODEL.save(tmp_path / "pair.safetensors")
    again = AlignedModel.load(tmp_path / "pair.safetensors")
    np.testing.assert_array_equal(again.translate(PAIRS.xp).flux, MODEL.translate(PAIRS.xp).flux)
    assert again.card == MODEL.card


def test_files_of_another_kind_or_library_are_refused(tmp_path):
    sk.load_model("tiny").save(tmp_path / "one.safetensors")
    with pytest.raises(MismatchError, match="holds 'foundation', not an aligned model"):
        AlignedModel.load(tmp_path / "one.safetensors")
    MODEL.save(tmp_path / "pair.safetensors")
    tensors, meta = load_tensors(tmp_path / "pair.safetensors")
    meta["card"]["xp_library_sha256"] = "0" * 64
    save_tensors(tmp_path / "pair.safetensors", tensors, meta)
    with pytest.raises(MismatchError, match="The model pair.safetensors"):
        AlignedModel.load(tmp_path / "pair.safetensors")


def test_what_the_encoders_cannot_read_is_refused():
    gap = PAIRS.xp[[0, 1, 2]]
    gap.mask[1, :40] = True
    with pytest.raises(SpectrumError, match=r"1 of 3 XP spectra have masked points \(first: spectrum 1\), sources without BP perhaps"):
        MODEL.embed(gap)
    with pytest.raises(MismatchError, match="The XP spectra were normalised by 'mine', this model was trained on '550nm'"):
        MODEL.embed(replace(PAIRS.xp, normalization="mine"))
    with pytest.raises(LabelError, match="No head for 'mass'; this model has: teff, logg, feh, alpha_fe."):
        MODEL.predict(PAIRS.xp, "mass")


def test_shipped_weights_are_small_enough():
    from spectrakit.models import shipped
    folder = shipped.files("spectrakit") / "assets"
    specclip = [name for name, kind in SHIPPED.items() if kind in (shipped.FoundationModel, shipped.AlignedModel)]
    assert sum((folder / f"{name}.safetensors").stat().st_size for name in specclip) < 30e6
    assert sum(p.numel() for p in load_model("small").parameters()) < 3e6
    assert load_model("small_aligned").alignment.xp.config.d_latent <= 32
