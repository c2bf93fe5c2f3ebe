"""The training loop: a run that was interrupted is the run that was not, a bad one stops, and several processes do what one does."""

import csv
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spectrakit
from spectrakit.errors import DataFileError, MismatchError
from spectrakit.models.spectrum_transformer import SpectrumTransformer, TransformerConfig
from spectrakit.training import TrainConfig, learning_rate, train
from spectrakit.weights import load_tensors

CONFIG = TrainConfig(steps=9, lr=3e-3, seed=4, warmup=3, save_every=3)


def made(seed=0):
    """A perceptron with everything that has state: BatchNorm, and dropout, which draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def batches(step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    return x, x[:, :1] - 0.5 * x[:, 1:2]


def loss(model, x, y):
    return (model(x) - y).square().mean()


def rows(path):
    with path.open() as f:
        return list(csv.reader(f))


def stop_at(last, function=batches):
    """Batches until someone presses Ctrl-C at a step."""
    def stopping(step):
        if step == last:
            raise KeyboardInterrupt
        return function(step)
    return stopping


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("whole"), made()
    train(model, loss, batches, CONFIG, folder, "run")
    return folder, model.state_dict()


# what one step is ----------------------------------------------------------------------------------------------------------------------------

def test_steps_are_adamw_by_hand(whole):
    """torch's own AdamW with clipped gradients and the schedule, written out."""
    model = made().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.05)
    losses = []
    for step in range(9):
        optimizer.param_groups[0]["lr"] = learning_rate(CONFIG, step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4 * 1_000_003 + step)
            value = loss(model, *batches(step))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(whole[1][name], expected, msg=name)
    np.testing.assert_allclose([float(row[1]) for row in rows(whole[0] / "run.csv")[1:]], losses, atol=2e-6)


def test_learning_rate():
    config = TrainConfig(steps=110, lr=2.0, seed=0, warmup=10)
    np.testing.assert_allclose([learning_rate(config, step) for step in (0, 4, 9, 10, 60, 85, 110)], [0.2, 1.0, 2.0, 2.0, 1.0, 1 - 0.5**0.5, 0.0], atol=1e-12)
    values = [learning_rate(config, step) for step in range(110)]
    assert (np.diff(values[:10]) > 0).all()
    assert (np.diff(values[10:]) < 0).all()
    assert values[-1] > 0
    assert learning_rate(replace(config, warmup=0), 0) == 2.0
    assert learning_rate(TrainConfig(steps=5, lr=1.0, seed=0, warmup=100), 4) == 0.05       # shorter than its warm-up
    assert learning_rate(TrainConfig(steps=5, lr=1.0, seed=0, warmup=5), 5) == 1.0


def test_log(whole):
    header, *body = rows(whole[0] / "run.csv")
    assert header == ["step", "loss", "lr"]
    assert [int(row[0]) for row in body] == list(range(9))
    np.testing.assert_allclose([float(row[2]) for row in body], [learning_rate(CONFIG, step) for step in range(9)], rtol=1e-3)
    assert sorted(p.name for p in whole[0].iterdir()) == ["run.csv", "run.safetensors"]


def test_generators_of_the_process_are_left_alone_and_not_read(whole, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before, model = torch.get_rng_state(), made()
        train(model, loss, batches, CONFIG, tmp_path, "run")
        assert torch.equal(torch.get_rng_state(), before)
    same(model.state_dict(), whole[1])


def test_frozen_parameters_stay(tmp_path):
    model = made()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model, loss, batches, replace(CONFIG, steps=2), tmp_path, "run")
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(model[4].weight, made()[4].weight)


# interruption --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("last", [1, 3, 5, 6, 8])
def test_interrupted_and_resumed_is_uninterrupted(whole, tmp_path, last):
    """Bit for bit: weights, statistics, optimiser, log; whether or not something had been saved; from any initial weights once it had."""
    with pytest.raises(KeyboardInterrupt):
        train(made(), loss, stop_at(last), CONFIG, tmp_path, "run")
    assert len(rows(tmp_path / "run.csv")) == 1 + last
    saved = last // 3 * 3
    assert (tmp_path / "run.safetensors").is_file() == (saved > 0)
    model = made(seed=7 if saved else 0)
    train(model, loss, batches, CONFIG, tmp_path, "run")
    same(model.state_dict(), whole[1])
    same(*(load_tensors(folder / "run.safetensors")[0] for folder in (tmp_path, whole[0])))
    assert rows(tmp_path / "run.csv") == rows(whole[0] / "run.csv")


def test_interrupted_twice(whole, tmp_path):
    for last in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            train(made(), loss, stop_at(last), CONFIG, tmp_path, "run")
    model = made(3)
    train(model, loss, batches, CONFIG, tmp_path, "run")
    same(model.state_dict(), whole[1])
    assert rows(tmp_path / "run.csv") == rows(whole[0] / "run.csv")


def test_finished_run_started_again_does_nothing(whole):
    model = made(5)
    train(model, loss, stop_at(0), CONFIG, whole[0], "run")
    same(model.state_dict(), whole[1])
    assert len(rows(whole[0] / "run.csv")) == 10


def test_transformer_resumes_exactly(tmp_path):
    """The masked loss of the real encoder, hidden chunks drawn by step."""
    config = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=2, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
    class Masked(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.encoder = SpectrumTransformer(config, seed)

        def forward(self, flux, hidden):
            return self.encoder.masked_loss(flux, hidden)
    encoder = SpectrumTransformer(config, 0)
    def data(step):
        generator = torch.Generator().manual_seed(step)
        return 1 + 0.1 * torch.randn(4, 57, generator=generator), encoder.draw_chunks(4, generator)
    settings = TrainConfig(steps=6, lr=1e-3, seed=0, warmup=2, save_every=2)
    one, other = Masked(0), Masked(1)
    train(one, lambda model, *batch: model(*batch), data, settings, tmp_path / "one", "masked")
    with pytest.raises(KeyboardInterrupt):
        train(Masked(0), lambda model, *batch: model(*batch), stop_at(5, data), settings, tmp_path / "two", "masked")
    train(other, lambda model, *batch: model(*batch), data, settings, tmp_path / "two", "masked")
    same(one.state_dict(), other.state_dict())


# refusals ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [dict(steps=10), dict(lr=1e-3), dict(seed=5), dict(warmup=4), dict(weight_decay=0.0), dict(betas=(0.9, 0.99)),
                                    dict(save_every=4)], ids=lambda c: next(iter(c)))
def test_other_settings_are_refused(whole, change):
    before = (whole[0] / "run.safetensors").read_bytes(), (whole[0] / "run.csv").read_bytes()
    with pytest.raises(MismatchError, match=r"run.safetensors was made with other settings \(TrainConfig\(steps=9, .*\); remove it to start afresh, or go back"):
        train(made(), loss, batches, replace(CONFIG, **change), whole[0], "run")
    assert ((whole[0] / "run.safetensors").read_bytes(), (whole[0] / "run.csv").read_bytes()) == before


def test_damaged_checkpoint_is_refused(whole, tmp_path):
    (tmp_path / "run.safetensors").write_bytes((whole[0] / "run.safetensors").read_bytes()[:-3])
    with pytest.raises(DataFileError, match="run.safetensors cannot be read"):
        train(made(), loss, batches, CONFIG, tmp_path, "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path, value):
    def broken(step):
        x, y = batches(step)
        return x, y * value if step == 5 else y
    with pytest.raises(FloatingPointError, match=r"run: the loss is (nan|inf), its gradient .* at step 5; the checkpoint run.safetensors is older. Lower lr"):
        train(made(), loss, broken, CONFIG, tmp_path, "run")
    tensors, meta = load_tensors(tmp_path / "run.safetensors")
    assert meta["step"] == 3
    assert len(rows(tmp_path / "run.csv")) == 1 + 5


def test_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path):
    """A finite loss with an infinite slope (the root of 0), in the very step that ends with a checkpoint: the old one has to stay."""
    def rooted(model, x, y):
        return loss(model, x, y) + (model[4].weight.sum() * x[0, 0]).abs().sqrt()
    def zeroed(step):
        x, y = batches(step)
        x[0, 0] = float(step != 5)
        return x, y
    with pytest.raises(FloatingPointError, match=r"run: the loss is [0-9.]+, its gradient nan at step 5; the checkpoint run.safetensors is older."):
        train(made(), rooted, zeroed, CONFIG, tmp_path, "run")
    assert load_tensors(tmp_path / "run.safetensors")[1]["step"] == 3


# several processes ---------------------------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys, torch
from pathlib import Path
from torch import nn
from spectrakit.training import TrainConfig, train
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
def batches(step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    return x[rank::world], (x[:, :1] - x[:, 1:2])[rank::world]
train(model, lambda m, x, y: (m(x) - y).square().mean(), batches, TrainConfig(4, 1e-2, 0, warmup=1, save_every=2), Path(sys.argv[1]), "run")
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


def test_two_processes_are_one_on_the_same_global_batch(tmp_path):
    """torchrun, each process with half of every batch; only the first one writes."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(Path(spectrakit.__file__).parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for launcher, folder in (([], "one"), (["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"], "two")):
        done = subprocess.run([sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / folder)], env=environment, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_tensors(tmp_path / folder / "run.safetensors")[0] for folder in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert [row[0] for row in rows(tmp_path / "two" / "run.csv")] == ["step", "0", "1", "2", "3"]
