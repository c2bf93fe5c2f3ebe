"""peft's other adapters by name: all learn, all can be switched off, none touches the base; PiSSA against peft's own."""

import copy
from dataclasses import replace

import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.adapters import insert, label_network, trainable
from spectrakit.adaptation.kinds import KINDS
from spectrakit.adaptation.placements import PLACEMENTS
from spectrakit.errors import MismatchError


def network(placement="lora1"):
    return sk.load_model("tiny" if placement in ("lora1", "lora2") else "tiny_aligned").network("feh")


def learn(model, flux, n=2):
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-2, weight_decay=0.0)
    for _ in range(n):
        loss = (model(*flux) - torch.linspace(-2, 0, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("placement", ["lora1", "lora2", "lora3"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "lora"])
def test_it_learns_and_leaves_the_base_as_it_was(kind, placement, flux):
    base = network(placement).eval()
    model = insert(copy.deepcopy(base), (replace(PLACEMENTS[placement], kind=kind),), seed=1).eval()
    assert torch.allclose(model(*flux), base(*flux), atol=1e-5) and (kind == "pissa" or torch.equal(model(*flux), base(*flux)))
    learn(model, flux)
    assert all(p.grad.abs().sum() > 0 for p in trainable(model).values())
    for mode in ("train", "eval"):
        getattr(base, mode)(), getattr(model, mode)()
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert not torch.allclose(model(*flux), base(*flux), atol=1e-3), "the adapter has no effect"
                with model.disable_adapter():
                    assert torch.equal(model(*flux), base(*flux))
    adapted = {k.replace(".base_layer", ""): v for k, v in label_network(model).state_dict().items()}
    assert all(torch.equal(adapted[k], v) for k, v in base.state_dict().items())


def test_pissa_starts_and_learns_as_in_peft(flux):
    """peft writes W - B0 A0 into the network; ours adds B A - B0 A0 to W. The same function, and the same gradients."""
    from peft import LoraConfig, get_peft_model
    placement = replace(PLACEMENTS["lora1"], kind="pissa")
    ours = insert(network(), (placement,), seed=1).eval()
    targets = [n for n, m in network().named_modules() if n.startswith("encoder") and n.endswith((".q", ".kv", ".out"))]
    with torch.random.fork_rng(devices=[]):
        theirs = get_peft_model(network().requires_grad_(False), LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights="pissa")).eval()
    mine, published = label_network(ours).encoder.blocks[0].attention.q, label_network(theirs).encoder.blocks[0].attention.q
    torch.testing.assert_close(mine.lora_B["lora1"].weight[:, :4] @ mine.lora_A["lora1"].weight[:4],
                               published.lora_B["default"].weight @ published.lora_A["default"].weight)
    frozen = mine.lora_A["lora1"].weight[4:].clone(), mine.lora_B["lora1"].weight[:, 4:].clone()
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(trainable(model).values(), lr=1e-2)              # no AdamW: it would blow up rounding of gradients near 0
        for _ in range(3):
            loss = (model(*flux) - torch.linspace(-2, 0, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(ours(*flux), theirs(*flux), rtol=1e-4, atol=1e-4)
    assert torch.equal(mine.lora_A["lora1"].weight[4:], frozen[0]) and torch.equal(mine.lora_B["lora1"].weight[:, 4:], frozen[1])


def test_kinds_of_one_family_stand_together_and_others_are_refused(flux):
    model = insert(network(), (replace(PLACEMENTS["lora1"], kind="dora"), replace(PLACEMENTS["lora2"], kind="pissa")), seed=1).eval()
    learn(model, flux)
    assert all(p.grad.abs().sum() > 0 for p in trainable(model).values())
    insert(network(), tuple(replace(PLACEMENTS[p], kind="ia3") for p in ("lora1", "lora2")), seed=1)
    with pytest.raises(MismatchError, match=r"cannot stand in one network: lora1 \(ia3\), lora2 \(lora\). lora, dora, rslora, pissa go together"):
        insert(network(), (replace(PLACEMENTS["lora1"], kind="ia3"), "lora2"), seed=1)
    with pytest.raises(MismatchError, match=r"lora1 \(vera\), lora2 \(vera\)"):
        insert(network(), tuple(replace(PLACEMENTS[p], kind="vera") for p in ("lora1", "lora2")), seed=1)


def test_oft_needs_blocks_that_divide_the_inputs():
    with pytest.raises(MismatchError, match="lora2: oft turns blocks of rank = 5 inputs, but head.linears.0 has 32"):
        insert(network(), (replace(PLACEMENTS["lora2"], kind="oft", rank=5),), seed=1)
