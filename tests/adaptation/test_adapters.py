"""Adapters change the output, can be switched off, and leave everything else alone."""

import copy

import pytest
import torch

from spectrakit.adaptation.adapters import LabelNetwork, insert, label_network, trainable
from spectrakit.models.shipped import load_model

CASES = [("lora1",), ("lora2",), ("lora1", "lora2")]


@pytest.fixture(scope="module")
def flux():
    generator = torch.Generator().manual_seed(0)
    return 1 - 0.3 * torch.rand(24, 1462, generator=generator) ** 4, torch.zeros(24, 1462, dtype=torch.bool)


def fresh() -> LabelNetwork:
    model = load_model("tiny")
    return LabelNetwork(model.encoder, model.heads["feh"])


def trained(placement, flux):
    """The base as it was, and an adapted copy after three steps on made-up labels."""
    base = fresh()
    model = insert(copy.deepcopy(base), placement, seed=1)
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-2)
    model.train()
    for _ in range(3):
        loss = (model(*flux) - torch.linspace(-2, 0, 24)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return base, model


@pytest.mark.parametrize("placement", CASES)
def test_inserting_changes_no_bit(placement, flux):
    base = fresh().eval()
    model = insert(copy.deepcopy(base), placement, seed=1).eval()
    assert torch.equal(model(*flux), base(*flux))


@pytest.mark.parametrize("placement", CASES)
def test_every_adapter_weight_learns_and_nothing_else_moves(placement, flux):
    base, model = trained(placement, flux)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable(model).values())
    adapted = dict(label_network(model).state_dict())
    for name, value in base.state_dict().items():                # weights and BatchNorm buffers
        kept = [k for k in adapted if k.replace(".base_layer", "") == name]
        assert len(kept) == 1 and torch.equal(adapted[kept[0]], value), name


@pytest.mark.parametrize("placement", CASES)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("grad", [True, False])
def test_switching_off_restores_the_base_bit_for_bit(placement, mode, grad, flux):
    base, model = trained(placement, flux)
    getattr(base, mode)(), getattr(model, mode)()
    with torch.set_grad_enabled(grad):
        assert not torch.allclose(model(*flux), base(*flux), atol=1e-3), "the adapter has no effect"
        with model.disable_adapter():
            assert torch.equal(model(*flux), base(*flux))


def test_rank_of_each_update_is_at_most_the_declared_one(flux):
    _, model = trained(("lora1", "lora2"), flux)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "base_layer" in dict(module.named_children()):
            for adapter, rank in (("lora1", 4), ("lora2", 8)):
                if adapter in module.lora_A:
                    update = module.lora_B[adapter].weight @ module.lora_A[adapter].weight
                    assert torch.linalg.matrix_rank(update) <= rank, name


def test_same_seed_same_adapter():
    a, b, c = (trainable(insert(fresh(), ("lora1",), seed=s)) for s in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)
