"""Heads on any features: they find what is there, and the scatter they state is that of rows they have not seen."""

import pytest
import torch
from astropy.stats import biweight_scale
from torch import nn

from spectrakit.errors import MismatchError
from spectrakit.models.heads import LabelHead
from spectrakit.pretraining import fit_heads, head_loss, heads
from spectrakit.threads import one_thread


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(heads, "STEPS", 500)
    with one_thread():
        yield


def two_heads(d=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ModuleDict({name: LabelHead(d, (16,), dropout=0.0) for name in ("teff", "feh")})


def made(n=1500):
    """A label in K with noise of 120 K, one in dex with 0.25 dex."""
    x = 3 + 2 * numbers(n, 5)
    teff, feh = 5000 + 300 * x[:, 0] + 120 * numbers(n, seed=2), 0.5 * x[:, 1] - 0.2 * x[:, 2] + 0.25 * numbers(n, seed=3)
    return x, torch.stack([teff, feh], 1)


def test_scatter_is_that_of_the_noise_on_rows_not_seen(tmp_path):
    modules, (x, y) = two_heads(), made()
    sigma = fit_heads(modules, x, y, tmp_path, seed=0)
    assert list(sigma) == ["teff", "feh"]
    for column, (name, noise) in enumerate((("teff", 120.0), ("feh", 0.25))):
        assert not modules[name].training
        with torch.no_grad():
            residual = (modules[name](x[:150])[:, 0] - y[:150, column]).numpy()
        assert sigma[name] == pytest.approx(biweight_scale(residual), rel=1e-5)
        assert 0.85 * noise < sigma[name] < 1.3 * noise                                 # 150 rows tell it to 6 %; the head is not the line itself
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head_feh.csv", "head_feh.safetensors", "head_teff.csv", "head_teff.safetensors"]


def test_the_held_out_tenth_is_not_trained_on(tmp_path, monkeypatch):
    """Whatever stands in it: the same weights, another scatter."""
    monkeypatch.setattr(heads, "STEPS", 20)
    one, other, (x, y) = two_heads(), two_heads(), made()
    spoilt = y.clone()
    spoilt[:150] = 10 * y[:150] + 77
    spoilt_x = x.clone()
    spoilt_x[:150] = 0.0
    sigmas = fit_heads(one, x, y, tmp_path / "one", seed=0), fit_heads(other, spoilt_x, spoilt, tmp_path / "other", seed=0)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert sigmas[0]["teff"] != sigmas[1]["teff"]


def test_head_loss_written_out():
    head, x, y = two_heads()["teff"].eval(), numbers(6, 5), 5000 + 200 * numbers(6, 1, seed=2)
    head.set_scaling(numbers(50, 5, seed=4), 5000 + 300 * numbers(50, 1, seed=5))
    with torch.no_grad():
        error = (head(x) - y).abs() / head.y_std
        expected = torch.where(error < 0.3, 0.5 * error**2 / 0.3, error - 0.15).mean()
        torch.testing.assert_close(head_loss(head, x, y), expected)


@pytest.mark.parametrize(("n", "k", "message"), [(200, 3, "2 heads and 200 features, but 200 rows of 3 labels; give one row a feature and one column a head."),
                                                 (99, 2, "99 rows; a tenth of them is held out to measure the scatter, so at least 100 are needed.")])
def test_refusals(tmp_path, n, k, message):
    with pytest.raises(MismatchError, match=message):
        fit_heads(two_heads(), numbers(n, 5), numbers(n, k), tmp_path, seed=0)
    with pytest.raises(MismatchError, match="2 heads and 150 features, but 149 rows of 2 labels"):
        fit_heads(two_heads(), numbers(150, 5), numbers(149, 2), tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
