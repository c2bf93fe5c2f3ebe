"""SpectraFM: counts, pixels as tokens against loops, what it reads and refuses, what it may not see, its questions, its files."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.continuum import normalize
from spectrakit.errors import LabelError, MismatchError, SpectrumError
from spectrakit.library import LABELS, load_library
from spectrakit.models.pixel_tokens import FLUX, bin_pixels
from spectrakit.models.scratch import ScratchNetwork
from spectrakit.models.shipped import ASSETS, load_model
from spectrakit.models.spectra_fm import IDENTITY, PRESETS, SpectraFM, SpectraFMCard
from spectrakit.models.tokens import PADDING, Tokens
from spectrakit.pretraining import pixels as pretraining
from spectrakit.pretraining.pixels import SPANS, SURVEYS, SpectraTokens
from spectrakit.pretraining.requests import RequestLoss
from spectrakit.simulation import simulate
from spectrakit.surveys import APOGEE, COMMON, H_BAND
from spectrakit.training import TrainConfig, train

pytestmark = pytest.mark.usefixtures("single_thread")


def card(size="tiny", training=True):
    sha = {name: load_library(name).sha256 for name in ("optical", "hband")}
    return SpectraFMCard(PRESETS[size], "robust", SPANS, sha, {}, {"steps": 0} if training else {})


@pytest.fixture(scope="module")
def model():
    return SpectraFM(card(), seed=0).eval()


@pytest.fixture(scope="module")
def stars():
    return simulate("lamost_lrs", 6, seed=1)


@pytest.fixture(scope="module")
def giants():
    return simulate("apogee", 4, seed=1)


def changed(stars, rows, columns, value=7.0, **more):
    flux = stars.flux.copy()
    flux[rows, columns] = value
    return replace(stars, flux=flux, **more)


# sizes ---------------------------------------------------------------------------------------------------------------------------------------

def test_paper_size_has_no_dead_rows():
    """The published file: 11,870,722. It has two rows of 256 for each of 7,514 pixels, which all use the first; here there is that one."""
    paper = card("paper")
    with torch.device("meta"):
        network = SpectraFM(paper).network
    count = lambda module: sum(p.numel() for p in module.parameters())                                   # noqa: E731
    assert count(network) == 8_024_066 == 11_870_722 - 2 * 256 * (7514 - 1)
    assert count(network.encoder) == 2_105_856
    assert count(network.decoder) + count(network.head) + count(network.mean) + count(network.log_variance) == 5_914_626
    assert count(network.embedding) == 2 * 256 * 7 == 3_850_240 - 2 * 256 * 7513


def test_every_row_is_used(stars, giants):
    """Padding aside, which is never looked at: flux and five labels."""
    assert sorted(IDENTITY.values()) == list(range(1, 7))


def test_network_from_scratch():
    network = ScratchNetwork(seed=0)
    assert sum(p.numel() for p in network.parameters()) == 4_987_138
    mean, log_variance = network.eval()(torch.zeros(3, 512))
    assert mean.shape == log_variance.shape == (3,)


def test_small_can_be_shipped():
    assert 4 * sum(p.numel() for p in SpectraFM(card("small")).parameters()) < 10e6


# pixels as tokens ----------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_bins_against_a_loop(n_pix, width, seed):
    rng = np.random.default_rng(seed)
    wave, resolution = 5000 * np.exp(1e-4 * np.arange(n_pix)), np.full(n_pix, 2000.0)
    flux, error, mask = rng.normal(1, 0.1, (2, n_pix)), rng.uniform(0.01, 0.1, (2, n_pix)), rng.random((2, n_pix)) < 0.4
    bins = bin_pixels(wave, resolution, *(torch.as_tensor(x, dtype=torch.float32) for x in (flux, error)), torch.as_tensor(mask), width)
    for i, first in enumerate(range(0, n_pix, width)):
        part = slice(first, min(first + width, n_pix))
        assert bins.wave[i].item() == pytest.approx(wave[part].mean(), rel=1e-6)
        for star in range(2):
            good = ~mask[star, part]
            assert bool(bins.mask[star, i]) == (good.sum() < good.size / 2)
            if bins.mask[star, i]:
                assert bins.flux[star, i] == bins.error[star, i] == 0
            else:
                assert bins.flux[star, i].item() == pytest.approx(flux[star, part][good].mean(), rel=1e-5)
                assert bins.error[star, i].item() == pytest.approx(np.sqrt((error[star, part][good] ** 2).sum()) / good.sum(), rel=1e-5)


def test_wide_bins_are_less_sharp():
    """A box as wide as 4 line spreads: 0.68 times 4 for a Gaussian of the same variance, added in squares."""
    wave = np.linspace(5000, 5100, 1001)
    narrow, wide = (bin_pixels(wave, np.full(1001, 5000.0), torch.ones(1, 1001), torch.ones(1, 1001), torch.zeros(1, 1001, dtype=torch.bool), w) for w in (1, 40))
    assert narrow.resolution == pytest.approx(np.full(1001, 5000.0))
    assert wide.resolution[5].item() == pytest.approx(5000 / np.hypot(1, 0.68 * 4), rel=0.01)


def test_unusable_bins_are_padding():
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 2:4] = True
    tokens = bin_pixels(np.linspace(5000, 5005, 6), np.full(6, 2000.0), torch.ones(1, 6), torch.ones(1, 6), mask, 2).tokens()
    assert tokens.identity.tolist() == [[FLUX, PADDING, FLUX]]
    assert tokens.value.tolist() == [[1.0, 0.0, 1.0]]
    assert tokens.wave[0, 1] == 0


# what it reads -------------------------------------------------------------------------------------------------------------------------------

def test_whole_spectra_fit_into_one_context(model, stars, giants):
    for spectra, span in ((stars, COMMON), (giants, H_BAND)):
        bins = model.bins(spectra)
        assert 64 < bins.wave.numel() <= 128
        assert span[0] <= bins.wave[0] <= span[0] + 30
        assert span[1] - 30 <= bins.wave[-1] <= span[1] + 1


def test_raw_and_normalised_spectra_are_the_same(model, stars):
    done = normalize(stars, "robust", stars.wave[(stars.wave >= COMMON[0]) & (stars.wave <= COMMON[1])])
    assert np.allclose(model.predict(done, "feh"), model.predict(stars, "feh"), atol=1e-6)


def test_any_grid_and_medium(model):
    for survey in ("miles", "stelib", "desi"):
        value, sigma = model.predict(simulate(survey, 3, seed=2), "teff")
        assert np.isfinite(value).all()
        assert (sigma > 0).all()


def test_bad_pixels_change_nothing(model, stars):
    """Whatever lies under a mask, NaN included; and a mask is what ivar = 0 is."""
    mask, ivar = stars.mask.copy(), stars.ivar.copy()
    mask[:, 300:340], ivar[:, 300:340] = True, 0.0
    expected = model.request(replace(stars, mask=mask), ["teff", "feh"])
    for other in (changed(stars, slice(None), slice(300, 340), np.nan, mask=mask), changed(stars, slice(None), slice(300, 340), ivar=ivar)):
        for name, answer in model.request(other, ["teff", "feh"]).items():
            assert np.allclose(answer, expected[name], atol=1e-6)
    assert not np.allclose(model.predict(stars, "feh")[0], expected["feh"][0], rtol=1e-6)


def test_errors_of_fluxes_are_read(model, stars):
    done = model.prepare(stars)
    assert not np.allclose(model.predict(done, "feh")[0], model.predict(replace(done, ivar=done.ivar / 25), "feh")[0], rtol=1e-5)


def test_wrong_spectra_are_refused(model, stars):
    with pytest.raises(MismatchError, match="The spectra are in the heliocentric frame, this model reads rest-frame ones"):
        model.predict(replace(stars, frame="heliocentric"), "feh")
    with pytest.raises(MismatchError, match="normalised by 'specclip', this model was trained on 'robust'; give it the raw spectra."):
        model.predict(normalize(stars, "specclip"), "feh")
    with pytest.raises(MismatchError, match=r"The spectra cover 4501-5599 A, none of 3960-5640 A, 15157-16950 A as a whole"):
        cut = (stars.wave > 4500) & (stars.wave < 5600)
        model.predict(stars.with_flux(stars.wave[cut], stars.flux[:, cut], stars.ivar[:, cut], stars.mask[:, cut], stars.resolution[cut],
                                      normalization="none", step="cut"), "feh")
    with pytest.raises(MismatchError, match=r"wavelengths \(first: 5960 A\) lie outside what this model was trained on, 3960-5640, 15157-16950 A in vacuum."):
        done = model.prepare(stars)
        model.predict(done.with_flux(done.wave + 2000, done.flux, done.ivar, done.mask, done.resolution, normalization="robust", step="moved"), "feh")


# what it answers -----------------------------------------------------------------------------------------------------------------------------

def test_labels_together_and_alone(model, stars):
    together = model.request(stars, LABELS)
    assert tuple(together) == LABELS
    for name, (value, sigma) in together.items():
        alone = model.predict(stars, name)
        assert np.allclose(alone, (value, sigma), rtol=1e-5, atol=1e-5)
        assert value.shape == sigma.shape == (6,)
        assert (sigma > 0).all()


def test_known_labels_are_told(model, stars):
    without = model.predict(stars, "feh")[0]
    teff = np.array(stars.label("teff"))
    told = model.request(stars, ["feh"], known={"teff": teff})["feh"][0]
    assert not np.allclose(told, without, rtol=1e-6)
    teff[2] = np.nan
    partly = model.request(stars, ["feh"], known={"teff": teff})["feh"][0]
    assert partly[2] == pytest.approx(without[2], abs=1e-5)
    assert partly[3] == pytest.approx(told[3], abs=1e-5)


def test_flux_at_does_not_see_the_flux(model, stars):
    """Pixels around 5170 A are hidden when the flux there is asked for: another flux under them changes nothing. Unhidden they do."""
    wave, done = np.array([5165.0, 5170.0, 5175.0]), model.prepare(stars)
    near = np.flatnonzero((done.wave > 5166) & (done.wave < 5174))
    other = changed(done, slice(None), near, 0.2)
    assert np.allclose(model.flux_at(done, wave), model.flux_at(other, wave), atol=1e-6)
    assert not np.allclose(model.flux_at(done, wave, hide=False), model.flux_at(other, wave, hide=False), rtol=1e-6)


def test_flux_from_labels_alone(model, stars):
    labels = {name: stars.label(name) for name in LABELS}
    flux, sigma = model.flux_at(None, np.array([4500.0, 5500.0, 16000.0]), 2000.0, known=labels)
    assert flux.shape == sigma.shape == (6, 3)
    sharp, _ = model.flux_at(None, np.array([4500.0]), np.array([4000.0]), known=labels)
    assert not np.allclose(sharp[:, 0], flux[:, 0], rtol=1e-6), "the resolving power asked for matters"


def test_flux_of_another_instrument(model, stars):
    flux, _ = model.flux_at(stars, np.array([15500.0, 16000.0]), 22500.0)
    assert flux.shape == (6, 2)
    with pytest.raises(MismatchError, match="do not cover these wavelengths, .* give resolution=2000.0, say."):
        model.flux_at(stars, np.array([15500.0]))


@pytest.mark.parametrize(("ask", "error", "says"), [
    (lambda m, s: m.predict(s, "mg_fe"), LabelError, "No label 'mg_fe'; this model knows: teff, logg, feh, alpha_fe, c_fe. Fluxes are asked for with flux_at."),
    (lambda m, s: m.request(s, ["feh"], known={"feh": np.ones(6)}), LabelError, "'feh' is known and asked for: the answer would be a copy."),
    (lambda m, s: m.request(s, ["feh"], known={"teff": np.ones(3)}), LabelError, r"'teff' has shape \(3,\); expected \(6,\), one value a star, NaN where"),
    (lambda m, s: m.request(None, ["feh"]), LabelError, "Neither spectra nor known labels were given; the answer would be the mean of all stars."),
    (lambda m, s: m.flux_at(s, np.array([8000.0])), MismatchError, r"1 of 1 wavelengths \(first: 8000 A\) lie outside what this model was trained on"),
    (lambda m, s: m.flux_at(s, s.wave), SpectrumError, "Every usable token covers a wavelength asked for; nothing would be left to predict from."),
])
def test_questions_that_make_no_sense(model, stars, ask, error, says):
    with pytest.raises(error, match=says):
        ask(model, stars)


def test_untrained_model_gives_no_numbers(stars):
    with pytest.raises(MismatchError, match="This model is untrained: its answers are random numbers. Use a shipped one"):
        SpectraFM(card(training=False)).predict(stars, "feh")


def test_attention_and_gradients(model, giants):
    maps = model.attention(giants, ["feh", "teff"])
    bins = model.bins(giants)
    assert maps.shape == (4, 2, 2, 2, bins.wave.numel())
    assert torch.allclose(maps.sum(-1), torch.ones(4, 2, 2, 2), atol=1e-6)
    assert not maps.movedim(-1, 1)[bins.mask].any(), "detector gaps get none"
    context = model.context(giants)
    value = context.value.clone().requires_grad_()
    none = torch.zeros(4, 1)
    answer, _ = model(context._replace(value=value), Tokens(torch.full((4, 1), IDENTITY["feh"]), none, none, none, none))
    answer.sum().backward()
    assert torch.equal(value.grad != 0, context.identity != PADDING)


# questions -----------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def stream():
    return SpectraTokens(64, 16, seed=0, n_stars=32, epochs=8, surveys=SURVEYS[:2])


def halves(parts):
    return Tokens(*parts[:5]), Tokens(*parts[5:])


def test_what_is_asked_for_is_not_in_the_context(stream):
    """Neither a label nor, among tokens of one survey and width, a pixel."""
    for step in range(16):
        context, requests = halves(stream(step))
        labels = lambda t: [{i for i in row if i > FLUX} for row in t.identity.tolist()]                  # noqa: E731
        for told, asked in zip(labels(context), labels(requests), strict=True):
            assert not told & asked
            assert len(told) + len(asked) == 5
        same = requests.wave[:, :pretraining.N_SAME]
        for told, asked in zip(context.wave, same, strict=True):
            assert not set(told[told > 0].tolist()) & set(asked[asked > 0].tolist())


def test_every_star_has_pixels_of_its_own(stream):
    context, _ = halves(stream(0))
    assert len({tuple(row) for row in context.wave.tolist()}) == 16
    bad = [(halves(stream(step))[0].identity[:, :-5] == PADDING).float().mean().item() for step in range(7)]
    assert 0 < np.mean(bad) < 0.1


def test_each_eighth_batch_tells_labels_alone(stream):
    context, requests = halves(stream(7))
    assert context.identity.shape == (16, 5)
    assert (requests.wave > 0).any()


def test_questions_depend_on_the_step_alone(stream):
    again = SpectraTokens(64, 16, seed=0, n_stars=32, epochs=8, surveys=SURVEYS[:2])
    again(9)
    assert all(torch.equal(a, b) for a, b in zip(stream(3), again(3), strict=True))


def test_fluxes_are_those_of_the_spectra(stream):
    """A request's flux is the mean of the block's pixels around its wavelength, bad ones left out: within the spread of these pixels."""
    blocks, labels = stream.block(0)
    for row in range(2):
        block, generator = blocks[0], torch.Generator().manual_seed(row)
        bins = block.bins(torch.tensor([row]), 4, generator)
        good = ~bins.mask[0]
        own = block.flux[row, :4 * (block.flux.shape[1] // 4)].view(-1, 4)
        mean = own.mean(1)
        k = len(mean)
        assert (bins.flux[0, :k] - mean)[good[:k]].abs().max() < (own.amax(1) - own.amin(1)).max()
        assert (bins.flux[0, :k] - mean)[good[:k]].abs().median() < 1e-5


# training and files --------------------------------------------------------------------------------------------------------------------------

def test_training_resumes_and_saved_is_loaded(tmp_path, stream, stars):
    model = SpectraFM(card(), seed=1)
    config = TrainConfig(steps=3, lr=1e-3, seed=0, warmup=2, save_every=1)
    train(RequestLoss(model.network), stream, config, tmp_path, "spectra_fm")
    header = (tmp_path / "spectra_fm.csv").read_text().splitlines()[0]
    assert header == "step,loss,lr,labels,flux"
    again = SpectraFM(card(), seed=2)
    train(RequestLoss(again.network), stream, config, tmp_path, "spectra_fm")
    model.save(tmp_path / "model.safetensors")
    loaded = SpectraFM.load(tmp_path / "model.safetensors")
    assert json.dumps(asdict(loaded.card)) == json.dumps(asdict(model.card))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert np.array_equal(loaded.predict(stars, "teff"), model.predict(stars, "teff"))
    model.card = replace(model.card, library_sha256={"hband": "ab" * 32})
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(MismatchError, match="The model model.safetensors was made with library abababababab"):
        SpectraFM.load(tmp_path / "model.safetensors")


def test_calibrated_sigmas_cover_two_thirds(monkeypatch, model):
    """In each span as many of the held-out stars as should lie within one sigma do, whatever the other span's sigmas are."""
    surveys = (pretraining.CALIBRATION[0], pretraining.CALIBRATION[-1])
    monkeypatch.setattr(pretraining, "CALIBRATION", surveys)
    model = SpectraFM(card(), seed=3)
    model.network.centre[2:] = torch.tensor([5500.0, 3.5, -0.8, 0.15, 0.0])
    scatter = pretraining.calibrate_spectra_fm(model, seed=5, n=64)
    for i, survey in enumerate(surveys):
        assert set(scatter[survey.name]) == set(LABELS)
        held = simulate(survey, 64, 5 + i)
        for name, (value, sigma) in model.request(held, LABELS).items():
            assert np.mean(np.abs(value - held.label(name)) < sigma) == pytest.approx(0.6827, abs=0.02), (survey.name, name)
    assert (model.network.stretch[1, 2:] != model.network.stretch[2, 2:]).all() and (model.network.stretch[0] == 1).all()


def test_h_band_training_survey_has_no_gaps():
    """Gaps would be learnt as the only padding; bad pixels are drawn instead."""
    assert not SURVEYS[2].unusable().any()
    assert APOGEE.unusable().any()
    assert isinstance(simulate(SURVEYS[2], 2, 0).labels, Table)


@pytest.mark.parametrize(("survey", "feh"), [("lamost_lrs", 0.2), ("apogee", 0.2)])
def test_shipped_model_reads_two_instruments(survey, feh):
    """512 simulated stars of each: scatter of [Fe/H] (dex), 68 % of the truths within one sigma, and fluxes better than the mean spectrum."""
    assert (ASSETS / "small_spectrafm.safetensors").stat().st_size <= 10e6
    stars, model = simulate(survey, 512, seed=777), load_model("small_spectrafm")
    value, sigma = model.predict(stars, "feh")
    residual = value - stars.label("feh")
    assert 1.4826 * np.median(np.abs(residual)) < feh
    assert np.mean(np.abs(residual) < sigma) == pytest.approx(0.68, abs=0.08)
    bins = model.bins(few := stars[np.arange(64)])
    chosen = np.flatnonzero(~bins.mask.any(0).numpy())[20::30]
    flux, _ = model.flux_at(few, bins.wave.double().numpy()[chosen])                    # as sharp as the tokens, not as the pixels
    own = bins.flux.numpy()[:, chosen]
    assert np.std(flux - own) < np.std(own - own.mean(0))
