"""Attention maps are the weights of the forward pass; scores go from tokens to pixels without preference."""

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.attention import attention_maps, rollout, to_pixels, token_scores
from spectrakit.errors import MismatchError
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer


@pytest.fixture(scope="module")
def prepared():
    model = sk.load_model("tiny")
    stars = sk.normalize(sk.simulate("lamost_lrs", n=3, seed=0))
    return model.encoder, *model.prepare(stars)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_maps_are_the_weights_that_every_layer_used(name):
    """softmax(q k) v with these weights, written out, is what the layer gave in the pass without maps."""
    encoder = sk.load_model(name).encoder
    flux = torch.as_tensor(sk.normalize(sk.simulate("lamost_lrs", n=2, seed=1)).flux, dtype=torch.float32)
    maps = attention_maps(encoder, flux)
    given = []
    hooks = [block.attention.register_forward_hook(lambda layer, inputs, output: given.append((inputs[0], output[0]))) for block in encoder.blocks]
    with torch.no_grad():
        encoder(flux)
    for hook in hooks:
        hook.remove()
    assert maps.shape[1] == len(given) == encoder.config.n_layer
    for k, (block, (x, output)) in enumerate(zip(encoder.blocks, given, strict=True)):
        v = block.attention.kv(x).chunk(2, dim=-1)[1].unflatten(-1, (encoder.config.n_head, -1))                  # (n, n_tok, n_head, d_head)
        read = torch.einsum("nhij,njhd->nihd", maps[:, k], v).flatten(2)
        assert torch.allclose(block.attention.out(read), output, atol=2e-5)
        wrong = torch.einsum("nhij,njhd->nihd", maps[:, k].flip(1), v).flatten(2)                                 # the heads confused: a test that can fail
        assert not torch.allclose(block.attention.out(wrong), output, atol=1e-3)


def test_rows_sum_to_one_and_batches_do_not_matter(prepared):
    encoder, flux, mask = prepared
    maps = attention_maps(encoder, flux, mask)
    assert torch.allclose(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-5)
    assert torch.allclose(attention_maps(encoder, flux, mask, batch=2), maps, atol=1e-6)


def test_mask_hides_tokens_as_in_the_forward_pass(prepared):
    encoder, flux, mask = prepared
    mask = mask.clone()
    mask[0, 100:160] = True
    hidden = encoder.masked_tokens(mask)
    _, maps = encoder.encode(encoder.tokenize(flux, hidden), hidden, return_attention=True)
    assert hidden[0].sum() > 3 and torch.equal(attention_maps(encoder, flux, mask), torch.stack(maps, 1).detach())


def test_rollout_is_the_product_of_half_stay_half_read(prepared):
    maps = attention_maps(*prepared)
    expected = []
    for star in maps.double().numpy():
        path = np.eye(maps.shape[-1])
        for layer in star:
            path = (0.5 * layer.mean(0) + 0.5 * np.eye(len(path))) @ path
        expected.append(path)
    assert np.allclose(rollout(maps.double()).numpy(), expected, atol=1e-12)
    assert torch.allclose(rollout(maps).sum(-1), torch.ones(3, 147), atol=1e-5)


def test_rollout_of_layers_that_read_one_token():
    """Two layers, everybody reads token 0: a quarter of each token is still its own, the rest is token 0."""
    maps = torch.zeros(1, 2, 1, 3, 3)
    maps[..., 0] = 1
    assert torch.allclose(rollout(maps)[0, 1], torch.tensor([0.75, 0.25, 0.0]))


def test_readers():
    attention = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(token_scores(attention, "statistics"), attention[:, 0, 1:])
    assert torch.allclose(token_scores(attention), attention[:, :, 1:].mean(1))
    with pytest.raises(MismatchError, match="No reader 'cls'; there are: mean, statistics"):
        token_scores(attention, "cls")


def test_windows_are_a_partition_of_unity():
    encoder = SpectrumTransformer(PRESETS["tiny"], seed=0)
    n_windows = len(encoder.pixels)
    assert torch.allclose(to_pixels(torch.ones(1, n_windows), encoder.pixels, 1462), torch.ones(1, 1462))
    each = to_pixels(torch.eye(n_windows), encoder.pixels, 1462)
    assert torch.allclose(each.sum(0), torch.ones(1462)) and (each >= 0).all()
    for window, row in zip(encoder.pixels, each, strict=True):
        assert set(torch.nonzero(row).flatten().tolist()) == set(window.tolist())
    assert each[0, :10].unique().tolist() == [1.0] and each[0, 10:20].unique().tolist() == [0.5]


def test_a_pixel_in_no_window_has_no_score_and_pixels_as_tokens_stay_as_they_are():
    windows = torch.tensor([[0, 1], [2, 3]])
    assert to_pixels(torch.tensor([1.0, 2.0]), windows, 5).tolist() == [1, 1, 2, 2, 0]
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    assert torch.equal(to_pixels(scores, torch.arange(3)[:, None], 3), scores)
    with pytest.raises(MismatchError, match="3 scores for 2 windows up to pixel 3 of 5; expected one a window"):
        to_pixels(scores, windows, 5)
