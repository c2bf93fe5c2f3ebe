"""Which Linears an adapter lands on, how many weights it brings, and what share of which part that is."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import spectrakit as sk
from spectrakit.adaptation.adapters import insert, trainable
from spectrakit.adaptation.network import LabelNetwork
from spectrakit.adaptation.placements import PLACEMENTS, Placement, get_placement, target_modules
from spectrakit.adaptation.status import counted
from spectrakit.errors import MismatchError
from spectrakit.models.heads import LabelHead
from spectrakit.models.projection import CrossAttentionHead, Widened
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer


def tiny():
    return sk.load_model("tiny").network("feh")


def aligned():
    return sk.load_model("tiny_aligned").network("feh")


@pytest.mark.parametrize(("placement", "published", "of", "percent"), [
    ("lora1", 129_024, 42_677_013, 0.30), ("lora2", 31_752, 1_348_353, 2.30), ("lora3", 147_456, 49_764_117, 0.29), ("lora4", 31_752, 1_348_353, 2.30)])
def test_paper_size_counts_and_shares_are_the_published_ones(placement, published, of, percent):
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        projection = None if placement in ("lora1", "lora2") else CrossAttentionHead(768, 768, 4, 0.1)
        network = LabelNetwork(SpectrumTransformer(PRESETS["paper"], 0), LabelHead(768), projection)
        model = insert(network, (placement,), seed=0)
    assert sum(p.numel() for p in trainable(model).values()) == published
    sizes, whole = counted(model, PLACEMENTS[placement], trainable(model))
    assert sum(sizes.values()) == published and whole == of + published
    assert int(10_000 * published / whole) / 100 == percent                      # published: 0.2954 as 0.29, 0.3014 as 0.30


def test_a_projection_with_torchs_own_attention_would_leave_24576_parameters_dead():
    from peft import LoraConfig, get_peft_model

    class Naive(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.norm, self.mlp = nn.MultiheadAttention(768, 4, batch_first=True), nn.LayerNorm(768), Widened(768, 0.0)

        def forward(self, tokens):
            return self.mlp(self.norm(self.attention(tokens[:, :1], tokens, tokens)[0][:, 0]))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, tokens = Naive(), torch.randn(2, 3, 768)
        model = get_peft_model(network, LoraConfig(r=16, lora_alpha=32, target_modules=["attention.out_proj", "mlp.up", "mlp.down"]))
    optimizer, moved = torch.optim.AdamW(trainable(model).values(), weight_decay=0.0), {}
    for _ in range(2):
        network(tokens).square().sum().backward()
        moved = {name: moved.get(name, False) | (torch.zeros_like(p) if p.grad is None else p.grad).ne(0) for name, p in trainable(model).items()}
        optimizer.step()
    assert sum(m.numel() for m in moved.values()) == 147_456
    assert sum(int((~m).sum()) for m in moved.values()) == 24_576 and all("out_proj" in name for name, m in moved.items() if not m.all())


def test_lora1_sits_in_q_kv_and_out_of_every_layer():
    names = [f"encoder.blocks.{i}.attention.{part}" for i in range(2) for part in ("q", "kv", "out")]
    assert target_modules(tiny(), PLACEMENTS["lora1"]) == target_modules(aligned(), PLACEMENTS["lora1"]) == names


def test_lora3_and_lora4_sit_behind_the_tokens():
    assert target_modules(aligned(), PLACEMENTS["lora3"]) == ["projection.attention.out", "projection.mlp.up", "projection.mlp.down"]
    assert target_modules(aligned(), PLACEMENTS["lora4"]) == [f"head.linears.{i}" for i in range(4)]


def test_rank_and_alpha_of_each_placement_can_be_changed():
    model = insert(tiny(), (replace(PLACEMENTS["lora1"], rank=2, alpha=6), "lora2"), seed=0)
    layer = model.base_model.model.encoder.blocks[0].attention.q
    assert layer.lora_A["lora1"].weight.shape == (2, 32) and layer.scaling["lora1"] == 3.0
    assert model.base_model.model.head.linears[0].lora_A["lora2"].weight.shape == (8, 32)


@pytest.mark.parametrize(("network", "placement", "say"), [
    (aligned, "lora2", "lora2 is made for the mean of the tokens; this network reads the projected.*Use lora1, lora3 or lora4.*load_model\\('small'\\)"),
    (tiny, "lora3", "lora3 is made for the projected embedding.*this network reads the mean.*load_model\\('small_aligned'\\)"),
    (tiny, "lora4", "lora4 is made for the projected embedding")])
def test_a_placement_for_the_other_embedding_says_which_model_to_load(network, placement, say):
    with pytest.raises(MismatchError, match=say):
        insert(network(), (placement,), seed=0)


def test_partly_wrong_targets_are_refused_with_the_closest_real_name():
    wrong = Placement("mine", ("encoder.blocks.0.attention.q", "encoder.blocks.0.attention.kw"), 4, 8, "")
    with pytest.raises(MismatchError, match=r"mine: 'encoder.blocks.0.attention.kw' matches no Linear.*closest are encoder.blocks.0.attention.kv"):
        target_modules(tiny(), wrong)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(MismatchError, match=r"No placement 'lora9'; there are: lora1, lora2, lora3, lora4 and, alone, 'full', 'head', 'residual'"):
        get_placement("lora9")


def test_declarations_that_cannot_be():
    with pytest.raises(MismatchError, match="mine: no kind 'lara'; there are: lora, dora"):
        Placement("mine", ("head.*",), 4, 8, "", kind="lara")
    with pytest.raises(MismatchError, match="mine: rank 0 and alpha 8; both have to be positive"):
        Placement("mine", ("head.*",), 0, 8, "")
    for name in ("a.b", "full", "lora", "values"):
        with pytest.raises(MismatchError, match=f"A placement cannot be called '{name}'"):
            Placement(name, ("head.*",), 4, 8, "")
    with pytest.raises(MismatchError, match="A placement cannot be called 'attention': a part of the network is"):
        insert(tiny(), (replace(PLACEMENTS["lora1"], name="attention"),), seed=0)


def test_placements_that_cannot_stand_together():
    with pytest.raises(MismatchError, match="'full' trains every weight; nothing can stand beside it, found full, lora1"):
        insert(tiny(), ("full", "lora1"), seed=0)
    with pytest.raises(MismatchError, match="Two placements have one name: lora1, lora1"):
        insert(tiny(), ("lora1", PLACEMENTS["lora1"]), seed=0)
    with pytest.raises(MismatchError, match="No placement is given"):
        insert(tiny(), (), seed=0)
    assert len(trainable(insert(net := tiny(), ("full",), seed=0))) == len(list(net.parameters()))
