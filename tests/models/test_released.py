"""Converted weights against networks written out with the released names and torch's own modules; and files that must not be trusted."""

import sys
import types
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from spectrakit.errors import DataFileError, MismatchError
from spectrakit.models import alignment, spectrum_transformer, xp_autoencoder
from spectrakit.models.alignment import Alignment
from spectrakit.models.released import INPUTS, convert, kind_of, load_converted, load_released, read_released, released_network, save_converted
from spectrakit.models.spectrum_transformer import SpectrumTransformer
from spectrakit.models.xp_autoencoder import XPAutoencoder
from spectrakit.surveys import LRS_GRID
from spectrakit.threads import one_thread
from tests.models.released_networks import KINDS, LRS, PAIR, XP, XP_TRANSFORMER, theirs


@pytest.fixture(autouse=True)
def small_paper(monkeypatch):
    """The code path of the released sizes at sizes that fit a test; one thread, which is what they need."""
    for presets, config in ((spectrum_transformer.PRESETS, LRS), (spectrum_transformer.XP_PRESETS, XP_TRANSFORMER), (xp_autoencoder.PRESETS, XP),
                            (alignment.PRESETS, PAIR)):
        monkeypatch.setitem(presets, "paper", config)
    with one_thread():
        yield


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectra():
    return 1 + 0.1 * numbers(3, 1462), 1 + 0.3 * numbers(3, 343, seed=2)


def checkpoint(path, kind, **more):
    torch.save({"state_dict": theirs(kind).state_dict(), "epoch": 110, "hyper_parameters": {"num_heads": 3, "lr": 1e-5}, **more}, path)
    return path


# same function -------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_converted_network_computes_the_same(kind, tmp_path):
    """Through the file and back: embeddings, reconstructions and predictions of the released network."""
    network, (lrs, xp) = theirs(kind), spectra()
    convert(checkpoint(tmp_path / "model.ckpt", kind), tmp_path / "model.safetensors")
    model, inputs = load_converted(tmp_path / "model.safetensors")
    model.requires_grad_(False)
    close = lambda ours, released: torch.testing.assert_close(ours, released, rtol=1e-4, atol=2e-5)                    # noqa: E731
    assert not model.training
    assert inputs == INPUTS[kind]
    if kind in ("lrs", "xp_transformer"):
        flux = lrs if kind == "lrs" else xp
        close(model(flux), network(flux).mean(1))
        close(model.restore(model.encode(model.tokenize(flux))), network.head(network(flux)))
        assert model.config.n_tok == (146 if kind == "lrs" else 344)
        return
    if kind == "xp":
        close(model.encode(xp), network(xp))
        return
    parts = {"lrs": network.lamost_lrs_encoder(lrs), "xp": network.gaia_xp_encoder(xp)}
    for m, flux in (("lrs", lrs), ("xp", xp)):
        close(model.embed(m, flux), parts[m][0])
        if kind != "base":
            name, other = {"lrs": ("lamost_lrs", "gaia_xp"), "xp": ("gaia_xp", "lamost_lrs")}[m]
            close(model.reconstruct(m, flux), getattr(network, f"{name}_decoder")(*parts[m]))
            close(model.predict(m, flux), getattr(network, f"{other}_cross_decoder")(parts[m][0]))


def test_scaling_once_is_another_function():
    """The trap: same weights, same shapes, no error; the package refuses it."""
    network, (lrs, _) = theirs("lrs"), spectra()
    once = SpectrumTransformer(replace(LRS, double_scaled=False), 0).requires_grad_(False)
    with pytest.raises(MismatchError, match=r"attention scaled twice and the standard deviation over n - 1. Build the model with double_scaled=True, ddof=1."):
        load_released(once, network.state_dict())
    twice = released_network("lrs").requires_grad_(False)
    load_released(twice, network.state_dict())
    once.load_state_dict(twice.state_dict())
    assert (once(lrs) - network(lrs).mean(1)).abs().max() > 10 * (twice(lrs) - network(lrs).mean(1)).abs().max()


def test_learnable_scale_is_carried_over():
    tensors = theirs("base").state_dict() | {"logit_scale": torch.tensor(2.5)}
    model = Alignment(SpectrumTransformer(replace(LRS, double_scaled=True), 0), XPAutoencoder(XP, 0), replace(PAIR, learnable_scale=True), 0)
    load_released(model, tensors)
    assert model.scale.item() == pytest.approx(np.exp(2.5))


# full size -----------------------------------------------------------------------------------------------------------------------------------

def test_sizes_at_full_size(monkeypatch):
    """Names and shapes of the released LRS transformer written out, on tensors without memory: 42,677,013 numbers, all of them placed."""
    monkeypatch.undo()
    with torch.device("meta"):
        shapes = {"data_embed.weight": (768, 21), "data_embed.bias": (768,), "position_embed.weight": (150, 768), "final_layernorm.weight": (768,),
                  "final_layernorm.bias": (768,), "head.weight": (21, 768), "head.bias": (21,)}
        for i in range(6):
            for name, (out, into) in {"attention.q_proj": (768, 768), "attention.kv_proj": (1536, 768), "attention.out_proj": (768, 768),
                                      "mlp.0": (3072, 768), "mlp.2": (768, 3072)}.items():
                shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
            shapes |= {f"blocks.{i}.{norm}.{kind}": (768,) for norm in ("ln1", "ln2") for kind in ("weight", "bias")}
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        assert sum(t.numel() for t in tensors.values()) == 42_677_013
        assert kind_of(tensors) == "lrs"
        load_released(released_network("lrs"), tensors)


def test_full_size_is_built_as_the_released_code_does(monkeypatch):
    monkeypatch.undo()
    with torch.device("meta"):
        for kind in KINDS:
            network = released_network(kind)
            for encoder in (m for m in network.modules() if isinstance(m, SpectrumTransformer)):
                c = encoder.config
                assert (c.double_scaled, c.ddof, c.published_chunks, c.leak, c.n_head) == (True, 1, True, True, 6)
            if isinstance(network, Alignment):
                assert (network.config.variant, network.config.standardized, network.config.logit_scale) == (kind, True, 15.5)


def test_inputs_are_the_released_grids():
    lrs, xp = INPUTS["pr"]["lrs"], INPUTS["pr"]["xp"]
    np.testing.assert_allclose(10 ** (lrs["log10_start"] + lrs["log10_step"] * np.arange(lrs["n_pix"])), LRS_GRID)
    assert lrs["n_pix"] == 1462
    wave = xp["start"] + xp["step"] * np.arange(xp["n_pix"])
    assert (wave[0], wave[107], wave[-1]) == (3360.0, 5500.0, 10200.0)
    assert set(INPUTS) == set(KINDS)


# names that do not fit -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_needed_and_no_other_is_taken(kind):
    tensors = theirs(kind).state_dict()
    for name in list(tensors)[::7]:
        if not name.startswith(("data_embed", "input_proj")):
            less = {k: v for k, v in tensors.items() if k != name}
            with pytest.raises(MismatchError, match=r"The released weights do not fit the model: no place for .*; nothing for \w+"):
                load_released(released_network(kind), less)
    with pytest.raises(MismatchError, match=r"no place for blocks.0.attention.qkv.weight; nothing for none\."):
        load_released(released_network(kind), tensors | {"blocks.0.attention.qkv.weight": torch.zeros(3)})


def test_missing_and_unknown_are_named():
    tensors = theirs("lrs").state_dict()
    renamed = dict(tensors)
    renamed["blocks.1.attention.qkv_proj.weight"] = renamed.pop("blocks.1.attention.q_proj.weight")
    with pytest.raises(MismatchError, match=r"no place for blocks.1.attention.qkv_proj.weight; nothing for blocks.1.attention.q.weight\."):
        load_released(released_network("lrs"), renamed)
    many = tensors | {f"extra.{i}.weight": torch.zeros(1) for i in range(9)}
    with pytest.raises(MismatchError, match=r"no place for extra.0.weight, .*extra.4.weight and 4 more; nothing for none\."):
        load_released(released_network("lrs"), many)
    with pytest.raises(MismatchError, match=r"no place for blocks.2.attention.q_proj.weight, .* and 9 more; nothing for none\."):
        load_released(released_network("lrs"), tensors | {k.replace("blocks.1", "blocks.2"): v for k, v in tensors.items()})


def test_half_a_key_and_value_projection_is_missing():
    tensors = theirs("split").state_dict()
    name = "lamost_lrs_encoder.shared_attention.multihead_attn"
    del tensors[f"{name}.v_proj_weight"]
    with pytest.raises(MismatchError, match=rf"no place for {name}.k_proj_weight; nothing for shared.lrs.attention.kv.weight\."):
        load_released(released_network("split"), tensors)


def test_other_shapes_and_other_models():
    tensors = theirs("xp").state_dict() | {"input_proj.weight": torch.zeros(10, 1463)}
    with pytest.raises(MismatchError, match=r"enter.weight is \(10, 1463\) among the released weights; the model needs \(10, 345\)."):
        load_released(released_network("xp"), tensors)
    with pytest.raises(MismatchError, match="No released model has these names: bert.weight. Expected data_embed.weight, input_proj.weight or lamost_lrs_encoder"):
        kind_of({"bert.weight": torch.zeros(1)})
    with pytest.raises(MismatchError, match="no place for .*nothing for"):
        load_released(released_network("base"), theirs("pr").state_dict())


def test_another_number_of_heads(tmp_path):
    """It has no tensor of its own: only the settings tell."""
    path = checkpoint(tmp_path / "m.ckpt", "lrs", hyper_parameters={"num_heads": 4})
    with pytest.raises(MismatchError, match="m.ckpt was trained with 4 attention heads; the released model has 3."):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_recognised(kind):
    assert kind_of(theirs(kind).state_dict()) == kind


# files ---------------------------------------------------------------------------------------------------------------------------------------

class Hostile:
    def __reduce__(self):
        return eval, ("open('hostile', 'w')",)


class Dangerous:
    def __reduce__(self):
        import os
        return os.system, ("touch hostile",)


def test_foreign_objects_are_not_run_or_imported(tmp_path, monkeypatch):
    """Modules of packages that are not installed, dictionaries of their own kind, and a program, all among the settings as Lightning saves them."""
    monkeypatch.chdir(tmp_path)
    package = types.ModuleType("specclip_lightning")
    package.AttributeDict = type("AttributeDict", (dict,), {"__module__": "specclip_lightning"})
    package.Head = type("Head", (nn.Module,), {"__module__": "specclip_lightning"})
    package.Slots = type("Slots", (), {"__module__": "specclip_lightning", "__slots__": ("a",)})
    monkeypatch.setitem(sys.modules, "specclip_lightning", package)
    head, slots = package.Head(), package.Slots()
    head.linear, head.hparams, slots.a = nn.Identity(), package.AttributeDict(lr=1e-4), 3
    settings = {"gaia_xp_encoder": head, "slots": slots, "hostile": Hostile(), "scale": np.float64(2.7), "num_heads": 3}
    path = checkpoint(tmp_path / "m.ckpt", "xp", hyper_parameters=settings)
    monkeypatch.delitem(sys.modules, "specclip_lightning")
    tensors, found = read_released(path)
    assert not (tmp_path / "hostile").exists()
    assert "specclip_lightning" not in sys.modules
    for name, value in theirs("xp").state_dict().items():
        assert torch.equal(tensors[name], value)
    assert found["num_heads"] == 3
    convert(path, tmp_path / "out")
    torch.serialization.clear_safe_globals()
    assert torch.serialization.get_safe_globals() == []


def test_what_torch_blocks_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "m.ckpt", "xp", hyper_parameters={"x": Dangerous()})
    with pytest.raises(DataFileError, match=r"m.ckpt cannot be read as a checkpoint \(.*\). Fetch it again; if it is whole, save its state_dict alone"):
        read_released(path)
    assert not (tmp_path / "hostile").exists()
    assert torch.serialization.get_safe_globals() == []


def test_a_state_dict_alone(tmp_path):
    torch.save(theirs("xp").state_dict(), tmp_path / "m.pt")
    tensors, settings = read_released(tmp_path / "m.pt")
    assert kind_of(tensors) == "xp"
    assert settings == {}


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"wave,flux\n1,2\n", b"PK\x03\x04 half a zip"], ids=["empty", "zeros", "csv", "zip"])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(DataFileError, match="m.ckpt cannot be read as a checkpoint"):
        read_released(tmp_path / "m.ckpt")


def test_damaged_missing_and_empty(tmp_path):
    whole = checkpoint(tmp_path / "m.ckpt", "xp").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[:len(whole) // 2])
    for name in ("cut.ckpt", "absent.ckpt"):
        with pytest.raises(DataFileError, match=f"{name} cannot be read as a checkpoint"):
            read_released(tmp_path / name)
    for content, said in (({}, "nothing"), ({"state_dict": {"a": 1}}, "a"), ({"epoch": 3, "lr": 1.0}, "epoch, lr")):
        torch.save(content, tmp_path / "e.ckpt")
        with pytest.raises(DataFileError, match=f"e.ckpt holds no state_dict: {said} found where tensors were expected."):
            read_released(tmp_path / "e.ckpt")
    torch.save([1, 2], tmp_path / "e.ckpt")
    with pytest.raises(DataFileError, match="e.ckpt cannot be read as a checkpoint"):
        read_released(tmp_path / "e.ckpt")
    torch.save({"a.weight": torch.tensor([0.0, np.nan])}, tmp_path / "e.ckpt")
    with pytest.raises(DataFileError, match="e.ckpt holds NaN or infinite numbers in a.weight: it must not be used."):
        read_released(tmp_path / "e.ckpt")


def test_converted_file_is_its_own_kind(tmp_path):
    from spectrakit.weights import load_tensors, save_tensors
    model = released_network("xp")
    save_converted(tmp_path / "m", "xp", model)
    assert load_tensors(tmp_path / "m")[1]["card"] == asdict(model.config)
    save_tensors(tmp_path / "m", {"w": torch.zeros(1)}, {"kind": "foundation"})
    with pytest.raises(MismatchError, match="m holds 'foundation', not converted released weights."):
        load_converted(tmp_path / "m")
