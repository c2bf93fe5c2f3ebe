"""What the published transformer does differently, each as an option: XP tokens, doubly scaled attention, chunk starts, the leak of the overlap."""

from dataclasses import asdict, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.errors import SpectrumError
from spectrakit.models.spectrum_transformer import PRESETS, XP_PRESETS, Attention, SpectrumTransformer, TransformerConfig
from spectrakit.weights import load_tensors

SMALL_GRID = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=2, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
SMALL_XP = replace(XP_PRESETS["tiny"], n_pix=23, n_positions=30, n_chunks=2, chunk=4)


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def paper(presets, **options):
    with torch.device("meta"):
        return SpectrumTransformer(replace(presets["paper"], **options), 0)


# defaults ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["small", "tiny"])
def test_shipped_weights_are_of_the_preset(name):
    tensors, meta = load_tensors(files("spectrakit") / "assets" / f"{name}.safetensors")
    config = TransformerConfig(**meta["card"]["encoder"])
    assert (config.keep_mean, config.ddof, config.double_scaled, config.published_chunks, config.leak) == (False, 0, False, False, False)
    model = SpectrumTransformer(config, 0)
    model.load_state_dict({k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")})
    assert asdict(PRESETS[name]) == asdict(config)


# XP ------------------------------------------------------------------------------------------------------------------------------------------

def test_xp_paper_size():
    model = paper(XP_PRESETS)
    assert sum(p.numel() for p in model.parameters()) == 42_802_947
    assert model.config.n_tok == 344
    hidden = model.draw_chunks(200, torch.Generator().manual_seed(0))
    assert (hidden.sum(1) == 120).all()


def test_xp_tokens_against_a_loop():
    """(mean, std, 0), then (0, 0, flux) for every pixel; the standard deviation over n - 1."""
    flux = (2 + 0.3 * numbers(3, 23)).double()
    tokens = SpectrumTransformer(SMALL_XP, 0).tokenize(flux).numpy()
    for row, f in zip(tokens, flux.numpy(), strict=True):
        mean, std = f.mean(), f.std(ddof=1)
        np.testing.assert_allclose(row, [[mean, std, 0]] + [[0, 0, (x - mean) / std] for x in f], rtol=1e-10, atol=1e-14)


def test_xp_trains_and_leaks_nothing():
    """No two tokens share a pixel; the statistics token's mean and standard deviation are counted."""
    model, flux = SpectrumTransformer(SMALL_XP, 0), 2 + 0.3 * numbers(4, 23)
    hidden = torch.zeros(4, 24, dtype=torch.bool)
    hidden[:, :5] = True
    assert not model.copyable(hidden)[:, :4].any()
    tokens = model.tokenize(flux, hidden)
    restored = model.restore(model.encode(tokens, hidden))
    squares = (restored - tokens)[:, :5].square()
    expected = (squares[:, 0, :2].sum() + squares[:, 1:, 2].sum()) / (4 * 6)
    loss = model.masked_loss(flux, hidden)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad.abs().max() > 0, name


def test_lrs_statistics_as_published():
    """log10 of the standard deviation over n - 1; the mean is nowhere."""
    flux = (1 + 0.2 * numbers(2, 57)).double()
    model = SpectrumTransformer(replace(SMALL_GRID, ddof=1), 0)
    tokens = model.tokenize(flux)
    np.testing.assert_allclose(tokens[:, 0, 0].numpy(), np.log10(flux.numpy().std(1, ddof=1)), rtol=1e-12)
    torch.testing.assert_close(model.tokenize(flux + 3), tokens)
    assert PRESETS["paper"].ddof == 1


# attention -----------------------------------------------------------------------------------------------------------------------------------

def test_doubly_scaled_attention_against_torch_and_a_loop():
    """q scaled by 1 / sqrt(d_head) and handed to a function that scales again, as the released code does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention, x = Attention(12, 3, double_scaled=True).requires_grad_(False), 3 * numbers(2, 5, 12)
    used, _ = attention(x)
    shown, weights = attention(x, return_weights=True)
    split = lambda t: t.view(2, 5, 3, 4).transpose(1, 2)                                                               # noqa: E731
    q, k, v = (split(t) for t in (attention.q(x), *attention.kv(x).split(12, dim=-1)))
    twice = torch.nn.functional.scaled_dot_product_attention(q / 4**0.5, k, v)
    torch.testing.assert_close(used, attention.out(twice.transpose(1, 2).reshape(2, 5, 12)))
    torch.testing.assert_close(shown, used)
    for head in range(3):
        for i in range(5):
            scores = torch.tensor([float(q[1, head, i] @ k[1, head, j]) / 4 for j in range(5)])
            torch.testing.assert_close(weights[1, head, i], scores.exp() / scores.exp().sum())
    with torch.random.fork_rng(devices=[]):
        once = Attention(12, 3)
    once.load_state_dict(attention.state_dict())
    assert (once(x)[0] - used).abs().max() > 1e-3                             # the same weights, another function


def test_double_scaling_flattens_the_maps():
    flux = 1 + 0.2 * numbers(3, 57)
    entropy = []
    for double in (False, True):
        model = SpectrumTransformer(replace(SMALL_GRID, double_scaled=double), 0).requires_grad_(False)
        maps = model.encode(model.tokenize(flux), return_attention=True)[1]
        entropy.append(-sum((m * m.log()).sum(-1).mean() for m in maps))
    assert entropy[1] > entropy[0]


# chunks --------------------------------------------------------------------------------------------------------------------------------------

def test_published_chunks_never_reach_eight_tokens():
    """Chunk i starts 0..13 tokens after i * 146 // 6."""
    hidden = paper(PRESETS, published_chunks=True).draw_chunks(4000, torch.Generator().manual_seed(0))
    often = hidden.float().mean(0)
    assert set(torch.nonzero(often == 0).flatten().tolist()) == {23, 47, 71, 72, 96, 120, 144, 145}
    assert (hidden.sum(1) == 60).all()
    expected = np.zeros(146)
    for i in range(6):
        for start in range(14):
            expected[i * 146 // 6 + start:i * 146 // 6 + start + 10] += 1 / 14
    assert np.abs(often.numpy() - expected).max() < 5 * 0.5 / 4000**0.5


def test_published_chunks_of_xp():
    hidden = paper(XP_PRESETS, published_chunks=True).draw_chunks(3000, torch.Generator().manual_seed(0))
    expected = {t for i in range(6) for start in range(37) for t in range(i * 344 // 6 + start, i * 344 // 6 + start + 20)}
    assert set(torch.nonzero(hidden.any(0)).flatten().tolist()) == expected
    assert (hidden.sum(1) == 120).all()


# the leak ------------------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.booleans(), st.integers(0, 99), st.floats(0, 1))
def test_copyable_against_a_loop(window, stride, extra, drop, seed, share):
    config = TransformerConfig(n_pix=window + extra, window=window, stride=stride, drop_last=drop, n_positions=60, d_model=4, n_layer=1, n_head=1, d_mlp=4)
    hidden = torch.as_tensor(np.random.default_rng(seed).random((2, config.n_tok)) < share)
    found = SpectrumTransformer(config, 0).copyable(hidden)
    for row, flags in zip(hidden.tolist(), found.tolist(), strict=True):
        shown = {p for start, h in zip(config.starts, row[1:], strict=True) if not h for p in range(start, start + window)}
        assert flags == [[p in shown for p in range(start, start + window)] for start in config.starts]


def test_overlap_gives_a_tenth_of_a_chunk_away():
    """Ten windows hold 200 numbers of 110 pixels; the outer 10 pixels on each side stand in a visible window too, and 90 are truly hidden."""
    with torch.random.fork_rng(devices=[]):
        model = SpectrumTransformer(replace(PRESETS["paper"], d_model=8, n_layer=1, n_head=1, d_mlp=8), 0)
    hidden = torch.zeros(1, 146, dtype=torch.bool)
    hidden[0, 50:60] = True
    copyable = model.copyable(hidden)[0, 49:59]
    assert copyable.numel() == 200
    assert copyable.sum() == 20
    assert torch.equal(copyable, model.copyable(hidden)[0, 49:59])
    assert model.pixels[49:59][~copyable].unique().numel() == 90
    drawn = model.draw_chunks(300, torch.Generator().manual_seed(0))
    given_away = (model.copyable(drawn) & drawn[:, 1:, None]).sum() / (20 * drawn[:, 1:].sum())
    assert 0.09 < given_away < 0.101                                          # less than a tenth where a chunk touches an end or another chunk


def test_loss_without_the_leak_against_numpy():
    model = SpectrumTransformer(replace(SMALL_GRID, leak=False), 0).requires_grad_(False)
    flux, hidden = 1 + 0.2 * numbers(3, 57), torch.zeros(3, SMALL_GRID.n_tok, dtype=torch.bool)
    hidden[0, 4:7], hidden[1, 0:3], hidden[2, 12] = True, True, True
    tokens = model.tokenize(flux, hidden)
    restored = model.restore(model.encode(tokens, hidden)).numpy()
    total, n_counted = 0.0, 0
    for n in range(3):
        shown = {p for t, start in enumerate(SMALL_GRID.starts, 1) if not hidden[n, t] for p in range(start, start + 8)}
        for t in np.flatnonzero(hidden[n]):
            places = [0] if t == 0 else [1 + i for i in range(8) if SMALL_GRID.starts[t - 1] + i not in shown]
            total, n_counted = total + sum((restored[n, t, c] - float(tokens[n, t, c])) ** 2 for c in places), n_counted + len(places)
    assert n_counted == 16 + (1 + 12) + 0                                     # of 24, of 1 + 16, of 8
    assert float(model.masked_loss(flux, hidden)) == pytest.approx(total / n_counted, rel=1e-5)
    leaky = SpectrumTransformer(SMALL_GRID, 0).requires_grad_(False)
    assert float(leaky.masked_loss(flux, hidden)) != pytest.approx(total / n_counted, rel=1e-3)


def test_statistics_without_the_leak_are_of_visible_pixels():
    """Against numpy; and what is hidden, however it looks, changes no token that is seen."""
    flux, hidden = (1 + 0.2 * numbers(3, 57)).double(), torch.zeros(3, SMALL_GRID.n_tok, dtype=torch.bool)
    hidden[0, 4:7], hidden[1, 9], hidden[2, 0] = True, True, True
    careful = SpectrumTransformer(replace(SMALL_GRID, leak=False), 0)
    gone = ~careful.shown(hidden)
    assert gone.sum(1).tolist() == [3 * 8 - 2 * 4 - 2 * 4, 0, 0]                      # a lone window's pixels stand in its neighbours
    tokens = careful.tokenize(flux, hidden).numpy()
    for row, f, hide in zip(tokens, flux.numpy(), gone.numpy(), strict=True):
        assert row[0, 0] == pytest.approx(np.log10(f[~hide].std()), rel=1e-12)
        np.testing.assert_allclose(row[1, 1:], ((f - f[~hide].mean()) / f[~hide].std())[:8], rtol=1e-10)
    other = torch.where(gone, 7.0, flux)
    seen = ~hidden[0]
    assert torch.equal(careful.tokenize(other, hidden)[0, seen], careful.tokenize(flux, hidden)[0, seen])
    leaky = SpectrumTransformer(SMALL_GRID, 0)
    assert not torch.equal(leaky.tokenize(other, hidden)[0, seen], leaky.tokenize(flux, hidden)[0, seen])
    torch.testing.assert_close(leaky.tokenize(flux, hidden), careful.tokenize(flux))
    with pytest.raises(SpectrumError, match="A spectrum is constant, or wholly hidden"):
        careful.tokenize(flux, torch.ones_like(hidden))


def test_copying_lowers_the_leaky_loss_alone():
    """A model that copies what it can see and knows nothing else: the tenth it gets for nothing vanishes without the leak."""
    class Copier(SpectrumTransformer):
        def encode(self, tokens, hidden=None, return_attention=False):
            return tokens.masked_fill((hidden[..., None] & ~torch.nn.functional.pad(self.copyable(hidden), (1, 0, 1, 0))), 0.0)
    flux = 1 + 0.2 * numbers(400, 1462)
    losses = {}
    for leak in (True, False):
        model = Copier(replace(PRESETS["paper"], d_model=21, n_layer=1, n_head=1, d_mlp=8, leak=leak), 0).requires_grad_(False)
        model.restore = torch.nn.Identity()
        losses[leak] = float(model.masked_loss(flux, model.draw_chunks(400, torch.Generator().manual_seed(0))))
    assert losses[False] == pytest.approx(1.0, abs=0.02)
    assert losses[True] == pytest.approx(0.9, abs=0.02)
