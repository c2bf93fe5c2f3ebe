"""The model as one uses it: offline, the same answer for raw and normalised spectra, and a refusal of everything it was not made for."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrakit.continuum import fill_masked, normalize
from spectrakit.errors import DataFileError, LabelError, MismatchError, SpectrumError
from spectrakit.library import load_library
from spectrakit.models import foundation, shipped
from spectrakit.models.foundation import HEAD_LABELS, FoundationModel, new_model
from spectrakit.models.shipped import load_model
from spectrakit.population import draw
from spectrakit.resolution import degrade
from spectrakit.simulation import observe, simulate
from spectrakit.surveys import LAMOST, LRS_GRID
from spectrakit.weights import load_tensors, save_tensors

ASSET = Path(str(files("spectrakit") / "assets" / "tiny.safetensors"))
STARS = simulate("lamost_lrs", 5, seed=11)
NORMAL = normalize(STARS)


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def resaved(tmp_path, change=None, **meta):
    """A copy of the shipped file after ``change(tensors)`` and with other entries of the card."""
    tensors, old = load_tensors(ASSET)
    if change:
        change(tensors)
    old["card"].update(meta)
    save_tensors(tmp_path / "changed.safetensors", tensors, old)
    return tmp_path / "changed.safetensors"


# use -----------------------------------------------------------------------------------------------------------------------------------------

def test_embedding_is_the_encoder_on_the_normalised_flux(tiny):
    z = tiny.embed(STARS)
    assert z.shape == (5, tiny.card.encoder.d_model)
    assert z.dtype == np.float32
    with torch.no_grad():
        expected = tiny.encoder(torch.as_tensor(fill_masked(NORMAL), dtype=torch.float32))
    np.testing.assert_allclose(z, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert (z.std(0) > 0).all()


def test_raw_and_normalised_spectra_give_the_same(tiny):
    np.testing.assert_array_equal(tiny.embed(STARS), tiny.embed(NORMAL))
    for label in HEAD_LABELS:
        np.testing.assert_array_equal(tiny.predict(STARS, label)[0], tiny.predict(NORMAL, label)[0])


def test_prediction_is_the_head_on_the_embedding_with_the_scatter_of_the_card(tiny):
    for label in HEAD_LABELS:
        value, sigma = tiny.predict(STARS, label)
        with torch.no_grad():
            expected = tiny.heads[label].eval()(torch.as_tensor(tiny.embed(STARS)))[:, 0]
        np.testing.assert_allclose(value, expected.numpy(), rtol=1e-5, atol=1e-5)
        assert value.shape == sigma.shape == (5,)
        assert (sigma == tiny.card.sigma[label]).all()
        assert (sigma > 0).all()


def test_shipped_weights_know_stars(tiny):
    """Better than guessing the mean by a factor of two, on stars they have not seen."""
    stars = simulate("lamost_lrs", 100, seed=77)
    for label in ("teff", "feh"):
        truth = stars.label(label)
        assert np.std(tiny.predict(stars, label)[0] - truth) < 0.6 * truth.std(), label


def test_batches_and_single_stars(tiny):
    whole = tiny.embed(STARS)
    np.testing.assert_allclose(tiny.embed(STARS, batch=2), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tiny.embed(STARS[3]), whole[3:4], rtol=1e-5, atol=1e-5)
    assert tiny.embed(STARS[:0]).shape == (0, 32)


def test_masked_pixels_are_left_out(tiny):
    """What is masked is bridged, and windows that are mostly masked do not count: the embedding moves little, and not by what is there."""
    mask = STARS.mask.copy()
    mask[:, 600:640] = True
    hit = replace(STARS, flux=np.where(mask, 1e6, STARS.flux).astype("f4"), mask=mask)
    moved = np.abs(tiny.embed(hit) - tiny.embed(STARS)).mean()
    assert 0 < moved < 0.1 * np.abs(tiny.embed(STARS)).mean()


def test_predicting_turns_training_off():
    model = load_model("tiny").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one = model.predict(STARS, "feh")[0]
    np.testing.assert_array_equal(model.predict(STARS, "feh")[0], one)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_miles_and_air_go_in_as_they_are(tiny):
    assert np.isfinite(tiny.predict(simulate("miles", 3, seed=0), "teff")[0]).all()


def test_sharper_spectra_give_the_same_once_degraded():
    """[Fe/H] of the same stars at 1.6, 2.3 and 1 times the resolution: hardly moved, far too low, and mended by what the message names."""
    model, library = load_model("small"), load_library()
    labels = draw("lamost", 40, np.random.default_rng(0), library)

    def seen(resolution):
        survey = replace(LAMOST, fwhm=(4000 / resolution, 1.0), snr=(300.0, 300.1))
        systematics = LAMOST.systematics.scaled(0.0)
        return observe(lambda rows: library.opacity(torch.as_tensor(labels[rows])), labels, survey, library, np.random.default_rng(1), systematics)

    made, sharper, sharp = (seen(r) for r in (1800, 2900, 4200))
    moved = lambda stars: np.median(model.predict(stars, "feh")[0] - model.predict(made, "feh")[0])                  # noqa: E731
    blind = replace(sharp, resolution=made.resolution)
    assert abs(moved(sharper)) < 0.07
    assert moved(blind) < -0.08
    assert abs(moved(degrade(sharp, 1800))) < 0.02


def test_card(tiny):
    np.testing.assert_allclose(tiny.card.grid, LRS_GRID, rtol=1e-14)
    assert tiny.card.recipe == "robust"
    assert set(tiny.card.sigma) == set(HEAD_LABELS)
    assert json.loads(json.dumps(asdict(tiny.card)))["training"]["seed"] == tiny.card.training["seed"]


# refusals ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "error", "says"), [
    (lambda: normalize(STARS, "specclip"), MismatchError, "normalised by 'specclip', this model was trained on 'robust'; give it the raw spectra."),
    (lambda: normalize(STARS, "robust", np.linspace(4000, 5600, 1462)), MismatchError, "have 1462 pixels over 4000.0-5600.0 A, this model needs 1462 over 3999.4"),
    (lambda: replace(NORMAL, medium="air"), MismatchError, "are on air wavelengths, this model on vacuum"),
    (lambda: replace(NORMAL, frame="heliocentric"), MismatchError, "in the heliocentric frame, this model reads rest-frame ones: .*to_rest"),
    (lambda: replace(STARS, frame="heliocentric"), MismatchError, "in the heliocentric frame"),
    (lambda: replace(STARS, wave=STARS.wave + 100), MismatchError, "The spectra cover 4060-5739 A; the continuum is fitted over 3960-5640 A"),
    (lambda: replace(NORMAL, mask=np.ones_like(NORMAL.mask)), SpectrumError, "5 of 5 spectra are masked altogether"),
    (lambda: replace(STARS, mask=np.ones_like(STARS.mask)), SpectrumError, "5 of 5 spectra have less than 80% of their pixels usable"),
    (lambda: replace(STARS, flux=-STARS.flux), SpectrumError, "The continuum of 5 spectra is not positive"),
    (lambda: replace(NORMAL, flux=np.ones_like(NORMAL.flux)), SpectrumError, "A spectrum is constant"),
    (lambda: replace(STARS, resolution=11 * STARS.resolution), MismatchError,
     r"have a resolving power of 19800, this model was pretrained on 1800 and reads 1260 to 3060: .* sk.degrade\(stars, 1800\)"),
    (lambda: replace(NORMAL, resolution=0.55 * NORMAL.resolution), MismatchError, "have a resolving power of 990, .*What they have lost does not come back"),
    (lambda: replace(STARS, resolution=np.nan * STARS.resolution), MismatchError, "have a resolving power of nan"),
], ids=["recipe", "grid", "medium", "frame", "raw frame", "range", "all masked", "raw all masked", "negative", "constant",
        "too sharp", "too blurred", "sharpness unknown"])
def test_spectra_it_was_not_made_for(tiny, change, error, says):
    stars = change()
    for call in (tiny.embed, lambda s: tiny.predict(s, "feh")):
        with pytest.raises(error, match=says):
            call(stars)


def test_untrained_models_do_not_predict():
    model = new_model("tiny", survey="pretraining", recipe="robust", seed=0)
    with pytest.raises(MismatchError, match="This model is untrained: its heads give random numbers, .*sk.load_model"):
        model.predict(STARS, "feh")
    assert model.embed(STARS).shape == (5, 32)


def test_label_without_a_head(tiny):
    with pytest.raises(LabelError, match="No head for 'c_fe'; this model has: teff, logg, feh, alpha_fe."):
        tiny.predict(STARS, "c_fe")


# files ---------------------------------------------------------------------------------------------------------------------------------------

def test_round_trip_is_exact(tiny, tmp_path):
    tiny.save(tmp_path / "copy.safetensors")
    copy = FoundationModel.load(tmp_path / "copy.safetensors")
    assert copy.card == tiny.card
    assert not copy.training
    for name, value in tiny.state_dict().items():
        assert torch.equal(value, copy.state_dict()[name]), name
    np.testing.assert_array_equal(copy.embed(STARS), tiny.embed(STARS))
    copy.save(tmp_path / "again.safetensors")
    first, second = (load_tensors(tmp_path / name) for name in ("copy.safetensors", "again.safetensors"))
    assert first[1] == second[1]
    assert all(torch.equal(value, second[0][name]) for name, value in first[0].items())


def test_copies_are_independent():
    one, other = load_model("tiny"), load_model("tiny")
    expected = other.embed(STARS)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1.0)
    one.card.sigma["feh"] = 99.0
    np.testing.assert_array_equal(other.embed(STARS), expected)
    assert other.card.sigma["feh"] < 1
    np.testing.assert_array_equal(load_model("tiny").embed(STARS), expected)
    assert load_model("tiny").card.sigma["feh"] < 1


def test_shipped_models_load_offline_in_evaluation_mode(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("load_model went to the network"))
    shipped._shipped.cache_clear()
    assert not load_model("tiny").training


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(MismatchError, match="No shipped model 'huge'; there are: small, tiny, small_flux, small_aligned, tiny_aligned.* A file of your own"):
        load_model("huge")


@pytest.mark.parametrize("cut", [0, 7, 100, 2000, -1])
def test_truncated_weights(tmp_path, cut):
    (tmp_path / "cut.safetensors").write_bytes(ASSET.read_bytes()[:cut])
    with pytest.raises(DataFileError, match="cut.safetensors cannot be read .*: it is truncated, corrupted, or not written by this package"):
        FoundationModel.load(tmp_path / "cut.safetensors")


def test_corrupted_weights(tmp_path):
    content = bytearray(ASSET.read_bytes())
    content[-1000] ^= 0x10
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(DataFileError, match=r"bad.safetensors has changed since it was written .*: the file is corrupted."):
        FoundationModel.load(tmp_path / "bad.safetensors")


def test_weights_that_are_no_numbers(tmp_path):
    path = resaved(tmp_path, lambda t: t["encoder.position"].view(-1)[3:4].fill_(torch.nan))
    with pytest.raises(DataFileError, match="changed.safetensors holds NaN or infinite numbers in encoder.position: it must not be used."):
        FoundationModel.load(path)


def test_weights_of_another_library(tmp_path):
    path = resaved(tmp_path, library_sha256="ab" * 32)
    with pytest.raises(MismatchError, match="The model changed.safetensors was made with library abababababab, the one installed is .*: its labels would be wrong."):
        FoundationModel.load(path)


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.pop("encoder.norm.weight"), r"The weights do not fit the model: missing \['encoder.norm.weight'\], unknown nothing."),
    (lambda t: t.update({"encoder.extra": torch.zeros(1)}), r"missing nothing, unknown \['encoder.extra'\]"),
    (lambda t: t.update({"encoder.k": t.pop("encoder.position")}), r"missing \['encoder.position'\], unknown \['encoder.k'\]"),
    (lambda t: t.update({"encoder.position": torch.zeros(150, 31)}), r"encoder.position has shape \(150, 31\); the model needs \(150, 32\)."),
])
def test_names_and_shapes_that_do_not_fit(tmp_path, change, says):
    with pytest.raises(MismatchError, match=says):
        FoundationModel.load(resaved(tmp_path, change))


def test_another_kind_of_file_of_ours():
    path = ASSET.parent / "library_optical.safetensors"
    with pytest.raises(MismatchError, match="library_optical.safetensors holds 'something', not a foundation model."):
        FoundationModel.load(path)


def test_new_models_differ_by_seed_alone():
    one, again, other = (new_model("tiny", survey="pretraining", recipe="robust", seed=seed) for seed in (0, 0, 1))
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(one.heads["feh"].linears[0].weight, other.heads["feh"].linears[0].weight)
    small = new_model("small", survey="pretraining", recipe="robust", seed=0)
    assert sum(p.numel() for p in small.encoder.parameters()) < 3_000_000


# importing -----------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("code", "absent"), [
    ("import spectrakit", "torch peft transformers specutils accelerate sklearn matplotlib pandas"),
    ("import spectrakit.models.foundation", "peft transformers specutils accelerate sklearn matplotlib"),
    ("import spectrakit; spectrakit.load_model; spectrakit.simulate", "peft transformers specutils accelerate sklearn matplotlib"),
])
def test_importing_stays_light(code, absent):
    script = f"{code}\nimport sys; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    root = Path(foundation.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split() == []
