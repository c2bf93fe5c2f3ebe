"""Which Linears an adapter lands on, and how many weights it brings."""

import pytest
import torch

from spectrakit.adaptation.adapters import LabelNetwork, insert, trainable
from spectrakit.adaptation.placements import PLACEMENTS, Placement, get_placement, target_modules
from spectrakit.errors import MismatchError
from spectrakit.models.heads import LabelHead
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer


def network(preset: str) -> LabelNetwork:
    config = PRESETS[preset]
    with torch.random.fork_rng(devices=[]):
        head = LabelHead(config.d_model, (1024, 512, 64) if preset == "paper" else (64, 32, 16))
    return LabelNetwork(SpectrumTransformer(config, seed=0), head)


@pytest.mark.parametrize(("placement", "published"), [("lora1", 129_024), ("lora2", 31_752)])
def test_paper_size_counts_are_the_published_ones(placement, published):
    assert sum(p.numel() for p in trainable(insert(network("paper"), (placement,), seed=0)).values()) == published


def test_lora1_sits_in_q_kv_and_out_of_every_layer():
    names = target_modules(network("tiny"), PLACEMENTS["lora1"])
    assert names == [f"encoder.blocks.{i}.attention.{part}" for i in range(2) for part in ("q", "kv", "out")]


def test_partly_wrong_targets_are_refused_with_the_closest_real_name():
    wrong = Placement("mine", ("encoder.blocks.0.attention.q", "encoder.blocks.0.attention.kw"), 4, 8, "")
    with pytest.raises(MismatchError, match=r"mine: 'encoder.blocks.0.attention.kw' matches no Linear.*closest are encoder.blocks.0.attention.kv"):
        target_modules(network("tiny"), wrong)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(MismatchError, match=r"No placement 'lora9'; there are: lora1, lora2 and 'full'"):
        get_placement("lora9")


def test_full_stands_alone():
    with pytest.raises(MismatchError, match="'full' trains every weight; nothing can stand beside it, found full, lora1"):
        insert(network("tiny"), ("full", "lora1"), seed=0)
    net = network("tiny")
    assert len(trainable(insert(net, ("full",), seed=0))) == len(list(net.parameters()))
