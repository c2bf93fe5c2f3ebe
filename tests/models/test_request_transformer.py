"""What both request models share: tokens, attention against torch's own, masks, independence of requests, the loss; a tiny problem learnt by heart."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example as instance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from spectrakit.models.request_transformer import FLOOR, Attention, RequestConfig, RequestTransformer, gaussian_loss
from spectrakit.models.tokens import PADDING, PERIODS, Tokens, join, sinusoids
from spectrakit.pretraining.requests import RequestLoss

TINY = RequestConfig(16, ((4, 24), (2, 12)), ((4, 32), (2, 16), (1, 8)), (24, 12), n_context=8, dropout=0.0)
N_IDENTITY = 9

pytestmark = pytest.mark.usefixtures("single_thread")


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(n, n_tok, seed=1, first=1, waves=False):
    """Random tokens, no padding."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.randint(first, N_IDENTITY + 1, (n, n_tok), generator=generator)
    parts = [identity, torch.randn(n, n_tok, generator=generator), 0.1 * torch.rand(n, n_tok, generator=generator)]
    if waves:
        flux = identity == 1
        parts += [torch.where(flux, 4000 + 1600 * torch.rand(n, n_tok, generator=generator), 0.0), torch.where(flux, 1800.0, 0.0)]
    return Tokens(*parts)


@pytest.fixture(scope="module", params=[False, True], ids=["stars", "spectra"])
def network(request):
    model = RequestTransformer(TINY, N_IDENTITY, waves=request.param, seed=0).eval()
    model.centre.copy_(numbers(N_IDENTITY + 1, seed=5))
    model.spread.copy_(0.5 + numbers(N_IDENTITY + 1, seed=6).abs())
    return model


def example(network, n=5, n_context=6, n_request=4):
    waves = network.embedding.waves
    return tokens(n, n_context, seed=2, waves=waves), tokens(n, n_request, seed=3, waves=waves)


def same(a, b, tolerance=2e-6):
    return all(torch.allclose(x, y, atol=tolerance, rtol=1e-5) for x, y in zip(a, b, strict=True))


def test_a_pass_holds_as_many_stars_as_fit_and_changes_no_answer(network, monkeypatch):
    context, requests = example(network)
    whole, passes, encode = network(context, requests), [], network.encode
    monkeypatch.setattr(network, "encode", lambda part: passes.append(len(part.identity)) or encode(part))
    for together, expected in ((12, [2, 2, 1]), (3, [1] * 5), (4096, [5])):
        monkeypatch.setattr("spectrakit.models.request_transformer.TOGETHER", together)
        assert same(network(context, requests), whole) and passes == expected
        passes.clear()
    assert all(part.shape == (0, 4) for part in network(*example(network, n=0)))


# tokens --------------------------------------------------------------------------------------------------------------------------------------

def test_token_is_gelu_of_direction_times_value_plus_offset(network):
    if network.embedding.waves:
        pytest.skip("without wavelengths")
    e, t = network.embedding, tokens(2, 3)
    direction, offset = e.direction.weight[t.identity[1, 2]], e.offset.weight[t.identity[1, 2]]
    x = (direction * t.value[1, 2] + offset).detach().numpy()
    assert np.allclose(e(t)[1, 2].detach(), x * norm.cdf(x), atol=1e-6)
    assert torch.equal(e.request(t)[1, 2], direction)


def test_padding_is_an_identity_without_numbers(network):
    assert not network.embedding.direction.weight[PADDING].any()
    assert not network.embedding.offset.weight[PADDING].any()


def test_sinusoids_against_the_formula():
    x = numbers(2, 3) + 9
    found = sinusoids(x, (1e-3, 4.0), 8)
    periods = 1e-3 * (4.0 / 1e-3) ** (np.arange(4) / 3)
    phase = 2 * np.pi * x.double().numpy()[..., None] / periods
    assert np.allclose(found, np.concatenate([np.sin(phase), np.cos(phase)], -1), atol=1e-6)


def test_neighbouring_pixels_differ_and_labels_have_no_place():
    model = RequestTransformer(TINY, N_IDENTITY, waves=True, seed=0)
    place = lambda wave, resolution: model.embedding._place(Tokens(None, None, torch.zeros(1, 1), *(torch.tensor([[float(x)]]) for x in (wave, resolution))))  # noqa: E731
    assert not place(0, 0).any()
    assert (place(16000.0, 22500) - place(16000.5, 22500)).abs().max() > 0.1
    assert (place(5000.0, 1800) - place(5000.0, 3500)).abs().max() > 0.1
    assert PERIODS["wave"][0] * 16000 == 8.0


def test_turned_directions_change_fluxes_alone():
    plain, turned = (RequestTransformer(RequestConfig(16, ((2, 8),), ((2, 8),), (8,), 8, 0.0, turned), N_IDENTITY, True, 0).embedding for turned in (False, True))
    t = tokens(4, 6, waves=True)
    different = (plain(t) != turned(t)).any(-1)
    assert torch.equal(different, t.identity == 1)


# attention -----------------------------------------------------------------------------------------------------------------------------------

def test_attention_is_that_of_torch():
    """nn.MultiheadAttention with add_bias_kv, the published layer, with the same weights and padding."""
    with torch.random.fork_rng(devices=[]):
        own, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True)
        nn.init.normal_(own.extra)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in (own.q, own.k, own.v)]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in (own.q, own.k, own.v)]))
        theirs.out_proj.load_state_dict(own.out.state_dict())
        theirs.bias_k.copy_(own.extra[0])
        theirs.bias_v.copy_(own.extra[1])
    x, memory, padding = numbers(4, 5, 12), numbers(4, 7, 12, seed=2), torch.arange(7) >= torch.tensor([[7], [3], [1], [0]])
    expected, weights = theirs(x, memory, memory, key_padding_mask=padding, average_attn_weights=False)
    for return_weights in (False, True):
        found, own_weights = own(x, memory, padding, return_weights)
        assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(own_weights, weights, atol=1e-6)
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_attention_maps_are_shares_of_the_tokens(network):
    context, requests = example(network)
    identity = context.identity.clone()
    identity[:, 4:] = PADDING
    maps = network.attention(context._replace(identity=identity), requests)
    assert maps.shape == (5, 3, 4, 4, 6)
    assert torch.allclose(maps.sum(-1), torch.ones(5, 3, 4, 4), atol=1e-6)
    assert not maps[..., 4:].any()
    assert torch.equal(maps[:, 1, 0], maps[:, 1, 1]), "a block with half the heads repeats each"
    assert torch.equal(maps[:, 2, 0], maps[:, 2, 3])


def test_answers_do_not_depend_on_whether_maps_are_wanted(network):
    context, requests = example(network)
    memory, padding = network.encode(context)
    x = network.embedding.request(requests)
    for block in network.decoder:
        assert torch.allclose(block(x, memory, padding, True)[0], block(x, memory, padding)[0], atol=1e-5)


# what may change an answer, and what may not -------------------------------------------------------------------------------------------------

def test_order_of_the_context_does_not_matter(network):
    context, requests = example(network)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert same(network(context, requests), network(Tokens(*(None if p is None else p[:, order] for p in context)), requests))


def test_requests_are_answered_alike_together_and_alone(network):
    context, requests = example(network)
    together = network(context, requests)
    for i in range(4):
        alone = network(context, Tokens(*(None if p is None else p[:, i:i + 1] for p in requests)))
        assert same(alone, [part[:, i:i + 1] for part in together])


def test_stars_are_answered_alike_together_and_alone(network):
    context, requests = example(network)
    for i in range(5):
        assert same(network(context.rows([i]), requests.rows([i])), [part[[i]] for part in network(context, requests)])


def test_the_value_asked_for_is_not_read(network):
    context, requests = example(network)
    other = requests._replace(value=requests.value + 100, error=requests.error * 9)
    assert all(torch.equal(a, b) for a, b in zip(network(context, requests), network(context, other), strict=True))


def test_what_is_asked_for_and_what_is_known_are(network):
    """The rulers above can measure: both change every answer."""
    context, requests = example(network)
    mean, _ = network(context, requests)
    other, _ = network(context._replace(value=context.value + 1), requests)
    assert (mean != other).all()
    asked, _ = network(context, requests._replace(identity=requests.identity % N_IDENTITY + 1))
    assert (mean != asked).float().mean() > 0.9


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 5), st.floats(-1e6, 1e6))
@instance([True] * 6, 0, 0.0)
def test_masked_tokens_change_nothing(hidden, more, rubbish):
    """A star whose bad pixels are padding, whatever lies under it, is answered like one that never had them."""
    network = RequestTransformer(TINY, N_IDENTITY, waves=True, seed=0).eval()
    context, requests = tokens(2, 6, seed=2, waves=True), tokens(2, 3, seed=3, waves=True)
    hidden = torch.tensor(hidden)
    masked = context._replace(identity=context.identity.masked_fill(hidden, PADDING), value=context.value.masked_fill(hidden, rubbish))
    none = torch.zeros(2, more)
    padded = join(masked, Tokens(none.long(), none + rubbish, none, none, none))
    without = Tokens(*(part[:, ~hidden] for part in context))
    assert same(network(padded, requests), network(without, requests), 1e-5)


def test_gradients_of_an_answer_reach_the_context(network):
    context, requests = example(network)
    value = context.value.clone().requires_grad_()
    answer, _ = network.answer(context._replace(value=value), requests)
    answer[0, 1].backward()
    assert (value.grad[0] != 0).all()
    assert not value.grad[1:].any(), "no star looks at another"
    step = 1e-2
    moved = [network.answer(context._replace(value=context.value + sign * step * torch.eye(6)[2]), requests)[0][0, 1].item() for sign in (1, -1)]
    assert value.grad[0, 2].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=0.02, abs=1e-4)


def test_answers_are_in_the_units_of_what_was_asked(network):
    context, requests = example(network)
    mean, log_variance = network(context, requests)
    network.stretch[0, requests.identity[0, 0]] = 2.0
    value, sigma = network.answer(context, requests)
    network.stretch.fill_(1.0)
    i = requests.identity[0, 0]
    assert value[0, 0].item() == pytest.approx((mean[0, 0] * network.spread[i] + network.centre[i]).item(), rel=1e-6)
    assert sigma[0, 0].item() == pytest.approx((2 * log_variance[0, 0].div(2).exp() * network.spread[i]).item(), rel=1e-6)


def test_sigmas_are_stretched_by_the_span_that_was_read():
    """Row 1 for fluxes in the first span, 2 in the second, 0 for labels alone or no token at all."""
    network = RequestTransformer(TINY, N_IDENTITY, waves=True, seed=0, spans=((3000.0, 3900.0), (4000.0, 5600.0))).eval()
    optical, requests = tokens(1, 5, waves=True)._replace(identity=torch.tensor([[1, 2, 1, 0, 1]])), tokens(1, 2, seed=4, waves=True)
    for wave, row in ((3500.0, 1), (4500.0, 2), (0.0, 0), (9000.0, 0)):
        context = optical._replace(wave=torch.where(optical.identity == 1, wave, 0.0))
        before = network.answer(context, requests)
        network.stretch[row] = 3.0
        after = network.answer(context, requests)
        network.stretch.fill_(1.0)
        assert network.span(context).tolist() == [row] and torch.equal(before[0], after[0]) and torch.allclose(3 * before[1], after[1])
    assert network.span(tokens(2, 0, waves=True)).tolist() == [0, 0]


def test_variance_has_a_floor(network):
    with torch.no_grad():
        bias = network.log_variance.bias.clone()
        network.log_variance.bias.fill_(-200.0)
        _, log_variance = network(*example(network))
        network.log_variance.bias.copy_(bias)
    assert torch.allclose(log_variance, torch.tensor(math.log(FLOOR)))


# loss ----------------------------------------------------------------------------------------------------------------------------------------

@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-8, 4), st.floats(0, 3))
def test_loss_is_minus_the_log_density(value, mean, log_variance, error):
    parts = (torch.tensor(x, dtype=torch.float64) for x in (value, mean, log_variance, error))
    assert gaussian_loss(*parts).item() == pytest.approx(-norm.logpdf(value, mean, math.sqrt(math.exp(log_variance) + error**2)), rel=1e-9, abs=1e-9)


def test_loss_is_least_at_the_true_scatter():
    residual, error = 0.7 * numbers(4000), 0.3
    variances = torch.linspace(0.05, 1.5, 300)
    losses = torch.stack([gaussian_loss(residual, torch.zeros(4000), v.log().expand(4000), torch.full((4000,), error)).mean() for v in variances])
    assert variances[losses.argmin()].item() == pytest.approx(residual.square().mean().item() - error**2, abs=0.02)


def test_mean_loss_leaves_padding_out(network):
    context, requests = example(network)
    loss = RequestLoss(network)
    flat = lambda *sets: [part for t in sets for part in t if part is not None]                                    # noqa: E731
    padded = requests._replace(identity=requests.identity.masked_fill(torch.arange(4) == 3, PADDING))
    shorter = Tokens(*(None if p is None else p[:, :3] for p in requests))
    one, other = loss(*flat(context, padded)), loss(*flat(context, shorter))
    assert set(one) == ({"labels", "flux"} if network.embedding.waves else {"values"})
    for name in one:
        if not one[name].isnan():
            assert one[name].item() == pytest.approx(other[name].item(), rel=1e-5)


def test_loss_against_a_loop(network):
    if network.embedding.waves:
        pytest.skip("one term")
    context, requests = example(network)
    mean, log_variance = network(context, requests)
    expected = []
    for star in range(5):
        for i in range(4):
            k = requests.identity[star, i]
            value, error = (requests.value[star, i] - network.centre[k]) / network.spread[k], requests.error[star, i] / network.spread[k]
            expected.append(-norm.logpdf(value, mean[star, i].item(), math.sqrt(math.exp(log_variance[star, i].item()) + error**2)))
    found = RequestLoss(network)(*context[:3], *requests[:3])["values"]
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_tiny_problem_is_learnt():
    """b = 2 a, c = a^2 with scatter 0.3; asked for in one pass, from a alone. The scatter is found, and where there is none it is small."""
    model, generator = RequestTransformer(RequestConfig(32, ((2, 32),), ((2, 32),), (32,), 8, 0.0), 3, waves=False, seed=0), torch.Generator().manual_seed(0)
    loss = RequestLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)

    def draw(n):
        a = 2 * torch.rand(n, 1, generator=generator) - 1
        c = a**2 + 0.3 * torch.randn(n, 1, generator=generator)
        none = torch.zeros(n, 1)
        return (torch.ones(n, 1).long(), a, none), (torch.tensor([2, 3]).expand(n, 2), torch.cat([2 * a, c], 1), torch.zeros(n, 2))

    for step in range(500):
        context, requests = draw(64)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 500)
        optimizer.zero_grad()
        loss(*context, *requests)["values"].backward()
        optimizer.step()
    context, requests = draw(2000)
    value, sigma = model.answer(Tokens(*context), Tokens(*requests))
    assert (value[:, 0] - requests[1][:, 0]).std() < 0.15
    assert (value[:, 1] - context[1][:, 0] ** 2).std() < 0.12
    assert sigma[:, 1].mean().item() == pytest.approx(0.3, abs=0.05)
    assert sigma[:, 0].median() < 0.15
