"""The kit's own file: exact, whole or refused, and never half-written."""

import json

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from spectrakit.errors import DataFileError, LabelError
from spectrakit.readers import native, read
from spectrakit.spectra import SpectraSet


def make(labels=None, **changes):
    labels = Table({"star": [1, 2]}) if labels is None else labels
    fields = dict(wave=np.array([4000.0, 4001, 4002]), flux=np.arange(6.0).reshape(2, 3), ivar=np.ones((2, 3)), mask=np.zeros((2, 3), bool),
                  labels=labels, survey="x", medium="vacuum", frame="rest", resolution=np.full(3, 1800.0), normalization="none", noise="simulated",
                  provenance={"origin": "é", "history": ["a", 1, None, 0.1]})
    return SpectraSet(**{**fields, **changes})


def test_every_kind_of_label_column_survives(tmp_path):
    labels = Table({"i": np.array([1, -2], "i2"), "f": np.array([0.1, np.nan], "f4"), "b": [True, False], "s": np.array(["", "ünï"], "U9"),
                    "v": np.arange(4.0).reshape(2, 2), "swapped": np.array([1.5, 2.5], ">f8")})
    labels["m"] = np.ma.array([1, 2], mask=[True, False])
    labels["t"] = np.ma.array(["a", "b"], mask=[False, True])
    labels["f"].unit, labels["f"].description = "km/s", "a velocity"
    back = read(make(labels).write(tmp_path / "x.safetensors")).labels
    assert back.colnames == labels.colnames
    for name in labels.colnames:
        np.testing.assert_array_equal(np.ma.asarray(back[name]), np.ma.asarray(labels[name]))
        np.testing.assert_array_equal(np.ma.getmaskarray(back[name]), np.ma.getmaskarray(labels[name]))
        assert back[name].dtype == labels[name].dtype.newbyteorder("=") and back[name].unit == labels[name].unit
    assert back["f"].description == "a velocity"


def test_views_are_written_as_they_look(tmp_path):
    stars = make(flux=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.testing.assert_array_equal(read(stars.write(tmp_path / "x.safetensors")).flux, stars.flux)
    reverse = stars[::-1]
    np.testing.assert_array_equal(read(reverse.write(tmp_path / "x.safetensors")).flux, reverse.flux)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make().write(tmp_path_factory.mktemp("whole") / "x.safetensors").read_bytes()


@given(st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataFileError, match="x.safetensors is truncated or corrupted, or no safetensors file .* Write or copy it anew"):
        read(path)


@given(st.data())
def test_a_flipped_bit_never_gives_other_numbers(tmp_path_factory, whole, data):
    broken = bytearray(whole)
    broken[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flip") / "x.safetensors"
    path.write_bytes(broken)
    try:
        stars = read(path)
    except DataFileError:
        return
    np.testing.assert_array_equal(stars.flux, make().flux)  # white space of the header may change and mean nothing
    assert stars.provenance == make().provenance


def test_corrupted_data_are_named_as_such(tmp_path, whole):
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataFileError, match="is corrupted: its content does not have the SHA-256 written with it. Write or copy it anew"):
        read(path)


def test_other_safetensors_files_are_refused(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataFileError, match="weights.safetensors is a safetensors file, but not a spectrakit.SpectraSet/1; expected one that"):
        read(tmp_path / "weights.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataFileError, match="There is no file .*none.safetensors; expected one that SpectraSet.write made. Check the path"):
        read(tmp_path / "none.safetensors")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataFileError, match="Cannot write .*none/x.safetensors: No such file or directory. Choose a folder that exists"):
        make().write(tmp_path / "none" / "x.safetensors")


def test_a_broken_off_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = make().write(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.os, "replace", full)
    with pytest.raises(DataFileError, match="Cannot write .*: No space left on device"):
        make(flux=np.zeros((2, 3))).write(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_labels_that_are_objects_are_refused(tmp_path):
    with pytest.raises(LabelError, match="Label 'o' has type object; expected numbers, booleans or text .str.: convert the column first"):
        make(Table({"o": np.array([{}, []], dtype=object)})).write(tmp_path / "x.safetensors")


def test_provenance_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="provenance .* JSON"):
        make(provenance={"origin": object()}).write(tmp_path / "x.safetensors")
    assert json.dumps(make().provenance)
