"""The XP autoencoder against a written-out sum of its layers and against numpy; its published size; what it refuses."""

import numpy as np
import pytest
import torch

from spectrakit.errors import SpectrumError
from spectrakit.models.xp_autoencoder import PRESETS, AutoencoderConfig, XPAutoencoder

TINY = PRESETS["tiny"]

pytestmark = pytest.mark.usefixtures("single_thread")


def spectra(n, n_pix=343, seed=1):
    """Positive, smooth, near 1, with a slope of its own each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(-1, 1, n_pix)
    return 1 + 0.5 * torch.rand(n, 1, generator=generator) * x + 0.2 * torch.sin(9 * x + torch.rand(n, 1, generator=generator))


@pytest.fixture(scope="module")
def model():
    return XPAutoencoder(TINY, seed=0).requires_grad_(False)


def test_paper_size():
    """The released demonstration prints 42,846,129; 21,424,044 of them up to the latent."""
    with torch.device("meta"):
        paper = XPAutoencoder(PRESETS["paper"], 0)
    assert sum(p.numel() for p in paper.parameters()) == 42_846_129
    encoder = (paper.enter, paper.encoder, paper.down, paper.norm)
    assert sum(p.numel() for part in encoder for p in part.parameters()) == 21_424_044


@pytest.mark.parametrize("config", [TINY, PRESETS["small"], AutoencoderConfig(n_pix=9, d_hidden=7, widening=3, n_block=3, d_latent=2)])
def test_parameters_counted_by_hand(config):
    d, wide, numbers, latent = config.d_hidden, config.widening * config.d_hidden, config.n_pix + 2, config.d_latent
    block = 2 * d + (d * wide + wide) + (wide * d + d)
    expected = (numbers * d + d) + 2 * config.n_block * block + (d * latent + latent) + 2 * latent + (latent * d + d) + (d * numbers + numbers)
    assert sum(p.numel() for p in XPAutoencoder(config, 0).parameters()) == expected


def test_small_latent_can_be_shipped():
    assert PRESETS["small"].d_latent <= 32
    assert sum(p.numel() for p in XPAutoencoder(PRESETS["small"], 0).parameters()) < 1_100_000


def test_numbers_against_numpy(model):
    flux = spectra(4).numpy().astype("f8")
    numbers = model.standardize(torch.as_tensor(flux)).numpy()
    mean, std = flux.mean(1, keepdims=True), flux.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(numbers, np.hstack([mean, std, (flux - mean) / std]), rtol=1e-10, atol=1e-12)


def test_layers_against_numpy(model):
    """Linear, blocks without residual, Linear, norm; and back. GELU with the error function."""
    from scipy.special import erf
    weights = {k: v.double().numpy() for k, v in model.state_dict().items()}
    linear = lambda x, name: x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]                                 # noqa: E731
    gelu = lambda x: x * (1 + erf(x / np.sqrt(2))) / 2                                                                 # noqa: E731

    def norm(x, name):
        centred = x - x.mean(1, keepdims=True)
        return centred / np.sqrt(centred.var(1, keepdims=True) + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    flux = spectra(3)
    numbers = model.standardize(flux).double().numpy()
    x = linear(numbers, "enter")
    x = linear(gelu(linear(norm(x, "encoder.0.norm"), "encoder.0.up")), "encoder.0.down")
    latent = norm(linear(x, "down"), "norm")
    x = linear(latent, "up")
    x = linear(gelu(linear(norm(x, "decoder.0.norm"), "decoder.0.up")), "decoder.0.down")
    restored = linear(x, "leave")
    np.testing.assert_allclose(model.encode(flux).numpy(), latent, atol=2e-5)
    np.testing.assert_allclose(model.decode(model.encode(flux)).numpy(), restored, atol=1e-4)
    assert float(model(flux)["restore"]) == pytest.approx(np.mean((restored - numbers) ** 2), rel=1e-4)
    np.testing.assert_allclose(model.reconstruct(flux).numpy(), restored[:, 2:] * restored[:, 1:2] + restored[:, :1], atol=1e-4)


def test_perfect_decoding_gives_the_flux_back(model):
    """With the numbers themselves in place of the decoder's output."""
    flux = spectra(5)
    class Perfect(XPAutoencoder):
        def decode(self, latent):
            return self.standardize(flux)
    torch.testing.assert_close(Perfect(TINY, 0).reconstruct(flux), flux)


def test_every_parameter_learns():
    model, flux = XPAutoencoder(TINY, 0), spectra(16)
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(30):
        losses.append(model(flux)["restore"])
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(p.grad.abs().max() > 0 for p in model.parameters())
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_order_of_the_batch_seed_and_mode(model):
    flux, state = spectra(5), torch.get_rng_state()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model.encode(flux[order]), model.encode(flux)[order])
    torch.testing.assert_close(model.encode(flux[:1]), model.encode(flux)[:1])
    again, other = XPAutoencoder(TINY, 0), XPAutoencoder(TINY, 1)
    assert torch.equal(again.train().encode(flux), model.encode(flux))
    assert not torch.equal(other.encode(flux), model.encode(flux))
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_scale():
    weight = XPAutoencoder(AutoencoderConfig(d_hidden=200), 0).requires_grad_(False).encoder[0].up.weight
    assert weight.std() == pytest.approx((2 / 200) ** 0.5, rel=0.02)


def test_bad_spectra(model):
    with pytest.raises(SpectrumError, match="342 pixels given; this model reads 343, 336-1020 nm in steps of 2 nm. Interpolate to them."):
        model(spectra(2, 342))
    for junk in (torch.nan, -torch.inf):
        flux = spectra(3)
        flux[2, 7] = junk
        with pytest.raises(SpectrumError, match="The flux holds NaN or infinite values; this model has no mask."):
            model.encode(flux)
    with pytest.raises(SpectrumError, match="A spectrum is constant; there is nothing in it to encode."):
        model(torch.cat([spectra(1), torch.ones(1, 343)]))
