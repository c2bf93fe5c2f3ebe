"""Adapters change the output, can be switched off, and leave everything else alone."""

import copy

import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.adapters import insert, label_network, load, state, switched, trainable
from spectrakit.adaptation.network import LabelNetwork
from spectrakit.adaptation.placements import PLACEMENTS
from spectrakit.threads import one_thread

CASES = [("lora1",), ("lora2",), ("lora3",), ("lora4",), ("lora1", "lora2"), ("lora1", "lora3", "lora4")]


def fresh(placement) -> LabelNetwork:
    projected = any(PLACEMENTS[p].embedding == "projected" for p in placement if p in PLACEMENTS)
    return sk.load_model("tiny_aligned" if projected else "tiny").network("feh")


def steps(model, flux, n, lr=1e-2):
    """Gradients of each of ``n`` steps on made-up labels."""
    optimizer, seen = torch.optim.AdamW(trainable(model).values(), lr=lr, weight_decay=0.0), []
    model.train()
    for _ in range(n):
        loss = (model(*flux) - torch.linspace(-2, 0, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        seen.append({name: p.grad.clone() for name, p in trainable(model).items()})
        optimizer.step()
    return seen


@pytest.fixture(scope="module", params=CASES, ids="+".join)
def trained(request, flux):
    """The base as it was, and an adapted copy after three steps."""
    base = fresh(request.param)
    model = insert(copy.deepcopy(base), request.param, seed=1)
    with one_thread():
        steps(model, flux, 3)
    return base, model


@pytest.mark.parametrize("placement", CASES, ids="+".join)
def test_inserting_changes_no_bit(placement, flux):
    base = fresh(placement).eval()
    model = insert(copy.deepcopy(base), placement, seed=1).eval()
    assert torch.equal(model(*flux), base(*flux))


def test_every_adapter_weight_learns_and_nothing_else_moves(trained):
    base, model = trained
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable(model).values())
    adapted = dict(label_network(model).state_dict())
    for name, value in base.state_dict().items():                # weights and BatchNorm buffers
        kept = [k for k in adapted if k.replace(".base_layer", "") == name]
        assert len(kept) == 1 and torch.equal(adapted[kept[0]], value), name


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("grad", [True, False])
def test_switching_off_restores_the_base_bit_for_bit(trained, mode, grad, flux):
    base, model = trained
    getattr(base, mode)(), getattr(model, mode)()
    with torch.set_grad_enabled(grad):
        assert not torch.allclose(model(*flux), base(*flux), atol=1e-3), "the adapter has no effect"
        with model.disable_adapter():
            assert torch.equal(model(*flux), base(*flux))
        for name in model.peft_config:                           # each alone: it acts, and at strength 0 it does not
            with switched(model, (name,)):
                assert not torch.allclose(model(*flux), base(*flux), atol=1e-4), name
            with switched(model, (name,), strength=0):
                assert torch.equal(model(*flux), base(*flux))


def test_one_placement_alone_is_the_network_with_the_others_set_to_zero(trained, flux):
    _, model = trained
    model.eval()
    values = state(model)
    for name in model.peft_config:
        with switched(model, (name,)):
            alone = model(*flux)
        load(model, {k: v if name in k.split(".") else torch.zeros_like(v) for k, v in values.items()})
        assert torch.equal(model(*flux), alone)
        load(model, values)


@pytest.mark.parametrize("placement", ["lora1", "lora3"])
def test_every_single_number_has_a_gradient_within_two_steps(placement, flux):
    first, second = steps(insert(fresh((placement,)), (placement,), seed=1), flux, 2)
    assert all(((first[name] != 0) | (second[name] != 0)).all() for name in first)


@pytest.mark.parametrize("placement", ["lora2", "lora4"])
def test_every_single_number_of_a_head_has_a_gradient_unless_its_unit_never_fires(placement):
    network = fresh((placement,))
    embedding = network.head.x_mean + network.head.x_std * 3 * torch.randn(2000, len(network.head.x_mean), generator=torch.Generator().manual_seed(0))
    fired = [torch.zeros(norm.num_features, dtype=torch.bool) for norm in network.head.norms]

    def note(units):
        def hook(module, x, y):
            units.logical_or_((y > 0).any(0))
        return hook
    for norm, units in zip(network.head.norms, fired, strict=True):
        norm.register_forward_hook(note(units))
    model = insert(network, (placement,), seed=1)
    optimizer, moved = torch.optim.AdamW(trainable(model).values(), lr=1e-4, weight_decay=0.0), {}
    for _ in range(2):
        network.run(embedding, first=2)[0].square().mean().backward()
        moved = {name: moved.get(name, False) | (p.grad != 0) for name, p in trainable(model).items()}
        optimizer.step()
        optimizer.zero_grad()
    inputs = [torch.ones(len(network.head.x_mean), dtype=torch.bool), *fired]
    for name, has in moved.items():
        layer = int(name.split("linears.")[1][0])
        alive = inputs[layer].expand_as(has) if "lora_A" in name else [*fired, torch.ones(1, dtype=torch.bool)][layer][:, None].expand_as(has)
        assert torch.equal(has, alive), name
    assert sum(int((~units).sum()) for units in fired) <= 0.2 * sum(map(len, fired))


def test_rank_of_each_update_is_at_most_the_declared_one(trained):
    _, model = trained
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "base_layer" in dict(module.named_children()):
            for adapter, A in module.lora_A.items():
                assert torch.linalg.matrix_rank(module.lora_B[adapter].weight @ A.weight) <= PLACEMENTS[adapter].rank, name


def test_same_seed_same_adapter():
    a, b, c = (trainable(insert(fresh(("lora1",)), ("lora1",), seed=s)) for s in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)


def test_head_and_residual_train_what_they_say_and_start_from_the_base(flux):
    for name, prefix in (("head", "head."), ("residual", "residual.")):
        base = fresh((name,)).eval()
        model = insert(copy.deepcopy(base), (name,), seed=1).eval()
        assert torch.equal(model(*flux), base(*flux))
        assert trainable(model) and all(key.startswith(prefix) for key in trainable(model))
        steps(model, flux, 2)
        assert not torch.allclose(model(*flux), base(*flux), atol=1e-3)
