"""Attributions against closed forms, numerical derivatives and their own axioms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.attention import attention_maps
from spectrakit.models.heads import LabelHead
from spectrakit.models.spectra_fm import PRESETS, SpectraFM, SpectraFMCard
from spectrakit.models.spectrum_transformer import SpectrumTransformer, TransformerConfig
from spectrakit.saliency import gradients, integrated_gradients, label_function, occlusion, pixel_scores, request_scores

WEIGHT = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))


def linear(flux):
    return flux @ WEIGHT.T.to(flux)


def bent(flux):
    """Smooth and far from linear."""
    return torch.stack([flux.square().sum(1), (flux[:, :5].sum(1) * flux[:, 7]).sin()], 1)


ENCODER = TransformerConfig(n_pix=120, d_model=16, n_layer=2, n_head=2, d_mlp=32, n_positions=12, n_chunks=1, chunk=2)


@pytest.fixture(scope="module")
def stars():
    """Two short spectra, in 64 bits: differences of answers are to be compared with derivatives."""
    return 1 + 0.2 * torch.randn(2, 120, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    """An encoder and two heads with random weights, far enough from linear."""
    encoder = SpectrumTransformer(ENCODER, seed=0).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = [LabelHead(16, (8, 8)).double() for _ in range(2)]
    with torch.no_grad():
        encoder.embedding.weight.mul_(3)
    return encoder, heads


@pytest.fixture(scope="module")
def tiny(network):
    return label_function(*network)


def test_gradients_of_a_linear_function_are_its_weights():
    flux = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(gradients(linear, flux, batch=2), WEIGHT.expand(5, 2, 30)) and not flux.requires_grad


def test_gradients_of_a_model_are_its_finite_differences(tiny, stars):
    found = gradients(tiny, stars[:1])[0]
    direction = 1e-5 * torch.randn(1, stars.shape[1], generator=torch.Generator().manual_seed(2), dtype=stars.dtype)
    with torch.no_grad():
        change = (tiny(stars[:1] + direction) - tiny(stars[:1] - direction))[0] / 2
    assert torch.allclose(found @ direction[0], change, rtol=1e-4)


def test_label_function_answers_as_the_model():
    model, stars = sk.load_model("tiny"), sk.normalize(sk.simulate("lamost_lrs", n=3, seed=3))
    model.train()
    answers = label_function(model.encoder, [model.heads["logg"], model.heads["feh"]])(model.prepare(stars)[0])
    assert np.allclose(answers.detach().numpy(), np.stack([model.predict(stars, label)[0] for label in ("logg", "feh")], 1), atol=1e-4)


def test_integrated_gradients_of_a_quadratic_in_closed_form():
    """Of sum x^2, pixel i has (x_i - b_i) times the mean of 2 x on the way: x_i^2 - b_i^2."""
    flux, baseline = (torch.randn(*shape, generator=torch.Generator().manual_seed(3)).double() for shape in ((3, 30), (30,)))
    found = integrated_gradients(bent, flux, baseline, steps=2)[:, 0]
    assert torch.allclose(found, flux.square() - baseline.square())


def test_integrated_gradients_are_complete(tiny, stars):
    """The shares of all pixels sum to the difference of the answers, the better the finer the quadrature; the other star is the baseline."""
    with torch.no_grad():
        difference = tiny(stars[:1]) - tiny(stars[1:])
    short = [((integrated_gradients(tiny, stars[:1], stars[1], steps=steps).sum(2) - difference) / difference).abs().max() for steps in (1, 64)]
    assert short[1] < 0.05 < 0.2 < short[0]


def test_pixels_as_in_the_baseline_get_nothing(tiny, stars):
    baseline = stars[0].clone()
    baseline[:70] = 1.0
    shares = integrated_gradients(tiny, stars[:1], baseline, steps=1)
    assert (shares[:, :, 70:] == 0).all() and (shares[:, :, :70] != 0).any()


def test_occlusion_bridges_with_a_straight_line():
    flux = torch.randn(3, 30, generator=torch.Generator().manual_seed(4)).double()
    windows = torch.arange(0, 30, 5)[:, None] + torch.arange(5)
    found = occlusion(linear, flux, windows)
    for star in range(3):
        for k, window in enumerate(windows.numpy()):
            rest = np.setdiff1d(np.arange(30), window)
            bridged = flux[star].numpy().copy()
            bridged[window] = np.interp(window, rest, bridged[rest])
            assert np.allclose(found[star, :, k], linear(flux[star:star + 1] - torch.as_tensor(bridged))[0])


def test_a_straight_spectrum_loses_nothing_when_bridged(tiny, stars):
    windows = torch.tensor([[30], [80]]) + torch.arange(20)
    flux = stars[:1].clone()
    flux[:, 29:51] = torch.linspace(0.9, 1.1, 22, dtype=flux.dtype)
    change = occlusion(tiny, flux, windows)[0].abs()
    assert (change[:, 0] < 1e-12).all() and (change[:, 1] > 1e-6).all()


def test_pixel_scores_are_the_five_in_the_order_of_the_heads(network, stars):
    encoder, heads = network
    sigma = torch.rand(2, 120, generator=torch.Generator().manual_seed(5)).double()
    found = pixel_scores(encoder, heads, stars, sigma, steps=2)
    assert list(found) == ["attention", "roll-out", "gradient", "integrated gradients", "occlusion"]
    assert all(score.shape == (2, 2, 120) and (score >= 0).all() for score in found.values())
    second = label_function(encoder, heads[1:])
    assert torch.allclose(found["gradient"][:, 1], gradients(second, stars)[:, 0].abs() * sigma)
    assert torch.allclose(found["integrated gradients"][:, 1], integrated_gradients(second, stars, stars.mean(0), 2)[:, 0].abs())
    read = attention_maps(encoder, stars)[:, -1].mean((1, 2))                                                      # mean over heads and readers
    assert torch.allclose(found["attention"][:, 0, :10], read[:, 1:2].expand(-1, 10)) and torch.equal(found["attention"][:, 0], found["attention"][:, 1])
    assert torch.allclose(found["occlusion"][:, 1, :10], occlusion(second, stars, encoder.pixels[:1]).abs()[:, 0].expand(-1, 10))


@pytest.fixture(scope="module")
def requested():
    """A model that answers requests, with random weights, two stars and their scores; 12 pixels a token."""
    model = SpectraFM(SpectraFMCard(PRESETS["tiny"], "robust", ((3960.0, 5640.0),), {}, {}, {"steps": 0}), seed=0)
    stars = sk.normalize(sk.simulate("lamost_lrs", 2, seed=4))
    return model, stars, request_scores(model, stars, ["feh", "teff"], steps=4)


def test_scores_of_requests_lie_on_pixels(requested):
    model, stars, found = requested
    assert list(found) == ["attention", "all blocks", "gradient", "integrated gradients", "occlusion"]
    assert all(score.shape == (2, 2, stars.wave.size) and (score >= 0).all() and not score.requires_grad for score in found.values())
    assert all(torch.equal(score[:, :, 12:24], score[:, :, 12:13].expand(-1, -1, 12)) for score in found.values())
    maps = model.attention(stars, ["feh", "teff"]).mean(2)
    assert torch.equal(found["attention"][:, :, ::12], maps[:, -1]) and torch.equal(found["all blocks"][:, :, ::12], maps.mean(1))


def test_raw_spectra_are_scored_on_the_pixels_that_are_read():
    """A model of a narrower range than the spectra: what it does not read has no score."""
    model, raw = SpectraFM(SpectraFMCard(PRESETS["tiny"], "robust", ((4100.0, 5500.0),), {}, {}, {"steps": 0}), seed=0), sk.simulate("lamost_lrs", 2, seed=4)
    prepared = model.prepare(raw)
    found, same = (request_scores(model, stars, ["feh"], steps=1) for stars in (raw, prepared))
    assert prepared.wave.size < raw.wave.size
    assert all(found[name].shape == (2, 1, prepared.wave.size) and torch.equal(found[name], same[name]) for name in found)


def test_occlusion_of_a_token_is_the_answer_without_its_pixels(requested):
    model, stars, found = requested
    mask = stars.mask.copy()
    mask[:, 240:252] = True
    change = np.stack([np.abs(model.predict(stars, label)[0] - model.predict(replace(stars, mask=mask), label)[0]) for label in ("feh", "teff")], 1)
    assert np.allclose(found["occlusion"][:, :, 245], change, rtol=1e-3, atol=1e-6) and (change > 1e-6).all()


def test_gradient_of_a_token_is_what_its_noise_does(requested):
    """All pixels of a token moved by its error: the answer moves by the score, to first order."""
    model, stars, found = requested
    answers = []
    for step in (0.1, -0.1):
        flux = stars.flux.copy()
        flux[:, 240:252] += step * model.bins(stars).error[:, 20:21].numpy()
        answers.append(model.predict(replace(stars, flux=flux), "feh")[0])
    assert np.allclose(np.abs(answers[0] - answers[1]) / 0.2, found["gradient"][:, 0, 245], rtol=0.05)
