"""Files of numbers: what is read is what was written, or a DataFileError; never something in between."""

import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spectrakit.errors import DataFileError
from spectrakit.weights import FORMAT, digest, load_tensors, save_tensors

DAMAGED = r"(cannot be read .* truncated, corrupted, or not written by this package|has changed since it was written .* the file is corrupted)"


def some():
    return {"weight": torch.arange(6.0).reshape(2, 3) / 7, "steps": torch.tensor(3), "none": torch.zeros(0, 4), "small": torch.tensor([-5, 9], dtype=torch.int16),
            "wide": torch.tensor([1e-300], dtype=torch.float64), "half": torch.tensor([0.1], dtype=torch.bfloat16), "yes": torch.tensor([True, False])}


@pytest.fixture
def path(tmp_path):
    save_tensors(tmp_path / "w.safetensors", some(), {"kind": "test", "numbers": [1, 2.5, None], "name": "é"})
    return tmp_path / "w.safetensors"


def test_round_trip_is_exact(path):
    tensors, meta = load_tensors(path)
    assert tensors.keys() == some().keys()
    for name, value in some().items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].shape == value.shape
        assert torch.equal(tensors[name], value)
    assert meta == {"format": FORMAT, "kind": "test", "numbers": [1, 2.5, None], "name": "é"}
    assert list(path.parent.iterdir()) == [path]                       # no temporary file stays


def test_strided_tensors_and_new_folders(tmp_path):
    square = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "new" / "folder" / "w", {"t": square.T, "grad": square.requires_grad_()[:, ::2]}, {})
    tensors, _ = load_tensors(str(tmp_path / "new" / "folder" / "w"))
    assert torch.equal(tensors["t"], square.T)
    assert torch.equal(tensors["grad"], square[:, ::2])
    assert not tensors["grad"].requires_grad


def test_same_content_same_bytes(path, tmp_path):
    """In another order of the names too: a file can be made again and compared."""
    backwards = dict(reversed(some().items()))
    save_tensors(tmp_path / "again", backwards, {"kind": "test", "numbers": [1, 2.5, None], "name": "é"})
    assert digest(some(), "") == digest(backwards, "")
    assert load_tensors(tmp_path / "again")[0].keys() == some().keys()


def test_digest_sees_names_shapes_types_order_and_description():
    base = {"a": torch.zeros(2, 2), "b": torch.ones(4)}
    others = [{"a": torch.zeros(4), "b": torch.ones(4)}, {"c": torch.zeros(2, 2), "b": torch.ones(4)}, {"a": torch.zeros(2, 2)},
              {"a": torch.zeros(2, 2, dtype=torch.int32), "b": torch.ones(4)}, {"b": torch.zeros(2, 2), "a": torch.ones(4)},
              {"a": -torch.zeros(2, 2), "b": torch.ones(4)}]
    assert len({digest(base, ""), digest(base, "text"), *(digest(other, "") for other in others)}) == len(others) + 2


def test_every_flipped_bit_is_noticed(tmp_path):
    """In the numbers, in the names, and in the description: a model width or a wavelength step that changed is as bad as a weight."""
    save_tensors(tmp_path / "good", {"w": torch.tensor([0.5, -2.0])}, {"step": 0.0001, "d": 32})
    good, path = (tmp_path / "good").read_bytes(), tmp_path / "bad"
    for i in range(len(good)):
        for bit in range(8):
            path.write_bytes(good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1:])
            with pytest.raises(DataFileError, match=DAMAGED + "|has format"):
                load_tensors(path)


@settings(max_examples=100)
@given(cut=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=3))
def test_truncated_anywhere(tmp_path_factory, cut, junk):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    save_tensors(path, some(), {"kind": "test"})
    whole = path.read_bytes()
    path.write_bytes(whole[:int(cut * len(whole))])
    with pytest.raises(DataFileError, match="cut.safetensors cannot be read .*Fetch it again, or reinstall."):
        load_tensors(path)
    path.write_bytes(whole + b"x" + junk)
    with pytest.raises(DataFileError, match="cannot be read"):
        load_tensors(path)


def zipped():
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").writestr("a", "b")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"wave,flux\n4000,1\n", zipped(), pickle.dumps({"a": 1}), b"\x89PNG\r\n\x1a\n" * 9],
                         ids=["empty", "zeros", "ones", "csv", "zip", "pickle", "png"])
def test_another_kind_of_file(tmp_path, content):
    (tmp_path / "other.safetensors").write_bytes(content)
    with pytest.raises(DataFileError, match="other.safetensors cannot be read .* not written by this package"):
        load_tensors(tmp_path / "other.safetensors")


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"spectrakit": "{}", "sha256": "0"}, {"spectrakit": "[1]", "sha256": "0"},
                                      {"spectrakit": "{", "sha256": "0"}, {"spectrakit": '{"format": 1}'}, {"spectrakit": "null", "sha256": "0"}])
def test_safetensors_of_others(tmp_path, metadata):
    save_file({"w": torch.zeros(2)}, tmp_path / "other", metadata=metadata)
    with pytest.raises(DataFileError, match="other cannot be read .* not written by this package"):
        load_tensors(tmp_path / "other")


def test_missing_file_and_folder(tmp_path):
    for name in ("absent", "."):
        with pytest.raises(DataFileError, match=r"There is no file .* in .*/; expected a safetensors file. Check the name, or reinstall."):
            load_tensors(tmp_path / name)


def test_newer_format_asks_for_an_update(tmp_path):
    save_tensors(tmp_path / "new", {"w": torch.zeros(2)}, {"format": FORMAT + 1})
    with pytest.raises(DataFileError, match=f"new has format {FORMAT + 1}, this version reads {FORMAT}: update spectrakit."):
        load_tensors(tmp_path / "new")


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers(tmp_path, junk, dtype):
    save_tensors(tmp_path / "w", {"good": torch.zeros(2), "encoder.bad": torch.tensor([0.0, junk], dtype=dtype)}, {})
    with pytest.raises(DataFileError, match=re.escape("w holds NaN or infinite numbers in encoder.bad: it must not be used. Train it again.")):
        load_tensors(tmp_path / "w")


@pytest.mark.parametrize("moment", ["while writing", "before the move"])
def test_a_crash_leaves_the_old_file(path, monkeypatch, moment):
    """Half of the bytes are on the disk when it happens."""
    def crash(target, *data):
        if data and moment == "while writing":
            with open(target, "wb") as f:
                f.write(data[0][:len(data[0]) // 2])
        raise KeyboardInterrupt
    monkeypatch.setattr(*(("pathlib.Path.write_bytes", crash) if moment == "while writing" else ("os.replace", crash)))
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"weight": torch.full((2, 3), 9.0)}, {"kind": "new"})
    monkeypatch.undo()
    tensors, meta = load_tensors(path)
    assert torch.equal(tensors["weight"], some()["weight"])
    assert meta["kind"] == "test"
    save_tensors(path, {"weight": torch.full((2, 3), 9.0)}, {"kind": "new"})
    assert load_tensors(path)[1]["kind"] == "new"
