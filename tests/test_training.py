"""The training loop: a run that was interrupted is the run that was not, and a bad one stops. Several processes: test_training_processes.py."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spectrakit.errors import DataFileError, MismatchError
from spectrakit.models.spectrum_transformer import SpectrumTransformer, TransformerConfig
from spectrakit.pretraining import MaskedLoss
from spectrakit.threads import one_thread
from spectrakit.training import TrainConfig, global_mean, learning_rate, train
from spectrakit.weights import load_tensors

CONFIG = TrainConfig(steps=9, lr=3e-3, seed=4, warmup=3, save_every=3)

pytestmark = pytest.mark.usefixtures("single_thread")


class Perceptron(nn.Module):
    """A loss with everything that has state: BatchNorm, and dropout, which draws."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x, y):
        return (self.layers(x) - y).square().mean()


def made(seed=0, kind=Perceptron):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind()


def batches(step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    return x, x[:, :1] - 0.5 * x[:, 1:2]


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
    with one_thread():
        train(model, batches, CONFIG, folder, "run")
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
            value = model(*batches(step))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(whole[1][name], expected, msg=name)
    np.testing.assert_allclose([float(row[1]) for row in rows(whole[0] / "run.csv")[1:]], losses, atol=2e-6)


def test_muon_moves_all_directions_of_a_matrix_alike(tmp_path):
    """Minus the polar factor of the gradient, whose singular values are all 1, in a step as long as AdamW's; what is no such matrix is AdamW's."""
    config, model, before = replace(CONFIG, steps=1, warmup=1, weight_decay=0.0, muon=True), made(), made().state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4 * 1_000_003)
        (reference := made().train())(*batches(0)).backward()
    train(model, batches, config, tmp_path, "run")
    moved, gradient = {k: before[k] - v for k, v in model.state_dict().items()}, dict((k, p.grad) for k, p in reference.named_parameters())
    u, s, v = torch.linalg.svd(gradient["layers.0.weight"], full_matrices=False)
    assert s[0] > 5 * s[-1]
    lengths = torch.linalg.svdvals(moved["layers.0.weight"]) / (3e-3 * 0.2 * 8**0.5)
    assert 0.6 < lengths.min() and lengths.max() < 1.3                                      # Newton and Schulz after five rounds: about 1
    assert torch.cosine_similarity(moved["layers.0.weight"].flatten(), (u @ v).flatten(), dim=0) > 0.97
    for name in ("layers.4.weight", "layers.4.bias", "layers.1.weight"):
        seen = gradient[name].abs() > 1e-6
        torch.testing.assert_close(moved[name][seen], 3e-3 * gradient[name].sign()[seen], rtol=1e-3, atol=1e-6)


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
        train(model, batches, CONFIG, tmp_path, "run")
        assert torch.equal(torch.get_rng_state(), before)
    same(model.state_dict(), whole[1])


class Terms(Perceptron):
    """Two losses by name, the second of another size."""

    def forward(self, x, y):
        error = self.layers(x) - y
        return {"square": error.square().mean(), "bias": 0.1 * error.mean().abs()}


class Added(Terms):
    def forward(self, x, y):
        return sum(super().forward(x, y).values())


def test_a_dict_of_losses_is_added_up_and_logged_by_name(tmp_path):
    """Weights as with the sum written out; every term a column, their sum the loss; the columns survive an interruption."""
    one, other = made(kind=Terms), made(kind=Added)
    with pytest.raises(KeyboardInterrupt):
        train(made(kind=Terms), stop_at(5), CONFIG, tmp_path / "terms", "run")
    train(one, batches, CONFIG, tmp_path / "terms", "run")
    train(other, batches, CONFIG, tmp_path / "added", "run")
    same(one.state_dict(), other.state_dict())
    (header, *body), (_, *added) = (rows(tmp_path / kind / "run.csv") for kind in ("terms", "added"))
    assert header == ["step", "loss", "lr", "square", "bias"]
    assert [row[:3] for row in body] == added
    values = np.array(body, float)
    np.testing.assert_allclose(values[:, 3] + values[:, 4], values[:, 1], atol=2e-6)
    assert (values[:, 3] > 0).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4 * 1_000_003)
        first = made(kind=Terms).train()(*batches(0))
    np.testing.assert_allclose(values[0, 3:], [first["square"].item(), first["bias"].item()], atol=1e-6)


def test_progress_shows_every_term(tmp_path, monkeypatch):
    shown = []
    class Bar(list):
        def set_postfix(self, values, refresh):
            shown.append(values)
    monkeypatch.setattr("spectrakit.training.tqdm", lambda steps, **_: Bar(steps))
    train(made(kind=Terms), batches, CONFIG, tmp_path, "run")
    values = np.array(rows(tmp_path / "run.csv")[1:], float)[:, [1, 3, 4]]
    mean = values[0]
    for row in values[1:]:
        mean = 0.98 * mean + 0.02 * row
    assert len(shown) == 9
    assert list(shown[0]) == ["loss", "square", "bias"]
    np.testing.assert_allclose([float(v) for v in shown[-1].values()], mean, atol=1e-4)


def test_global_mean_of_one_process_is_the_mean():
    values = torch.randn(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(global_mean(values), values.mean())


def test_frozen_parameters_stay(tmp_path):
    model = made()
    model.layers[0].requires_grad_(False)
    before = model.layers[0].weight.clone()
    train(model, batches, replace(CONFIG, steps=2), tmp_path, "run")
    assert torch.equal(model.layers[0].weight, before)
    assert not torch.equal(model.layers[4].weight, made().layers[4].weight)


# interruption --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("last", [1, 3, 5, 6, 8])
def test_interrupted_and_resumed_is_uninterrupted(whole, tmp_path, last):
    """Bit for bit: weights, statistics, optimiser, log; whether or not something had been saved; from any initial weights once it had."""
    with pytest.raises(KeyboardInterrupt):
        train(made(), stop_at(last), CONFIG, tmp_path, "run")
    assert len(rows(tmp_path / "run.csv")) == 1 + last
    saved = last // 3 * 3
    assert (tmp_path / "run.safetensors").is_file() == (saved > 0)
    model = made(seed=7 if saved else 0)
    train(model, batches, CONFIG, tmp_path, "run")
    same(model.state_dict(), whole[1])
    same(*(load_tensors(folder / "run.safetensors")[0] for folder in (tmp_path, whole[0])))
    assert rows(tmp_path / "run.csv") == rows(whole[0] / "run.csv")


def test_muon_resumes_exactly(tmp_path):
    config, once, twice = replace(CONFIG, muon=True), made(), made()
    train(once, batches, config, tmp_path / "once", "run")
    with pytest.raises(KeyboardInterrupt):
        train(twice, stop_at(7), config, tmp_path / "twice", "run")
    train(twice, batches, config, tmp_path / "twice", "run")
    same(twice.state_dict(), once.state_dict())
    assert {key.split(".")[0] for key in load_tensors(tmp_path / "once" / "run.safetensors")[0]} == {"model", "optimizer0", "optimizer1"}


def test_interrupted_twice(whole, tmp_path):
    for last in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            train(made(), stop_at(last), CONFIG, tmp_path, "run")
    model = made(3)
    train(model, batches, CONFIG, tmp_path, "run")
    same(model.state_dict(), whole[1])
    assert rows(tmp_path / "run.csv") == rows(whole[0] / "run.csv")


def test_finished_run_started_again_does_nothing(whole):
    model = made(5)
    train(model, stop_at(0), CONFIG, whole[0], "run")
    same(model.state_dict(), whole[1])
    assert len(rows(whole[0] / "run.csv")) == 10


def test_no_steps_are_no_steps(tmp_path):
    """Nothing is read, trained or written, in evaluation mode nothing is even switched."""
    model = made().eval()
    train(model, stop_at(0), replace(CONFIG, steps=0), tmp_path, "run")
    same(model.state_dict(), made().state_dict())
    assert not model.training
    assert not list(tmp_path.iterdir())


def test_transformer_resumes_exactly(tmp_path):
    """The masked loss of the real encoder, hidden chunks drawn by step."""
    config = TransformerConfig(n_pix=57, window=8, stride=4, n_positions=20, d_model=12, n_layer=2, n_head=3, d_mlp=24, n_chunks=2, chunk=3)
    encoder = SpectrumTransformer(config, 0)
    def data(step):
        generator = torch.Generator().manual_seed(step)
        return 1 + 0.1 * torch.randn(4, 57, generator=generator), encoder.draw_chunks(4, generator)
    settings = TrainConfig(steps=6, lr=1e-3, seed=0, warmup=2, save_every=2)
    one, other = (MaskedLoss(SpectrumTransformer(config, seed)) for seed in (0, 1))
    train(one, data, settings, tmp_path / "one", "masked")
    with pytest.raises(KeyboardInterrupt):
        train(MaskedLoss(SpectrumTransformer(config, 0)), stop_at(5, data), settings, tmp_path / "two", "masked")
    train(other, data, settings, tmp_path / "two", "masked")
    same(one.state_dict(), other.state_dict())


# refusals ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [dict(steps=10), dict(lr=1e-3), dict(seed=5), dict(warmup=4), dict(weight_decay=0.0), dict(betas=(0.9, 0.99)),
                                    dict(save_every=4), dict(muon=True)], ids=lambda c: next(iter(c)))
def test_other_settings_are_refused(whole, change):
    before = (whole[0] / "run.safetensors").read_bytes(), (whole[0] / "run.csv").read_bytes()
    with pytest.raises(MismatchError, match=r"run.safetensors was made with other settings \(TrainConfig\(steps=9, .*\); remove it to start afresh, or go back"):
        train(made(), batches, replace(CONFIG, **change), whole[0], "run")
    assert ((whole[0] / "run.safetensors").read_bytes(), (whole[0] / "run.csv").read_bytes()) == before


def test_checkpoint_of_another_module_is_refused(whole):
    with pytest.raises(MismatchError, match=r"The weights do not fit the model: missing \['0.bias', '0.weight'\], unknown \['layers.0.bias'"):
        train(made(kind=lambda: nn.Sequential(nn.Linear(6, 1))), batches, CONFIG, whole[0], "run")


def test_damaged_checkpoint_is_refused(whole, tmp_path):
    (tmp_path / "run.safetensors").write_bytes((whole[0] / "run.safetensors").read_bytes()[:-3])
    with pytest.raises(DataFileError, match="run.safetensors cannot be read"):
        train(made(), batches, CONFIG, tmp_path, "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path, value):
    def broken(step):
        x, y = batches(step)
        return x, y * value if step == 5 else y
    with pytest.raises(FloatingPointError, match=r"run: the loss is (nan|inf), its gradient .* at step 5; the checkpoint run.safetensors is older. Lower lr"):
        train(made(), broken, CONFIG, tmp_path, "run")
    tensors, meta = load_tensors(tmp_path / "run.safetensors")
    assert meta["step"] == 3
    assert len(rows(tmp_path / "run.csv")) == 1 + 5


def test_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path):
    """A finite loss with an infinite slope (the root of 0), in the very step that ends with a checkpoint: the old one has to stay."""
    class Rooted(Perceptron):
        def forward(self, x, y):
            return super().forward(x, y) + (self.layers[4].weight.sum() * x[0, 0]).abs().sqrt()
    def zeroed(step):
        x, y = batches(step)
        x[0, 0] = float(step != 5)
        return x, y
    with pytest.raises(FloatingPointError, match=r"run: the loss is [0-9.]+, its gradient nan at step 5; the checkpoint run.safetensors is older."):
        train(made(kind=Rooted), zeroed, CONFIG, tmp_path, "run")
    assert load_tensors(tmp_path / "run.safetensors")[1]["step"] == 3
