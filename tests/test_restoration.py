"""Restored spectra against loops, closed forms and an oracle; the answer may use nothing that is hidden."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import spectrakit as sk
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer, TransformerConfig
from spectrakit.restoration import PrincipalComponents, _check_visible, compare, hidden_pixels, interpolate, restore

CONFIG = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=1, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
ENCODER = SpectrumTransformer(CONFIG, seed=0).eval()


def chunks(encoder, n, seed=0):
    return encoder.draw_chunks(n, torch.Generator().manual_seed(seed))


def spectra(n, n_pix=57, seed=1):
    return 1 + 0.2 * np.random.default_rng(seed).standard_normal((n, n_pix))


class Oracle(SpectrumTransformer):
    """Answers with numbers it was given, (n, n_tok, width), whatever it is shown."""

    def __init__(self, answers, config=CONFIG):
        super().__init__(config, seed=0)
        self.restore, self.answers = torch.nn.Identity(), torch.as_tensor(answers, dtype=torch.float32)

    def encode(self, tokens, hidden=None, return_attention=False):
        return self.answers


# which pixels are hidden ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("drop", [False, True])
def test_hidden_are_pixels_of_hidden_windows_alone(drop):
    encoder = SpectrumTransformer(replace(CONFIG, drop_last=drop), seed=0)
    hidden = torch.as_tensor(np.random.default_rng(0).random((20, encoder.config.n_tok)) < 0.6)
    for row, found in zip(hidden, hidden_pixels(encoder, hidden), strict=True):
        for pixel in range(57):
            windows = [bool(row[1 + k]) for k, start in enumerate(encoder.config.starts) if start <= pixel < start + 8]
            assert found[pixel] == (len(windows) > 0 and all(windows))


def test_a_chunk_hides_90_of_its_110_pixels():
    encoder = SpectrumTransformer(replace(PRESETS["tiny"], drop_last=True, published_chunks=True), seed=0)
    hidden = chunks(encoder, 50)
    hidden = hidden[~hidden[:, 0]]                                                      # a chunk that begins at the statistics token has nine windows
    gone = hidden_pixels(encoder, hidden)
    assert (gone.sum(1) == 540 + 10 * hidden[:, 1].numpy()).all()                       # pixels 0-9 are in the first window alone
    assert not gone[:, 1460:].any()                                                     # no window has them: nothing to restore


# the network's answer ------------------------------------------------------------------------------------------------------------------------

def test_who_knows_the_tokens_gets_the_flux_back():
    flux, hidden = 1000 * spectra(5), chunks(ENCODER, 5)
    tokens = ENCODER.tokenize(torch.as_tensor(flux, dtype=torch.float32))
    gone = hidden_pixels(ENCODER, hidden)
    found = restore(Oracle(tokens), flux, hidden)
    np.testing.assert_allclose(found, flux, rtol=1e-5)
    assert np.array_equal(found[~gone], flux[~gone]) and not np.array_equal(found[gone], flux[gone])


def test_a_pixel_in_two_hidden_windows_is_their_mean_and_visible_windows_have_no_say():
    flux, hidden = spectra(1), torch.zeros(1, CONFIG.n_tok, dtype=torch.bool)
    hidden[0, 4:7] = True                                                               # windows 3, 4, 5: pixels 12-27
    answers = np.zeros((1, CONFIG.n_tok, 9))
    answers[0, :, 1:] = np.arange(CONFIG.n_tok)[:, None]
    z = (restore(Oracle(answers), flux, hidden) - flux.mean()) / flux.std()
    np.testing.assert_allclose(z[0, 16:20], 4.5, rtol=1e-5)
    np.testing.assert_allclose(z[0, 20:24], 5.5, rtol=1e-5)
    assert np.flatnonzero(hidden_pixels(ENCODER, hidden)[0]).tolist() == list(range(16, 24))


def test_without_the_leak_nothing_of_the_hidden_pixels_is_used():
    flux, hidden = spectra(4), chunks(ENCODER, 4)
    other = np.where(hidden_pixels(ENCODER, hidden), spectra(4, seed=9) - 3, flux)
    careful = SpectrumTransformer(replace(CONFIG, leak=False), seed=0).eval()
    assert np.array_equal(restore(careful, flux, hidden), restore(careful, other, hidden))
    assert np.abs(restore(ENCODER, flux, hidden) - restore(ENCODER, other, hidden))[hidden_pixels(ENCODER, hidden)].max() > 0.1


def test_answers_are_put_back_with_the_statistics_of_the_visible_pixels():
    careful = replace(PRESETS["tiny"], leak=False)
    flux, hidden = spectra(3, 1462), chunks(SpectrumTransformer(careful, 0), 3)
    gone = hidden_pixels(SpectrumTransformer(careful, 0), hidden)
    zeros, ones = (restore(Oracle(np.full((3, 147, 21), value), careful), flux, hidden) for value in (0.0, 1.0))
    for row in range(3):
        np.testing.assert_allclose(zeros[row, gone[row]], flux[row, ~gone[row]].mean(), rtol=1e-6)
        np.testing.assert_allclose((ones - zeros)[row, gone[row]], flux[row, ~gone[row]].std(), rtol=1e-5)


def test_answer_does_not_depend_on_the_batch(monkeypatch):
    flux, hidden = spectra(7), chunks(ENCODER, 7)
    whole = restore(ENCODER, flux, hidden)
    monkeypatch.setattr("spectrakit.restoration.BATCH", 3)
    np.testing.assert_allclose(restore(ENCODER, flux, hidden), whole, atol=1e-6)


# rivals --------------------------------------------------------------------------------------------------------------------------------------

def test_a_straight_spectrum_is_interpolated_exactly_and_the_last_value_held_at_the_ends():
    flux, gone = 2 + 0.1 * np.arange(20.0)[None], np.zeros((1, 20), bool)
    gone[0, 5:12] = gone[0, 17:] = True
    found = interpolate(flux, gone)
    np.testing.assert_allclose(found[0, :17], flux[0, :17])
    assert (found[0, 17:] == flux[0, 16]).all()


@pytest.fixture(scope="module")
def lowrank():
    """Three hidden variables, forty pixels, noise."""
    rng = np.random.default_rng(3)
    return 1 + rng.standard_normal((3000, 3)) @ rng.standard_normal((3, 40)) + 0.3 * rng.standard_normal((3000, 40))


def test_components_give_the_conditional_mean_of_their_gaussian(lowrank):
    """Independent: scikit-learn's model covariance and the formula of conditional Gaussians."""
    train, test = lowrank[:200], lowrank[200:220]
    gone = np.random.default_rng(0).random(test.shape) < 0.4
    reference = PCA(5, svd_solver="full").fit(train)
    covariance, found = reference.get_covariance(), PrincipalComponents.fit(train, 5).restore(test, gone)
    for row, hide in enumerate(gone):
        weights = np.linalg.solve(covariance[np.ix_(~hide, ~hide)], (test[row] - reference.mean_)[~hide])
        expected = reference.mean_[hide] + covariance[np.ix_(hide, ~hide)] @ weights
        np.testing.assert_allclose(found[row, hide], expected, rtol=1e-8)
        assert np.array_equal(found[row, ~hide], test[row, ~hide])


def test_first_components_are_those_fitted_alone(lowrank):
    few, cut = PrincipalComponents.fit(lowrank, 4), PrincipalComponents.fit(lowrank, 12).first(4)
    gone = np.arange(40) % 3 == 0
    np.testing.assert_allclose(cut.noise, few.noise, rtol=1e-10)
    np.testing.assert_allclose(cut.restore(lowrank[:9], np.tile(gone, (9, 1))), few.restore(lowrank[:9], np.tile(gone, (9, 1))), rtol=1e-8)


def test_the_number_of_components_is_found(lowrank):
    gone = np.random.default_rng(0).random((1000, 40)) < 0.5
    fitted = PrincipalComponents.fit(lowrank[:60], 30)
    assert len(fitted.best(lowrank[2000:], gone, (1, 2, 3, 10, 30)).variance) == 3
    np.testing.assert_allclose(PrincipalComponents.fit(lowrank, 3).noise, 0.3**2, rtol=0.05)


# scores --------------------------------------------------------------------------------------------------------------------------------------

def test_scores_in_closed_form():
    rng = np.random.default_rng(0)
    a, counted = rng.standard_normal((300, 51)), np.ones((300, 51), bool)
    table = compare({"a": a, "twice": 2 * a}, counted, np.arange(300)).set_index("method")
    np.testing.assert_allclose(table.rms, [np.sqrt((a**2).mean()), 2 * np.sqrt((a**2).mean())])
    np.testing.assert_allclose(table["median"], [np.median(abs(a)), 2 * np.median(abs(a))], rtol=1e-3)
    np.testing.assert_allclose(table.rms_less["twice"], -table.rms["a"])
    width = (table.rms_high - table.rms_low)["a"] / 2
    assert width == pytest.approx(np.sqrt(1 / (2 * a.size)), rel=0.25)                  # of the rms of independent Gaussians
    assert tuple(table.n) == tuple(table.n_stars) == (300, 300)


def test_only_counted_pixels_count():
    error, counted = np.full((4, 10), 0.5), np.zeros((4, 10), bool)
    error[:, 5:], counted[:, :5] = np.nan, True
    assert compare({"a": error}, counted, np.arange(4))["rms"][0] == 0.5


def test_intervals_are_over_stars():
    """The same spectra three times are no more stars, and a star's own level is no accident of its pixels."""
    rng = np.random.default_rng(0)
    error, counted = np.repeat(rng.lognormal(0, 0.5, (60, 1)), 40, 1), np.ones((60, 40), bool)
    once = compare({"a": error}, counted, np.arange(60))
    thrice = compare({"a": np.tile(error, (3, 1))}, np.tile(counted, (3, 1)), np.tile(np.arange(60), 3))
    assert (thrice.rms_low[0], thrice.rms_high[0]) == pytest.approx((once.rms_low[0], once.rms_high[0]))
    assert (thrice.n[0], thrice.n_stars[0]) == (180, 60)
    assert once.rms_high[0] - once.rms_low[0] > 0.1


# what is refused -----------------------------------------------------------------------------------------------------------------------------

def test_refusals():
    flux, hidden = spectra(2), chunks(ENCODER, 2)
    everything = torch.ones_like(hidden)
    with pytest.raises(MismatchError, match=r"hidden is \(2, 9\); expected \(n, 15\): one flag a token, the statistics token first."):
        restore(ENCODER, flux, hidden[:, :9])
    with pytest.raises(SpectrumError, match=r"2 spectra have no visible pixel \(first: 0\)"):
        restore(ENCODER, flux, everything)
    with pytest.raises(MismatchError, match=r"flux is \(2, 57\), the hidden pixels are \(2, 56\)"):
        _check_visible(flux, np.zeros((2, 56), bool))                                   # the public functions' shapes are checked before, under test
    with pytest.raises(SpectrumError, match="30 components from 20 spectra of 57 pixels; expected at least 1 and fewer than both."):
        PrincipalComponents.fit(spectra(20), 30)
    with pytest.raises(SpectrumError, match="9 components asked for; 8 were fitted."):
        PrincipalComponents.fit(spectra(20), 8).first(9)
    with pytest.raises(SpectrumError, match="2 stars: an interval over stars needs at least 3."):
        compare({"a": np.zeros((4, 5))}, np.ones((4, 5), bool), np.array(["x", "x", "y", "y"]))
    with pytest.raises(SpectrumError, match="A counted error is NaN or infinite; count usable pixels alone: gone & ~mask."):
        compare({"a": np.full((4, 5), np.nan)}, np.ones((4, 5), bool), np.arange(4))


# what the shipped network promises -----------------------------------------------------------------------------------------------------------

def beats_a_straight_line(stars):
    model = sk.load_model("small")
    flux, mask = (x.numpy() for x in model.prepare(stars))
    hidden = chunks(model.encoder, len(flux))
    gone = hidden_pixels(model.encoder, hidden)
    errors = {"network": restore(model.encoder, flux, hidden) - flux, "line": interpolate(flux, gone) - flux}
    table = compare(errors, gone & ~mask, np.asarray(stars.labels["star"])).set_index("method")
    return table.rms["network"] < 0.6 * table.rms["line"] and table.rms_less_high["line"] < 0 and table.median_less_high["line"] < 0


def test_beats_a_straight_line_on_models_it_never_saw():
    assert beats_a_straight_line(sk.simulate("lamost_lrs", 60, seed=1, models="held_out"))


@pytest.mark.requires_data("miles")
def test_beats_a_straight_line_on_real_stars():
    stars = sk.read("miles")
    stars = stars[stars.labelled("teff", "logg", "feh")]
    assert beats_a_straight_line(stars[sk.experiments.in_hull(stars)][::6])
