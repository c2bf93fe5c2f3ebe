"""The label head: its size, its scaling, and statistics that stay when frozen."""

import pytest
import torch
from torch import nn

from spectrakit.errors import MismatchError
from spectrakit.models.heads import LabelHead


def made(*args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LabelHead(*args, **options)


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_in", "count"), [(768, 1_348_353), (1462, 2_059_009)])
def test_parameter_counts(n_in, count):
    assert sum(p.numel() for p in made(n_in).parameters() if p.requires_grad) == count


def test_linear_layers_are_plain_and_named():
    names = [name for name, module in made(8).named_modules() if type(module) is nn.Linear]
    assert names == ["linears.0", "linears.1", "linears.2", "linears.3"]


def test_forward_is_the_sequential_network_between_two_scalings():
    head = made(6, hidden=(5, 4), n_out=2).eval()
    x, y = numbers(50, 6) * 3 + 7, numbers(50, 2, seed=2) * 100 + 5000
    head.set_scaling(x, y)
    head.norms[0].running_mean.fill_(0.3)
    plain = nn.Sequential(head.linears[0], head.norms[0], nn.ReLU(), head.linears[1], head.norms[1], nn.ReLU(), head.linears[2]).eval()
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(head(x), plain(scaled) * y.std(0, correction=0) + y.mean(0))


def test_scaling_makes_units_immaterial_and_keeps_constant_features_finite():
    x, y = numbers(40, 6), numbers(40, 1, seed=2)
    x[:, 2] = 0.1
    one, other = made(6, hidden=(5,)).eval(), made(6, hidden=(5,)).eval()
    one.set_scaling(x, y)
    other.set_scaling(1000 * x, 50 * y + 3)
    torch.testing.assert_close(other(1000 * x), 50 * one(x) + 3)
    assert torch.isfinite(one(x)).all()
    assert one.x_std[2] == 1
    with pytest.raises(MismatchError, match="7 features given; this head has 6."):
        one.set_scaling(numbers(4, 7), y[:4])
    with pytest.raises(MismatchError, match="2 labels given; this head has 1."):
        one.set_scaling(x[:4], numbers(4, 2))


def test_scaling_travels_with_the_weights():
    head, copy = made(6, hidden=(5,)).eval(), made(6, hidden=(5,), seed=3).eval()
    head.set_scaling(numbers(40, 6) + 2, numbers(40, 1, seed=2))
    copy.load_state_dict(head.state_dict())
    torch.testing.assert_close(copy(numbers(3, 6)), head(numbers(3, 6)))


def test_frozen_statistics_stay_while_everything_else_trains():
    head = made(6, hidden=(5, 4), dropout=0.0)  # dropout would draw from the global generator
    x = numbers(30, 6)
    head.train()(x)
    learned = head.norms[0].running_mean.clone()
    assert (learned != 0).any()
    head.freeze_statistics()
    head.train()
    assert head.training
    assert head.dropout.training
    assert not any(norm.training for norm in head.norms)
    head(x + 5).sum().backward()
    assert torch.equal(head.norms[0].running_mean, learned)
    assert head.linears[0].weight.grad is not None
    assert head.norms[0].weight.grad is not None
    assert not head.eval().training
    assert head.train()(x[:1]).shape == (1, 1)  # a batch of one is possible now
