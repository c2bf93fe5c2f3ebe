"""The transformer, part by part, against loops one can read: tokens, attention, masking, loss; and the counts of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.errors import SpectrumError
from spectrakit.models.spectrum_transformer import PRESETS, Attention, SpectrumTransformer, TransformerConfig

TINY = replace(PRESETS["tiny"], leak=True)                                # as published; without the leak: test_published_options.py
SMALL_GRID = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=2, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
configs = st.builds(lambda window, stride, extra, drop: TransformerConfig(n_pix=window + extra, window=window, stride=stride, drop_last=drop),
                    st.integers(1, 30), st.integers(1, 30), st.integers(0, 200), st.booleans())


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectra(n, n_pix=1462, seed=1):
    return 1 + 0.2 * numbers(n, n_pix, seed=seed)


@pytest.fixture(scope="module")
def model():
    return SpectrumTransformer(TINY, seed=0).eval()


# sizes ---------------------------------------------------------------------------------------------------------------------------------------

def test_paper_size():
    with torch.device("meta"):
        paper = SpectrumTransformer(PRESETS["paper"], seed=0)
    assert sum(p.numel() for p in paper.parameters()) == 42_677_013
    assert paper.config.n_tok == 146


def test_parameters_counted_by_hand():
    """Embedding, positions, blocks (two norms, q, kv, out, up, down), last norm, way back."""
    for c in (TINY, PRESETS["small"], SMALL_GRID):
        d, width = c.d_model, c.window + 1
        block = 4 * d + (d * d + d) + (2 * d * d + 2 * d) + (d * d + d) + (d * c.d_mlp + c.d_mlp) + (c.d_mlp * d + d)
        expected = (width * d + d) + c.n_positions * d + c.n_layer * block + 2 * d + (d * width + width)
        assert sum(p.numel() for p in SpectrumTransformer(c, 0).parameters()) == expected
    assert expected < 3_000_000


def test_published_tokens_drop_the_last_two_pixels_ours_none():
    covered = lambda c: {pixel for start in c.starts for pixel in range(start, start + c.window)}                    # noqa: E731
    assert set(range(1462)) - covered(PRESETS["paper"]) == {1460, 1461}
    assert covered(TINY) == set(range(1462))
    assert TINY.n_tok == 147


@given(configs)
def test_windows_cover_the_spectrum(c):
    """Every window inside, in order, a stride apart; without drop_last every pixel that a stride does not jump over."""
    starts = np.array(c.starts)
    assert starts[0] == 0
    assert starts[-1] + c.window <= c.n_pix
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts)[:-1] == c.stride).all()
    covered = np.zeros(c.n_pix, bool)
    for start in starts:
        covered[start:start + c.window] = True
    if c.stride <= c.window and not c.drop_last:
        assert covered.all()
    if c.drop_last:
        assert c.n_pix - (starts[-1] + c.window) < c.stride


def test_seed_decides_the_weights_and_leaves_the_global_generator():
    state = torch.get_rng_state()
    one, again, other = (SpectrumTransformer(TINY, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.position, other.position)


def test_initial_scale():
    weights = SpectrumTransformer(replace(TINY, d_model=256, d_mlp=512, n_layer=3), 0).requires_grad_(False)
    assert weights.position.std() == pytest.approx(256**-0.5, rel=0.05)                  # truncation at +-2, in absolute numbers, cuts nothing
    assert weights.blocks[1].up.weight.std() == pytest.approx((2 * 256 * 3) ** -0.5, rel=0.05)
    assert weights.blocks[2].down.weight.std() == pytest.approx((2 * 512 * 3) ** -0.5, rel=0.05)
    assert (weights.blocks[0].attention.q.bias == 0).all()


# tokens --------------------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=40)
@given(configs, st.integers(1, 3), st.integers(0, 9))
def test_tokens_against_a_loop(c, n, seed):
    flux = spectra(n, c.n_pix, seed).numpy()
    if c.n_pix == 1:
        return
    tokens = SpectrumTransformer(replace(c, d_model=4, n_head=1, n_layer=1, d_mlp=4), 0).tokenize(torch.as_tensor(flux)).numpy()
    assert tokens.shape == (n, c.n_tok, c.window + 1)
    for row, spectrum in zip(tokens, flux.astype("f8"), strict=True):
        standard = (spectrum - spectrum.mean()) / spectrum.std()
        expected = [[np.log10(spectrum.std())] + [0] * c.window] + [[0, *standard[start:start + c.window]] for start in c.starts]
        np.testing.assert_allclose(row, expected, atol=2e-5)


@settings(max_examples=25)
@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_tokens_hold_the_spectrum_up_to_its_mean(scale, offset):
    """The windows put back where they came from, times the standard deviation of token 0, are the flux less its mean; offsets do not enter."""
    model, flux = SpectrumTransformer(SMALL_GRID, 0), spectra(3, 57).double() * scale + offset
    tokens = model.tokenize(flux)
    back = torch.full_like(flux, torch.nan)
    for i, start in enumerate(SMALL_GRID.starts):
        back[:, start:start + 8] = tokens[:, i + 1, 1:] * 10 ** tokens[:, :1, 0]
    torch.testing.assert_close(back, flux - flux.mean(1, keepdim=True), rtol=1e-9, atol=1e-9 * scale + 1e-12)


def test_tokens_of_bad_spectra(model):
    with pytest.raises(SpectrumError, match="1461 pixels given; this model reads 1462. Resample with spectrakit.continuum."):
        model(spectra(2, 1461))
    for junk in (torch.nan, torch.inf):
        flux = spectra(3)
        flux[1, 700] = junk
        with pytest.raises(SpectrumError, match="The flux holds NaN or infinite values; mask these pixels and fill them"):
            model(flux)
    with pytest.raises(SpectrumError, match="A spectrum is constant, or wholly hidden; there is no line in it to look at. Leave it out."):
        model(torch.cat([spectra(1), torch.full((1, 1462), 0.93)]))


@settings(max_examples=25)
@given(st.integers(0, 99), st.floats(0, 1))
def test_windows_are_hidden_when_more_than_half_is_masked(seed, share):
    mask = np.random.default_rng(seed).random((2, 57)) < share
    hidden = SpectrumTransformer(SMALL_GRID, 0).masked_tokens(torch.as_tensor(mask)).numpy()
    for row, expected in zip(hidden, mask, strict=True):
        assert row.tolist() == [False] + [bool(expected[start:start + 8].sum() > 4) for start in SMALL_GRID.starts]


# attention -----------------------------------------------------------------------------------------------------------------------------------

def test_attention_against_a_loop_and_against_torch():
    with torch.random.fork_rng(devices=[]):
        attention, x = Attention(12, 3), numbers(2, 5, 12)
    used, none = attention(x)
    shown, weights = attention(x, return_weights=True)
    assert none is None
    assert weights.shape == (2, 3, 5, 5)
    with torch.no_grad():
        q, k, v = attention.q(x), *attention.kv(x).split(12, dim=-1)
        expected = torch.zeros(2, 5, 12)
        for n in range(2):
            for head in range(3):
                part = slice(4 * head, 4 * head + 4)
                for i in range(5):
                    scores = torch.tensor([float(q[n, i, part] @ k[n, j, part]) / 4**0.5 for j in range(5)])
                    share = scores.exp() / scores.exp().sum()
                    torch.testing.assert_close(weights[n, head, i], share)
                    expected[n, i, part] = sum(share[j] * v[n, j, part] for j in range(5))
        torch.testing.assert_close(used, attention.out(expected))
        torch.testing.assert_close(shown, used)
        split = lambda t: t.view(2, 5, 3, 4).transpose(1, 2)                                                            # noqa: E731
        fused = torch.nn.functional.scaled_dot_product_attention(split(q), split(k), split(v))
        torch.testing.assert_close(used, attention.out(fused.transpose(1, 2).reshape(2, 5, 12)))


def test_shown_attention_is_the_one_used(model):
    """Same output; each row a share of 1; and a map that is changed changes the output."""
    tokens = model.tokenize(spectra(2))
    with torch.no_grad():
        plain, (shown, maps) = model.encode(tokens), model.encode(tokens, return_attention=True)
    torch.testing.assert_close(shown, plain, rtol=1e-5, atol=1e-5)
    assert len(maps) == TINY.n_layer
    for weights in maps:
        assert weights.shape == (2, TINY.n_head, 147, 147)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, TINY.n_head, 147))
        assert (weights >= 0).all()


def test_every_linear_is_called_as_a_module(model):
    """An adapter lives in a submodule's call: whatever path the code takes, in training or evaluation, it must pass there."""
    calls, handles = set(), []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            handles.append(layer.register_forward_hook(lambda *_, name=name: calls.add(name)))
    expected = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {"restore"}
    with torch.inference_mode():
        model(spectra(2))
    for handle in handles:
        handle.remove()
    assert calls == expected
    assert len(expected) == 1 + 5 * TINY.n_layer


def test_block_is_prenorm_with_two_residuals(model):
    block, x = model.blocks[0], numbers(2, 6, 32)
    with torch.no_grad():
        y = x + block.attention(block.norm1(x))[0]
        expected = y + block.down(torch.nn.functional.gelu(block.up(block.norm2(y))))
        torch.testing.assert_close(block(x)[0], expected)


# embedding -----------------------------------------------------------------------------------------------------------------------------------

def test_embedding_is_the_mean_of_the_tokens_that_can_be_seen(model):
    flux, mask = spectra(2), torch.zeros(2, 1462, dtype=torch.bool)
    mask[1, 200:260] = True
    with torch.no_grad():
        hidden = model.masked_tokens(mask)
        tokens = model.encode(model.tokenize(flux), hidden)
        out = model(flux, mask)
        torch.testing.assert_close(out[0], tokens[0].mean(0))
        torch.testing.assert_close(out[1], tokens[1, ~hidden[1]].mean(0))
        torch.testing.assert_close(model(flux), model(flux, torch.zeros_like(mask)), rtol=0, atol=0)
    assert hidden.sum() == 5                                              # windows at 200, 210, 220, 230, 240; two halves do not count


@settings(max_examples=10)
@given(st.permutations(range(5)))
def test_order_and_size_of_the_batch_do_not_matter(model, order):
    flux = spectra(5)
    with torch.no_grad():
        out = model(flux)
        torch.testing.assert_close(model(flux[list(order)]), out[list(order)], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(flux[:1]), out[:1], rtol=1e-5, atol=1e-5)


def test_training_and_evaluation_are_the_same_function():
    model, flux = SpectrumTransformer(TINY, 0), spectra(2)
    with torch.no_grad():
        assert torch.equal(model.train()(flux), model.eval()(flux))


def test_positions_enter(model):
    """Two windows exchanged are another spectrum, although each token is the same."""
    tokens = model.tokenize(spectra(1))
    swapped = tokens.clone()
    swapped[0, [20, 80]] = tokens[0, [80, 20]]
    with torch.no_grad():
        assert (model.encode(tokens).mean(1) - model.encode(swapped).mean(1)).abs().max() > 1e-5


def test_hidden_tokens_are_not_seen(model):
    hidden = torch.zeros(1, 147, dtype=torch.bool)
    hidden[0, 10:40] = True
    tokens = model.tokenize(spectra(1))
    other = torch.where(hidden[..., None], 99.0, tokens)
    with torch.no_grad():
        assert torch.equal(model.encode(tokens, hidden), model.encode(other, hidden))
        assert not torch.equal(model.encode(tokens), model.encode(other))


# masked pretraining --------------------------------------------------------------------------------------------------------------------------

def test_paper_hides_sixty_of_its_tokens():
    with torch.device("meta"):
        paper = SpectrumTransformer(PRESETS["paper"], seed=0)
    hidden = paper.draw_chunks(500, torch.Generator().manual_seed(0))
    assert hidden.shape == (500, 146)
    assert (hidden.sum(1) == 60).all()
    often = hidden.float().mean(0)
    assert (often[1:-1] > 0).all()                                         # every window is hidden now and then


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 10), st.integers(0, 99))
def test_chunks_lie_each_in_its_part(n_chunks, chunk, seed):
    model = SpectrumTransformer(replace(TINY, n_chunks=n_chunks, chunk=chunk), 0)
    hidden = model.draw_chunks(4, torch.Generator().manual_seed(seed)).numpy()
    edges = [int(np.floor(147 * i / n_chunks + 1e-4)) for i in range(n_chunks + 1)]
    for row in hidden:
        for low, high in zip(edges, edges[1:], strict=False):
            where = np.flatnonzero(row[low:high])
            assert where.size == chunk
            assert where[-1] - where[0] == chunk - 1


def test_chunks_come_from_the_given_generator_alone(model):
    state = torch.get_rng_state()
    draw = lambda seed: model.draw_chunks(20, torch.Generator().manual_seed(seed))                                     # noqa: E731
    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(row) for row in draw(5).tolist()}) == 20


def test_masked_loss_against_numpy(model):
    """Squared error over the numbers of hidden tokens that were not 0 before: of a window its 20 fluxes, of the statistics token its first."""
    flux, hidden = spectra(3), torch.zeros(3, 147, dtype=torch.bool)
    hidden[0, 5:15], hidden[1, 0:3], hidden[2, 100] = True, True, True
    with torch.no_grad():
        loss = model.masked_loss(flux, hidden)
        tokens = model.tokenize(flux)
        restored = model.restore(model.encode(torch.where(hidden[..., None], 0.0, tokens))).numpy()
    total, count = 0.0, 0
    for n in range(3):
        for t in range(147):
            for c in range(21):
                if hidden[n, t] and tokens[n, t, c] != 0:
                    total, count = total + (restored[n, t, c] - float(tokens[n, t, c])) ** 2, count + 1
    assert count == 10 * 20 + (1 + 2 * 20) + 20
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_masked_training_reaches_every_parameter_and_learns():
    model = SpectrumTransformer(SMALL_GRID, 0)
    smooth = torch.sin(torch.linspace(0, 6, 57) + torch.linspace(0, 3, 8)[:, None]) + 2
    hidden = model.draw_chunks(8, torch.Generator().manual_seed(0))
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(10):
        losses.append(model.masked_loss(smooth, hidden))
        optimizer.zero_grad()
        losses[-1].backward()
        assert all((p.grad != 0).any() for p in model.parameters())
        optimizer.step()
    assert losses[-1] < 0.75 * losses[0]


def test_attention_in_bf16_is_attention():
    """On a CPU bf16 takes the written-out path: the same numbers to bf16's three digits, forwards and backwards."""
    attention = SpectrumTransformer(PRESETS["tiny"], 0).blocks[0].attention
    results, x = [], torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(0))
    for enabled in (False, True):
        attention.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, weights = attention(x)
        y.float().square().sum().backward()
        results.append([y.float().detach(), *(p.grad.clone() for p in attention.parameters())])
        assert weights is None
    for exact, rounded in zip(*results, strict=True):
        assert (exact - rounded).abs().max() < 0.03 * exact.abs().max()
