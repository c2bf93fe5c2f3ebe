"""Fits on disk: the same numbers back, here and by peft alone; broken folders are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.adapters import load
from spectrakit.adaptation.files import load_fit
from spectrakit.adaptation.placements import PLACEMENTS
from spectrakit.errors import DataFileError, MismatchError
from spectrakit.threads import one_thread


def fitted(stars, placement, name="tiny"):
    return sk.adapt(sk.load_model(name), stars[:12], label="feh", placement=placement, seed=0, steps=15)


@pytest.fixture(scope="module")
def fit(stars):
    with one_thread():
        return fitted(stars, (PLACEMENTS["lora1"], replace(PLACEMENTS["lora2"], rank=3, kind="dora")))


@pytest.mark.parametrize("placement", [("lora3", "lora4"), ("head",), ("residual",), *((replace(PLACEMENTS["lora2"], kind=k),) for k in
                                       ("dora", "pissa", "rslora", "vera", "ia3", "oft"))], ids=lambda p: getattr(p[0], "kind", p[0]))
def test_what_comes_back_is_what_was_saved(stars, tmp_path, placement):
    fit = fitted(stars, placement, "tiny_aligned" if "lora3" in placement else "tiny")
    fit.save(tmp_path / "fit")
    again = load_fit(tmp_path / "fit", fit.model)
    for a, b in zip(fit.predict(stars[60:80]), again.predict(stars[60:80]), strict=True):
        assert np.array_equal(a, b)
    for name in ("label", "placement", "residual_sigma", "steps", "budget", "history"):
        assert getattr(again, name) == getattr(fit, name)
    if fit.placements:
        assert np.array_equal(again.predict(stars[60:80], strength=0.3)[0], fit.predict(stars[60:80], strength=0.3)[0])
        assert again.status().equals(fit.status())


def test_a_stranger_reads_it_with_peft_alone(fit, stars, tmp_path):
    from peft import PeftModel
    fit.save(tmp_path / "fit")
    inputs = fit.model.prepare(stars[60:70])
    for k, state in enumerate(fit.states):
        with torch.random.fork_rng(devices=[]):
            network = PeftModel.from_pretrained(fit.model.network("feh"), tmp_path / "fit" / f"member{k}" / "lora1", adapter_name="lora1")
            network.load_adapter(tmp_path / "fit" / f"member{k}" / "lora2", adapter_name="lora2")
        network.base_model.set_adapter(["lora1", "lora2"])
        load(fit.network, state)
        with torch.no_grad():
            assert torch.equal(network.eval()(*inputs), fit.network.eval()(*inputs))
    assert not [p for p in (tmp_path / "fit").rglob("*") if p.suffix not in ("", ".json", ".safetensors")]


@pytest.mark.parametrize("kind", ["pissa", "oft", "ia3", "vera"])
def test_a_stranger_reads_other_kinds_too(stars, tmp_path, kind):
    from peft import PeftModel
    fit = fitted(stars, (replace(PLACEMENTS["lora2"], kind=kind),))
    fit.save(tmp_path / "fit")
    with torch.random.fork_rng(devices=[]):
        network = PeftModel.from_pretrained(fit.model.network("feh"), tmp_path / "fit" / "member2" / "lora2").eval()
    load(fit.network, fit.states[2])
    with torch.no_grad():
        assert torch.equal(network(*fit.model.prepare(stars[60:70])), fit.network.eval()(*fit.model.prepare(stars[60:70])))


def test_a_saved_fit_is_replaced_whole_and_nothing_else_is(fit, stars, tmp_path):
    other = fitted(stars, ("head",))
    other.save(tmp_path / "fit")
    fit.save(tmp_path / "fit")
    assert load_fit(tmp_path / "fit", fit.model).placement == fit.placement
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit"] and not (tmp_path / "fit" / "member0" / "adapter_model.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(DataFileError, match="mine exists and is no saved fit"):
        fit.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_a_crash_leaves_the_old_fit(fit, stars, tmp_path, monkeypatch):
    fit.save(tmp_path / "fit")
    monkeypatch.setattr("spectrakit.adaptation.files.json.dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit.save(tmp_path / "fit")
    monkeypatch.undo()
    assert np.array_equal(load_fit(tmp_path / "fit", fit.model).predict(stars[60:70])[0], fit.predict(stars[60:70])[0])


def test_what_is_not_there_broken_or_of_another_model(fit, tmp_path):
    with pytest.raises(DataFileError, match="There is no fit.json in nowhere"):
        load_fit(tmp_path / "nowhere", fit.model)
    fit.save(tmp_path / "fit")
    with pytest.raises(MismatchError, match="fit was made from another model than this one"):
        load_fit(tmp_path / "fit", sk.load_model("tiny_aligned"))
    weights = tmp_path / "fit" / "member1" / "lora2" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-40])
    with pytest.raises(DataFileError, match="member1/lora2 cannot be read"):
        load_fit(tmp_path / "fit", fit.model)
    weights.write_bytes((tmp_path / "fit" / "member1" / "lora1" / "adapter_model.safetensors").read_bytes())
    with pytest.raises(DataFileError, match="member1/lora2 does not hold this adapter: missing"):
        load_fit(tmp_path / "fit", fit.model)
    weights.unlink()
    with pytest.raises(DataFileError, match="member1/lora2 cannot be read"):
        load_fit(tmp_path / "fit", fit.model)
    about = json.loads((tmp_path / "fit" / "fit.json").read_text())
    (tmp_path / "fit" / "fit.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(DataFileError, match="fit has format 99, this version reads 1"):
        load_fit(tmp_path / "fit", fit.model)
