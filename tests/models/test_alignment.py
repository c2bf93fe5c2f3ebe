"""The contrastive stage: what each variant trains and reads, its losses written out, frozen encoders, sizes. InfoNCE: test_info_nce.py."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.alignment import PRESETS, Alignment, BatchNorm, Decoder, JoinedDecoder, info_nce
from spectrakit.models.spectrum_transformer import SpectrumTransformer, TransformerConfig
from spectrakit.models.xp_autoencoder import AutoencoderConfig, XPAutoencoder
from spectrakit.weights import load_tensors, save_tensors

LRS = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=1, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
XP = AutoencoderConfig(n_pix=23, d_hidden=10, widening=2, n_block=1, d_latent=6)
SIZES = replace(PRESETS["tiny"], n_head=4)
VARIANTS = ("base", "pr", "split")

pytestmark = pytest.mark.usefixtures("single_thread")


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs(n=8, seed=1):
    """Two kinds of spectra, both of which depend on the same number a star."""
    star = numbers(n, 1, seed=seed)
    lrs = 1 + 0.1 * torch.sin(torch.linspace(0, 9, 57) + star) + 0.02 * numbers(n, 57, seed=seed + 1)
    return lrs, 1 + 0.3 * star.tanh() * torch.linspace(-1, 1, 23) + 0.02 * numbers(n, 23, seed=seed + 2)


def model(variant, seed=0, **options):
    return Alignment(SpectrumTransformer(LRS, 0), XPAutoencoder(XP, 0), replace(SIZES, variant=variant, **options), seed)


# what is trained -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_reaches_every_parameter_but_the_encoders(variant):
    m = model(variant)
    sum(m(*pairs()).values()).backward()
    for name, p in m.named_parameters():
        if name.startswith(("lrs.", "xp.")):
            assert p.grad is None, name
        elif name.endswith("attention.kv.bias"):
            d = len(p) // 2
            assert p.grad[d:].abs().max() > 0, name                           # the bias of k moves all logits alike and has no effect
        else:
            assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_learns_and_leaves_the_encoders_bit_for_bit(variant):
    m = model(variant)
    before = {k: v.clone() for k, v in m.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 3e-3, weight_decay=0.1)
    batch, history = pairs(16), []
    for _ in range(25):
        losses = m(*batch)
        history.append({k: v.item() for k, v in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(history[-1][k] < history[0][k] for k in losses)
    for name, value in m.state_dict().items():
        if name.startswith(("lrs.", "xp.")):
            assert torch.equal(value, before[name]), name
    moved = [name for name, p in m.named_parameters() if p.requires_grad and torch.equal(p, before[name])]
    assert not moved


def test_losses_by_name():
    assert set(model("base")(*pairs())) == {"contrast"}
    for variant in ("pr", "split"):
        assert set(model(variant)(*pairs())) == {"contrast", "reconstruct", "predict"}


def test_learnable_scale_starts_where_the_fixed_one_is():
    fixed, learnable, batch = model("base"), model("base", learnable_scale=True), pairs()
    assert sum(p.numel() for p in learnable.parameters()) == sum(p.numel() for p in fixed.parameters()) + 1
    loss = learnable(*batch)["contrast"]
    torch.testing.assert_close(loss, fixed(*batch)["contrast"])
    assert fixed.scale == 15.5
    assert learnable.scale.item() == pytest.approx(15.5)
    loss.backward()
    with torch.no_grad():
        step, at = 1e-2, learnable.log_scale.clone()
        values = []
        for sign in (1, -1):
            learnable.log_scale.copy_(at + sign * step)
            values.append(learnable(*batch)["contrast"].item())
    assert learnable.log_scale.grad.item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


def test_seed_decides_the_weights_and_leaves_the_global_generator():
    state = torch.get_rng_state()
    one, again, other = model("split"), model("split"), model("split", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in one.state_dict().items())
    assert not torch.equal(one.shared["lrs"].query, other.shared["lrs"].query)


# what is read --------------------------------------------------------------------------------------------------------------------------------

def test_losses_written_out():
    """Each term from the embeddings and decoders; targets are the flux, in units of the pixels' scatter once they are set."""
    m, (lrs, xp) = model("pr").eval().requires_grad_(False), pairs()
    for scaled in (False, True):
        if scaled:
            m.set_scaling(*pairs(50, seed=9))
        losses, a, b = m(lrs, xp), m.embed("lrs", lrs), m.embed("xp", xp)
        torch.testing.assert_close(losses["contrast"], info_nce(a, b, 15.5))
        s, t = (m.lrs_std, m.xp_std)
        error = lambda found, true, unit: ((found - true) / unit).abs().mean()                                         # noqa: E731
        torch.testing.assert_close(losses["predict"], error(m.predict("xp", xp), lrs, s) + error(m.predict("lrs", lrs), xp, t))
        torch.testing.assert_close(losses["reconstruct"], error(m.reconstruct("lrs", lrs), lrs, s) + error(m.reconstruct("xp", xp), xp, t))
    assert (m.lrs_std != 1).all()
    assert m.predict("xp", xp).shape == lrs.shape
    assert m.predict("lrs", lrs).shape == xp.shape


def test_published_targets():
    """LRS: reconstruction of the spectrum less its mean over its standard deviation (n - 1), prediction of the flux; XP: the flux in both."""
    m, (lrs, xp) = model("split", standardized=True).requires_grad_(False), pairs()
    losses = m(lrs, xp)
    f = lrs.numpy().astype("f8")
    standard = (f - f.mean(1, keepdims=True)) / f.std(1, ddof=1, keepdims=True)
    error = lambda found, true: np.abs(found.numpy() - np.asarray(true)).mean()                                        # noqa: E731
    m.train(False)
    losses = m(lrs, xp)
    assert float(losses["reconstruct"]) == pytest.approx(error(m.reconstruct("lrs", lrs), standard) + error(m.reconstruct("xp", xp), xp), rel=1e-5)
    assert float(losses["predict"]) == pytest.approx(error(m.predict("xp", xp), lrs) + error(m.predict("lrs", lrs), xp), rel=1e-5)
    assert PRESETS["paper"].standardized


def test_cross_prediction_reads_the_shared_part_alone():
    """In value and in gradient; the reconstruction reads both parts."""
    m, batch = model("split").eval(), pairs()
    before = m(*batch)
    predictions = [m.predict(k, x) for k, x in zip(("lrs", "xp"), batch, strict=True)]
    grads = torch.autograd.grad(before["predict"] + before["contrast"], list(m.private.parameters()), allow_unused=True, retain_graph=True)
    assert all(g is None for g in grads)
    assert all(g is not None for g in torch.autograd.grad(before["reconstruct"], [p for n, p in m.private.named_parameters()] + list(m.shared.parameters())))
    with torch.no_grad():
        for p in m.private.parameters():
            p.add_(numbers(*p.shape))
        after = m(*batch)
        for old, k, x in zip(predictions, ("lrs", "xp"), batch, strict=True):
            assert torch.equal(m.predict(k, x), old)
    assert torch.equal(after["predict"], before["predict"])
    assert torch.equal(after["contrast"], before["contrast"])
    assert not torch.equal(after["reconstruct"], before["reconstruct"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_and_size_of_the_batch(variant):
    m, (lrs, xp), order = model(variant).eval().requires_grad_(False), pairs(6), torch.tensor([5, 2, 0, 1, 4, 3])
    losses = m(lrs, xp)
    for k, v in m(lrs[order], xp[order]).items():
        torch.testing.assert_close(v, losses[k])
    for kind, flux in (("lrs", lrs), ("xp", xp)):
        out = m.embed(kind, flux)
        torch.testing.assert_close(m.embed(kind, flux[order]), out[order])
        torch.testing.assert_close(m.embed(kind, flux[:1]), out[:1])
        if variant != "base":
            torch.testing.assert_close(m.predict(kind, flux[:1]), m.predict(kind, flux)[:1])


def test_masked_windows_are_not_attended_to():
    m, (lrs, _), mask = model("base").eval().requires_grad_(False), pairs(2), torch.zeros(2, 57, dtype=torch.bool)
    mask[1, 20:32] = True
    hidden = m.lrs.masked_tokens(mask)
    assert hidden.sum() > 0
    out = m.embed("lrs", lrs, mask)
    torch.testing.assert_close(out[0], m.embed("lrs", lrs)[0])
    tokens = m.lrs.encode(m.lrs.tokenize(lrs), hidden)
    torch.testing.assert_close(out[1:], m.shared["lrs"](tokens[1:, ~hidden[1]]))


# decoders ------------------------------------------------------------------------------------------------------------------------------------

def test_decoders_written_out():
    with torch.random.fork_rng(devices=[]):
        decoder, joined = Decoder(3, (4, 2), 5, 0.0).eval().requires_grad_(False), JoinedDecoder(3, 2, 6, 5).requires_grad_(False)
    x, y = numbers(4, 3), numbers(4, 2)
    gelu, out = torch.nn.functional.gelu, x
    for linear, norm in zip(decoder.linears[:-1], decoder.norms, strict=True):
        norm.running_mean.copy_(numbers(norm.num_features))
        out = (gelu(linear(out)) - norm.running_mean) / torch.sqrt(norm.running_var + 1e-5) * norm.weight + norm.bias
    torch.testing.assert_close(decoder(x), decoder.linears[-1](out))
    assert [linear.out_features for linear in decoder.linears] == [12, 6, 5]
    torch.testing.assert_close(joined(x, y), joined.out(gelu(joined.hidden(torch.cat([joined.shared(x), joined.private(y)], 1)))))


def test_batch_norm_of_one_process_is_torchs():
    ours, theirs, x = BatchNorm(4), nn.BatchNorm1d(4), 3 + numbers(9, 4)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


# sizes, cards, refusals ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("variant", "published"), [("base", 99_710_814), ("pr", 168_293_752), ("split", 126_229_506)])
def test_paper_sizes(variant, published):
    from spectrakit.models import spectrum_transformer, xp_autoencoder
    with torch.device("meta"):
        m = Alignment(SpectrumTransformer(spectrum_transformer.PRESETS["paper"], 0), XPAutoencoder(xp_autoencoder.PRESETS["paper"], 0),
                      replace(PRESETS["paper"], variant=variant), 0)
    assert sum(p.numel() for p in m.parameters()) == published
    frozen = sum(p.numel() for p in m.parameters() if not p.requires_grad)
    assert frozen == 42_677_013 + 42_846_129
    if variant == "base":
        assert published - frozen == 14_187_672
    if variant == "pr":
        assert {k: sum(p.numel() for p in m.predictors[k].parameters()) for k in ("lrs", "xp")} == {"lrs": 25_754_038, "xp": 8_537_431}
    if variant == "split":
        assert {k: sum(p.numel() for p in m.predictors[k].parameters()) for k in ("lrs", "xp")} == {"lrs": 12_451_254, "xp": 3_856_727}
        assert {k: sum(p.numel() for p in m.restorers[k].parameters()) for k in ("lrs", "xp")} == {"lrs": 13_954_790, "xp": 971_033}


@pytest.mark.parametrize("variant", VARIANTS)
def test_card_and_weights_make_the_model_again(variant, tmp_path):
    m, batch = model(variant, learnable_scale=True).eval(), pairs()
    if variant != "base":
        m.set_scaling(*pairs(30, seed=4))
    save_tensors(tmp_path / "pair", dict(m.state_dict()), {"card": m.card()})
    tensors, meta = load_tensors(tmp_path / "pair")
    again = Alignment.from_card(meta["card"]).eval()
    again.load_state_dict(tensors)
    assert asdict(again.config) == asdict(m.config)
    assert again.card() == json.loads(json.dumps(again.card()), object_hook=lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()})
    for k, v in m(*batch).items():
        assert torch.equal(again(*batch)[k], v)


def test_scaling_uses_mean_and_scatter_of_each_pixel():
    m, (lrs, xp) = model("pr"), pairs(40)
    m.set_scaling(lrs, xp)
    np.testing.assert_allclose(m.lrs_mean, lrs.numpy().mean(0), rtol=1e-5)
    np.testing.assert_allclose(m.xp_std, xp.numpy().std(0, ddof=1), rtol=1e-4)
    with torch.no_grad():
        for p in m.predictors["xp"].linears[-1].parameters():
            p.zero_()
    torch.testing.assert_close(m.predict("lrs", lrs), m.xp_mean.expand(40, -1))


def test_refusals():
    with pytest.raises(MismatchError, match="No variant 'both'; there are: base, pr, split."):
        model("both")
    for variant, options in (("base", {}), ("pr", {"standardized": True})):
        with pytest.raises(MismatchError, match="no decoders, or those of the published targets: there is nothing to scale"):
            model(variant, **options).set_scaling(*pairs())
    lrs, xp = pairs()
    xp[2, 3] = torch.nan
    with pytest.raises(SpectrumError, match="The xp fluxes hold NaN or infinite values; mask these pixels and fill them"):
        model("pr").set_scaling(lrs, xp)


def test_a_pixel_divided_by_itself_keeps_its_unit():
    """XP at 550 nm is 1 in every spectrum."""
    m, (lrs, xp) = model("pr"), pairs()
    xp[:, 7] = 1.0
    m.set_scaling(lrs, xp)
    assert (m.xp_std == 1).nonzero().tolist() == [[7]]
    assert m.xp_mean[7] == 1
    assert all(torch.isfinite(v) for v in m(lrs, xp).values())
