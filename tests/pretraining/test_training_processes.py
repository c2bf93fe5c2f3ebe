"""The training loop on two processes that torchrun starts: together they do what one does, and each draws its own dropout."""

import csv

import numpy as np
import pytest
import torch

from spectrakit.weights import load_tensors


def rows(path):
    with path.open() as f:
        return list(csv.reader(f))


SCRIPT = """
import os, sys, torch
from pathlib import Path
from torch import nn
from spectrakit.errors import MismatchError
from spectrakit.threads import one_thread
from spectrakit.training import TrainConfig, global_mean, train
torch.set_num_threads(1)
torch.manual_seed(0)
folder, rank = Path(sys.argv[1]), int(os.environ.get("RANK", 0))

class Loss(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.layers, self.seen = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(p), nn.Linear(8, 1)), []

    def forward(self, x, y, counted):                       # rows of even number count eight times as often as the others
        error = self.layers(x) - y
        self.seen.append(self.layers[3](torch.ones(len(x), 8).double()))
        return {"all": error.square().mean(), "counted": global_mean(error.abs()[counted])}

def batches(step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step), dtype=torch.double)
    counted = torch.ones(16, 1, dtype=torch.bool)
    counted[[1, 3, 5, 7, 9, 11, 13]] = False
    return x, x[:, :1] - x[:, 1:2], counted

def odd(step):
    return [part[:15] for part in batches(step)]

config = TrainConfig(4, 1e-2, 0, warmup=1, save_every=2)
train(Loss(0.0).double(), batches, config, folder, "run")
train(dropping := Loss(0.5).double(), batches, config, folder, "dropout")
torch.save(torch.stack(dropping.seen), folder / f"dropout_{rank}.pt")
if "RANK" in os.environ:
    try:
        train(Loss(0.0).double(), odd, config, folder, "odd")
    except MismatchError as error:
        (folder / f"odd_{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory, launch):
    launch(SCRIPT, folder := tmp_path_factory.mktemp("launched"))
    return folder


def test_two_processes_are_one_on_the_same_global_batch(launched):
    """Each takes half of every batch: weights, statistics, optimiser and log agree, although one half has eight times as many counted rows."""
    one, two = (load_tensors(launched / name / "run.safetensors")[0] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-7, atol=1e-9, msg=name)
    for a, b in zip(rows(launched / "one" / "run.csv")[1:], rows(launched / "two" / "run.csv")[1:], strict=True):
        np.testing.assert_allclose(np.array(a, float), np.array(b, float), rtol=1e-5, atol=2e-6)
    assert rows(launched / "two" / "run.csv")[0] == ["step", "loss", "lr", "all", "counted"]


def test_processes_drop_numbers_of_their_own(launched):
    """Masks differ between processes and between steps; so the weights are not those of one process."""
    first, second = (torch.load(launched / "two" / f"dropout_{rank}.pt") for rank in (0, 1))
    masks = [*first, *second]
    assert len(masks) == 8
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    one, two = (load_tensors(launched / name / "dropout.safetensors")[0]["model.layers.0.weight"] for name in ("one", "two"))
    assert not torch.allclose(one, two, rtol=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(launched):
    for rank in (0, 1):
        text = (launched / "two" / f"odd_{rank}.txt").read_text()
        assert text == "2 processes cannot share 15 rows of a batch equally; let every part of it have a multiple of 2 rows."
