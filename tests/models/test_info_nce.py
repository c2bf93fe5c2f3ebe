"""InfoNCE against loops and by hand; and the contrastive stage on two processes against one."""

import math

import numpy as np
import pytest
import torch

from spectrakit.models.alignment import gather, info_nce
from spectrakit.weights import load_tensors


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_info_nce_against_a_loop():
    a, b, scale = numbers(7, 5), numbers(7, 5, seed=2), 3.7
    unit = lambda x: x / math.sqrt(sum(float(v) ** 2 for v in x))                                                     # noqa: E731
    cosine = np.array([[float(unit(x) @ unit(y)) for y in b] for x in a])
    loss = 0.0
    for i in range(7):
        for row in (cosine[i], cosine[:, i]):
            loss -= math.log(math.exp(scale * row[i]) / sum(math.exp(scale * c) for c in row))
    assert float(info_nce(a, b, scale)) == pytest.approx(loss / 14, rel=1e-5)


def test_info_nce_of_two_pairs_by_hand():
    """Cosines [[1, 0], [3/5, 4/5]] times 5 are logits [[5, 0], [3, 4]]: -log of 1/(1+e^-5), 1/(1+e^-1) by rows and 1/(1+e^-2), 1/(1+e^-4) by columns."""
    a, b = torch.tensor([[2.0, 0.0], [0.6, 0.8]]), torch.tensor([[7.0, 0.0], [0.0, 1.0]])
    expected = sum(math.log1p(math.exp(-x)) for x in (5, 1, 2, 4)) / 4
    assert float(info_nce(a, b, 5.0)) == pytest.approx(expected, rel=1e-6)


def test_scales_from_zero_to_far_too_large():
    """0: a guess among n. Large: nothing left to gain where the pairs are nearest, a finite price where they are not."""
    a = numbers(6, 8)
    assert float(info_nce(a, numbers(6, 8, seed=2), 0.0)) == pytest.approx(math.log(6), rel=1e-6)
    assert float(info_nce(a, a, 1e4)) == pytest.approx(0, abs=1e-6)
    x = a.clone().requires_grad_()
    wrong = info_nce(x, a.roll(1, 0), 1e4)
    cosine = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(a.roll(1, 0)).T
    assert wrong.item() == pytest.approx(float(1e4 * (1 - cosine.diag().mean())), rel=1e-4)
    wrong.backward()
    assert torch.isfinite(x.grad).all()


def test_vectors_without_a_length():
    zero = torch.zeros(3, 4, requires_grad=True)
    loss = info_nce(zero, numbers(3, 4), 15.5)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)
    assert torch.isfinite(zero.grad).all()


def test_short_vectors_are_divided_by_a_thousandth():
    """Of length 0.0005 they count half."""
    loss = info_nce(5e-4 * torch.eye(2), torch.eye(2), 4.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-6)


def test_order_length_and_role_do_not_matter():
    a, b, order = numbers(6, 5), numbers(6, 5, seed=2), torch.tensor([3, 5, 0, 2, 1, 4])
    loss = info_nce(a, b, 15.5)
    for other in (info_nce(a[order], b[order], 15.5), info_nce(b, a, 15.5), info_nce(3 * a, 0.1 * b, 15.5)):
        torch.testing.assert_close(other, loss)
    assert info_nce(a, b[order], 15.5) != loss


def test_half_precision_does_not_reach_the_logits():
    a, b = numbers(6, 5), numbers(6, 5, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(a, b, 15.5), info_nce(a, b, 15.5))
        inside = info_nce(a, b, 15.5)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, info_nce(a, b, 15.5), rtol=0, atol=0)


def test_one_process_gathers_its_own_rows():
    a = numbers(3, 2)
    assert gather(a) is a


# several processes ---------------------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from pathlib import Path
from dataclasses import replace
from spectrakit.models.alignment import PRESETS, Alignment
from spectrakit.models.spectrum_transformer import SpectrumTransformer, TransformerConfig
from spectrakit.models.xp_autoencoder import AutoencoderConfig, XPAutoencoder
from spectrakit.training import TrainConfig, train
lrs = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=1, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
xp = AutoencoderConfig(n_pix=23, d_hidden=10, widening=2, n_block=1, d_latent=6)
model = Alignment(SpectrumTransformer(lrs, 0), XPAutoencoder(xp, 0), replace(PRESETS["tiny"], variant="pr", learnable_scale=True), 0).double()
generator = torch.Generator().manual_seed(1)
stars = torch.randn(64, 1, generator=generator, dtype=torch.double)
data = 1 + 0.1 * torch.sin(torch.linspace(0, 9, 57) + stars), 1 + 0.3 * stars.tanh() * torch.linspace(-1, 1, 23) + 0.1 * stars.cos()
def batches(step):                                          # one epoch: every star once, 16 a step
    return tuple(x[16 * step:16 * step + 16] for x in data)
train(model, batches, TrainConfig(4, 1e-2, 0, warmup=1, save_every=4), Path(sys.argv[1]), "run")
"""


def test_an_epoch_on_two_processes_is_one_on_the_same_global_batch(tmp_path, launch):
    """Negatives of both, statistics of both, gradients to both: weights, running statistics and scale agree to rounding, in double precision."""
    launch(SCRIPT, tmp_path)
    one, two = (load_tensors(tmp_path / folder / "run.safetensors")[0] for folder in ("one", "two"))
    assert one.keys() == two.keys()
    assert any("log_scale" in name for name in one)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-7, atol=1e-9, msg=name)
