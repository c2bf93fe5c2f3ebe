"""The projection heads: their published sizes, attention against a loop and against torch's own module, and LoRA3 with nothing dead in it."""

import pytest
import torch
from torch import nn

from spectrakit.models.projection import CrossAttention, CrossAttentionHead, PerceptronHead


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make, *args):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make(*args)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def lrs():
    return seeded(CrossAttentionHead, 10, 12, 3, 0.0).requires_grad_(False)


@pytest.fixture
def xp():
    return seeded(PerceptronHead, 5, 12, 17, 0.0).requires_grad_(False)


def test_paper_sizes():
    with torch.device("meta"):
        assert count(CrossAttentionHead(768, 768, 4, 0.1)) == 7_087_104
        assert count(PerceptronHead(768, 768, 1160, 0.1)) == 7_100_568
        assert count(CrossAttentionHead(768, 512, 4, 0.1)) + count(CrossAttentionHead(768, 256, 2, 0.1)) == 4_465_664
        assert count(PerceptronHead(768, 512, 1160, 0.1)) + count(PerceptronHead(768, 256, 1160, 0.1)) == 5_006_896


def test_cross_attention_against_a_loop_and_against_torch(lrs):
    attention, query, tokens = lrs.attention, lrs.query, numbers(2, 7, 10)
    used = attention(query, tokens)
    shown, weights = attention(query, tokens, return_weights=True)
    q, (k, v) = attention.q(query), attention.kv(tokens).split(12, dim=-1)
    expected = torch.zeros(2, 12)
    for n in range(2):
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            scores = torch.tensor([float(q[part] @ k[n, j, part]) / 2 for j in range(7)])
            share = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(weights[n, head], share)
            expected[n, part] = sum(share[j] * v[n, j, part] for j in range(7))
    torch.testing.assert_close(used, attention.out(expected))
    torch.testing.assert_close(shown, used)
    torch.testing.assert_close(lrs.attention_map(tokens), weights)


@pytest.mark.parametrize("hidden", [False, True])
def test_head_is_the_one_of_torchs_modules(lrs, hidden):
    """nn.MultiheadAttention with the same weights, then norm, then x + MLP(x): what the released code computes."""
    theirs = seeded(lambda: nn.MultiheadAttention(12, 3, batch_first=True, kdim=10, vdim=10))
    a = lrs.attention
    with torch.no_grad():
        for target, value in ((theirs.q_proj_weight, a.q.weight), (theirs.k_proj_weight, a.kv.weight[:12]), (theirs.v_proj_weight, a.kv.weight[12:]),
                              (theirs.in_proj_bias, torch.cat([a.q.bias, a.kv.bias])), (theirs.out_proj.weight, a.out.weight), (theirs.out_proj.bias, a.out.bias)):
            target.copy_(value)
        tokens, mask = numbers(4, 7, 10), None
        if hidden:
            mask = torch.zeros(4, 7, dtype=torch.bool)
            mask[0, 2:5], mask[3, 0] = True, True
        y = theirs(lrs.query.expand(4, 1, 12), tokens, tokens, key_padding_mask=mask)[0][:, 0]
        y = nn.functional.layer_norm(y, (12,), lrs.norm.weight, lrs.norm.bias)
        y = y + lrs.mlp.down(nn.functional.gelu(lrs.mlp.up(y)))
        torch.testing.assert_close(lrs(tokens, mask), y, rtol=1e-4, atol=1e-5)


def test_hidden_tokens_are_not_attended_to(lrs):
    tokens, hidden = numbers(2, 7, 10), torch.zeros(2, 7, dtype=torch.bool)
    hidden[:, 3:5] = True
    torch.testing.assert_close(lrs(tokens, hidden), lrs(tokens[:, [0, 1, 2, 5, 6]]))
    weights = lrs.attention_map(tokens, hidden)
    assert (weights[..., 3:5] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))


def test_order_of_spectra_and_of_tokens(lrs, xp):
    """The first changes the order of the results; the second nothing, a token's place is in its content."""
    tokens, latent, order = numbers(5, 7, 10), numbers(5, 5), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(lrs(tokens[order]), lrs(tokens)[order])
    torch.testing.assert_close(xp(latent[order]), xp(latent)[order])
    torch.testing.assert_close(lrs(tokens[:, torch.randperm(7, generator=torch.Generator().manual_seed(0))]), lrs(tokens), rtol=1e-4, atol=1e-5)
    assert lrs(tokens[:1]).shape == xp(latent[:1]).shape == (1, 12)                    # one spectrum stays a batch of one


def test_perceptron_head_written_out(xp):
    latent = numbers(3, 5)
    wide = nn.functional.gelu(nn.functional.layer_norm(xp.widen(xp.project(latent)), (17,), xp.norm_wide.weight, xp.norm_wide.bias))
    y = nn.functional.layer_norm(xp.narrow(wide), (12,), xp.norm.weight, xp.norm.bias)
    torch.testing.assert_close(xp(latent), y + xp.mlp.down(nn.functional.gelu(xp.mlp.up(y))))


def test_every_parameter_receives_a_gradient():
    for head, x in ((seeded(CrossAttentionHead, 10, 12, 3, 0.1), numbers(6, 7, 10)), (seeded(PerceptronHead, 5, 12, 17, 0.1), numbers(6, 5))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head(x).square().sum().backward()
        for name, p in head.named_parameters():
            assert p.grad.abs().max() > 0, name


def test_dropout_works_in_training_only():
    head, tokens = seeded(CrossAttentionHead, 10, 12, 3, 0.5).requires_grad_(False), numbers(2, 7, 10)
    assert torch.equal(head.eval()(tokens), head(tokens))
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(head.train()(tokens), head(tokens))


def test_every_linear_is_called_as_a_module(lrs):
    calls = set()
    linears = {name for name, m in lrs.named_modules() if isinstance(m, nn.Linear)}
    handles = [m.register_forward_hook(lambda *_, name=name: calls.add(name)) for name, m in lrs.named_modules() if name in linears]
    with torch.inference_mode():
        lrs.eval()(numbers(2, 7, 10))
    for handle in handles:
        handle.remove()
    assert calls == linears == {"attention.q", "attention.kv", "attention.out", "mlp.up", "mlp.down"}


def test_lora3_has_its_published_size_and_no_dead_weight():
    """Rank 16 on out, up and down: 147,456 parameters. B starts at 0, so A gets a gradient from the second step on."""
    from peft import LoraConfig, get_peft_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(CrossAttentionHead(768, 768, 4, 0.0), LoraConfig(r=16, lora_alpha=32, target_modules=["attention.out", "mlp.up", "mlp.down"]))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 147_456
    optimizer, tokens, target = torch.optim.SGD(trained.values(), 1e-2), numbers(3, 5, 768), numbers(3, 768, seed=2)
    for _ in range(2):
        optimizer.zero_grad()
        (model(tokens) - target).square().mean().backward()
        optimizer.step()
    for name, p in trained.items():
        assert (p.grad != 0).float().mean() > 0.99, name


def test_torchs_own_attention_never_calls_its_output_layer():
    """Why this file has its own: the hook of an adapter would not be reached. If this fails, torch has changed."""
    theirs, called = seeded(lambda: nn.MultiheadAttention(12, 3, batch_first=True)), []
    theirs.out_proj.register_forward_hook(lambda *_: called.append(1))
    theirs(numbers(2, 1, 12), numbers(2, 7, 12), numbers(2, 7, 12))
    assert not called


def test_cross_attention_takes_another_width_of_tokens():
    attention = seeded(CrossAttention, 10, 12, 3)
    assert attention.kv.weight.shape == (24, 10)
    assert attention(numbers(12), numbers(2, 4, 10)).shape == (2, 12)
