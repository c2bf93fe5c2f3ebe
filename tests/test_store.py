"""The store: what comes out is what went in, row by row, whatever the sizes of sets and batches; damaged files are errors; memory stays bounded."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from astropy import units as u
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit import store
from spectrakit.errors import DataFileError, LabelError, MismatchError, SpectrakitError, SpectrumError
from spectrakit.pretraining import Stream
from spectrakit.spectra import SpectraSet
from spectrakit.training import TrainConfig, train

N_PIX = 37


def made(n, seed=0, n_pix=N_PIX, scale=1.0, **changes):
    rng = np.random.default_rng(seed)
    labels = Table({"star": np.array([f"s{seed}-{i}" for i in range(n)], "U8"), "teff": rng.uniform(4000, 7000, n), "id": rng.integers(0, 2**62, n),
                    "good": rng.random(n) < 0.5, "coeff": rng.normal(0, 1, (n, 3))})
    labels["teff"].unit, labels["teff"].description = u.K, "drawn"
    mask = rng.random((n, n_pix)) < 0.1
    flux, ivar = rng.normal(1, 0.1, (n, n_pix)) * scale, rng.uniform(50, 150, (n, n_pix)) / scale**2
    flux[mask], ivar[mask] = np.nan, np.inf
    flux, ivar, mask = map(np.asfortranarray if seed % 2 else np.asarray, (flux, ivar, mask))  # chosen columns, as normalising makes them, lie so in memory
    about = dict(survey="lamost_lrs", medium="vacuum", frame="rest", normalization="none", noise="measured", provenance={"origin": "made", "history": ["a"]})
    arrays = dict(wave=10 ** (3.6 + 1e-4 * np.arange(n_pix)), flux=flux, ivar=ivar, mask=mask, labels=labels, resolution=np.full(n_pix, 1800.0))
    return SpectraSet(**{**arrays, **about, **changes})


def same(found, expected):
    np.testing.assert_array_equal(found.mask, expected.mask)
    for name in ("flux", "ivar"):
        np.testing.assert_array_equal(getattr(found, name), np.where(expected.mask, 0, getattr(expected, name)).astype("f4"))
    for name in expected.labels.colnames:
        np.testing.assert_array_equal(found.labels[name], expected.labels[name])
        assert (found.labels[name].unit, found.labels[name].description) == (expected.labels[name].unit, expected.labels[name].description)
        assert found.labels[name].dtype.kind == expected.labels[name].dtype.kind


@settings(max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_rows_come_back_in_any_order(tmp_path_factory, sizes, block, seed):
    sizes = [1, *sizes]
    sets = [made(n, seed=i) for i, n in enumerate(sizes)]
    path = tmp_path_factory.mktemp("store") / "x.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BLOCK", block)
        assert store.write(path, iter(sets)) == path
    opened = store.Store(path)
    n = sum(sizes)
    assert len(opened) == n and [p.name for p in path.parent.iterdir()] == ["x.arrow"]
    np.testing.assert_array_equal(opened.wave, sets[0].wave)  # float64, exact
    whole, start = opened[:], 0
    for stars in sets:
        same(whole[start:start + len(stars)], stars)
        start += len(stars)
    rows = np.random.default_rng(seed).integers(0, n, 50)
    same(opened[rows], whole[rows])
    chosen = np.arange(n) % 2 == 0
    same(opened[chosen], whole[chosen])
    assert [len(part) for part in opened.sets(7)] == [min(7, n - k) for k in range(0, n, 7)]


def test_what_holds_for_all_spectra_is_kept(tmp_path):
    opened = store.Store(store.write(tmp_path / "x.arrow", [made(5), made(4, seed=1, provenance={"origin": "other"})]))
    found = opened[[8, 0]]
    assert {name: getattr(found, name) for name in ("survey", "medium", "frame", "normalization", "noise")} == {
        "survey": "lamost_lrs", "medium": "vacuum", "frame": "rest", "normalization": "none", "noise": "measured"}
    assert found.provenance == {"origin": "made", "history": ["a"]} and list(found.labels["star"]) == ["s1-3", "s0-0"]
    assert repr(opened) == "Store(9 x 37 pixels, 3981.1-4014.2 A vacuum, lamost_lrs, labels: star, teff, id, good, coeff)"
    assert len(opened[3]) == 1 and len(opened[-2:]) == 2


def test_systems_without_preadv_read_the_same_through_the_map(tmp_path, monkeypatch):
    opened = store.Store(store.write(tmp_path / "x.arrow", [made(50)]))
    rows = np.array([49, 0, 7, 7])
    expected = opened.arrays(rows)
    monkeypatch.delattr(store.os, "preadv")
    monkeypatch.setattr(opened, "_read", lambda *_: pytest.fail("read by preadv"))
    for found, array in zip(opened.arrays(rows), expected, strict=True):
        np.testing.assert_array_equal(found, array)


def test_masked_labels(tmp_path):
    stars = made(3)
    stars.labels["snr"], stars.labels["note"] = MaskedColumn([1.0, 2, 3], mask=[0, 1, 0]), MaskedColumn(["a", "b", "c"], mask=[0, 0, 1])
    labels = store.Store(store.write(tmp_path / "x.arrow", [stars]))[:].labels
    np.testing.assert_array_equal(labels["snr"], [1, np.nan, 3])
    assert list(labels["note"]) == ["a", "b", ""]
    stars.labels["flag"] = MaskedColumn([1, 2, 3], mask=[0, 1, 0])
    with pytest.raises(LabelError, match="Label 'flag' is int64 and has masked rows, which whole numbers have no value for. Make it float, or fill it."):
        store.write(tmp_path / "y.arrow", [stars])


OTHERS = {
    "survey": (dict(survey="desi"), "survey is 'lamost_lrs' in the first set and 'desi' in set 1; bring them to the same"),
    "frame": (dict(frame="heliocentric"), "frame is 'rest' in the first set and 'heliocentric' in set 1"),
    "grid": (dict(wave=np.linspace(4000.0, 4100, N_PIX)), "Set 1 has another wave than the first; normalise them onto one grid first"),
    "pixels": (dict(n_pix=30), "Set 1 has another wave than the first"),
    "resolution": (dict(resolution=np.full(N_PIX, 1000.0)), "Set 1 has another resolution than the first"),
    "scale": (dict(provenance={"label_scale": "other"}), "The labels are on different scales: not stated; other"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_sets_that_do_not_go_together_are_refused_and_leave_nothing(tmp_path, case):
    changes, message = OTHERS[case]
    if "n_pix" in changes:
        changes = {**changes, "resolution": np.full(30, 1800.0)}
    with pytest.raises(MismatchError, match=message):
        store.write(tmp_path / "x.arrow", [made(3), made(3, seed=1, **changes)])
    assert not list(tmp_path.iterdir())


def test_labels_that_do_not_go_together_are_named(tmp_path):
    other = made(3)
    other.labels["teff"].description = "guessed"
    with pytest.raises(MismatchError, match=r"The labels of set 1 are star \(<U8, None\), teff .*; those of the first are star .* Give all sets the same columns"):
        store.write(tmp_path / "x.arrow", [made(3), other])
    other = made(3)
    other.labels["what"] = [object()] * 3
    with pytest.raises(LabelError, match="Label 'what' is object .*; expected numbers, booleans or text, one .or a row of numbers. a star"):
        store.write(tmp_path / "x.arrow", [other])
    other = made(3)
    other.labels["flux"] = [1.0, 2, 3]
    with pytest.raises(LabelError, match="Label 'flux' is .* a name that is none of flux, ivar, mask, crc32. Convert, rename or remove the column"):
        store.write(tmp_path / "x.arrow", [other])


def test_numbers_beyond_float32_are_refused(tmp_path):
    with pytest.raises(SpectrumError, match=r"ivar of set 0 has values that float32 cannot hold \(.*e\+..\); multiply flux by a constant first"):
        store.write(tmp_path / "x.arrow", [made(3, scale=1e-21)])
    with pytest.raises(SpectrumError, match="flux of set 1 has values that float32 cannot hold"):
        store.write(tmp_path / "x.arrow", [made(3), made(3, scale=1e-39)])
    with pytest.raises(SpectrumError, match="There are no spectra to write to x.arrow"):
        store.write(tmp_path / "x.arrow", [])
    with pytest.raises(DataFileError, match="The provenance cannot be written as JSON"):
        store.write(tmp_path / "x.arrow", [made(3, provenance={"a": {1, 2}})])
    with pytest.raises(DataFileError, match="Cannot write .*nowhere.*: No such file or directory. Choose a folder"):
        store.write(tmp_path / "nowhere" / "x.arrow", [made(3)])
    assert not list(tmp_path.iterdir())


def test_an_iterator_that_breaks_leaves_the_old_file(tmp_path):
    path = store.write(tmp_path / "x.arrow", [made(5)])
    before = path.read_bytes()

    def sets():
        yield made(5, seed=1)
        raise RuntimeError("the disk with the originals is gone")

    with pytest.raises(RuntimeError, match="originals is gone"):
        store.write(path, sets())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.arrow"]


def test_rows_that_are_not_there(tmp_path):
    opened = store.Store(store.write(tmp_path / "x.arrow", [made(5)]))
    for rows in ([5], [-6]):
        with pytest.raises(IndexError):
            opened[rows]
    with pytest.raises(IndexError, match="Rows -1 to 5 asked of a store of 5"):
        opened.arrays(np.array([5, -1]))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BLOCK", 8)
        path = store.write(tmp_path_factory.mktemp("whole") / "x.arrow", [made(20)])
    return path.read_bytes(), store.Store(path)[:]


def test_cut_off_at_fifty_places(content, tmp_path):
    whole, _ = content
    for cut in np.linspace(0, len(whole) - 1, 50).astype(int):
        (tmp_path / "cut.arrow").write_bytes(whole[:cut])
        with pytest.raises(DataFileError, match="cut.arrow is truncated or corrupted, or no Arrow file .*Write or copy the file anew"):
            store.Store(tmp_path / "cut.arrow")


def damaged(whole, reference, path):
    """An error of the kit, or the very same numbers: nothing else may come of a damaged file."""
    path.write_bytes(whole)
    try:
        opened = store.Store(path)
        found, n = opened[:], len(opened)
    except SpectrakitError:
        return
    assert n == len(reference)
    same(found, reference)
    np.testing.assert_array_equal(found.wave, reference.wave)


@settings(max_examples=150)
@given(st.data())
def test_flipped_bits_never_give_other_numbers(content, tmp_path_factory, data):
    whole, reference = content
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged(bytes(broken), reference, tmp_path_factory.getbasetemp() / "flipped.arrow")


@settings(max_examples=80)
@given(st.data())
def test_overwritten_pieces_never_give_other_numbers(content, tmp_path_factory, data):
    whole, reference = content
    at = data.draw(st.integers(0, len(whole) - 9))
    piece = data.draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8, b"\x01\0\0\0\0\0\0\0"]))
    damaged(whole[:at] + piece + whole[at + 8:], reference, tmp_path_factory.getbasetemp() / "overwritten.arrow")


def test_other_files_are_named(tmp_path):
    with pytest.raises(DataFileError, match="There is no file .*none.arrow; expected one that spectrakit.store.write made"):
        store.Store(tmp_path / "none.arrow")
    for text in (b"", b"<!DOCTYPE html><html></html>", b"ARROW1\0\0" * 30):
        (tmp_path / "x.arrow").write_bytes(text)
        with pytest.raises(DataFileError, match="x.arrow is truncated or corrupted, or no Arrow file"):
            store.Store(tmp_path / "x.arrow")
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), pa.schema([("a", pa.int8())])):
        pass
    with pytest.raises(DataFileError, match="other.arrow is corrupted, or an Arrow file of another kind: its schema has no spectrakit.Store/1 with a right SHA-256"):
        store.Store(tmp_path / "other.arrow")


def test_any_arrow_library_reads_it(tmp_path):
    """An independent reading: plain pyarrow, without this package."""
    stars = made(6)
    table = pa.ipc.open_file(str(store.write(tmp_path / "x.arrow", [stars]))).read_all()
    np.testing.assert_array_equal(np.array(table["flux"].to_pylist(), "f4"), np.where(stars.mask, 0, stars.flux).astype("f4"))
    np.testing.assert_array_equal(np.array(table["mask"].to_pylist()), stars.mask)
    assert table["star"].to_pylist() == list(stars.labels["star"]) and table["coeff"].to_pylist() == stars.labels["coeff"].tolist()


class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8))

    def forward(self, flux, teff):
        return (flux @ self.weight - teff.float() / 5000).square().mean()


def test_the_training_loop_reads_it(tmp_path):
    stars = made(5000, n_pix=8)
    opened = store.Store(store.write(tmp_path / "x.arrow", [stars]))

    def prepare(some):
        return torch.as_tensor(some.flux), torch.as_tensor(np.asarray(some.labels["teff"]))

    def stream():
        return Stream(opened.examples(prepare), batch=512, seed=3)

    once = stream()
    flux, teff = once(2)
    assert flux.dtype == torch.float32 and flux.shape == (512, 8) and torch.equal(stream()(2)[0], flux)
    rows = [int(np.flatnonzero(stars.labels["teff"] == t)[0]) for t in teff.tolist()[:20]]
    np.testing.assert_array_equal(flux[:20], np.where(stars.mask, 0, stars.flux).astype("f4")[rows])
    block = torch.cat([once(step)[1] for step in range(8)])
    assert len(block.unique()) == 4096 and len(torch.cat([block, once(8)[1]]).unique()) > 4096  # none twice in a block; the next is another choice
    loss = Loss()
    train(loss, stream(), TrainConfig(steps=2, lr=1e-2, seed=0, warmup=1), tmp_path, "run")
    assert (loss.weight != 0).all()
    few = store.Store(store.write(tmp_path / "few.arrow", [made(10, n_pix=8)])).examples(prepare)
    assert len(few(4096, 0)[0]) == 4096


READER = """
import sys, numpy as np
from spectrakit import store
opened = store.Store(sys.argv[1])
rng = np.random.default_rng(0)
highest = 0
for _ in range(10):
    opened.arrays(rng.integers(0, len(opened), 500))
    pages = {line.split()[0]: int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("Rss")}
    highest = max(highest, pages["RssFile:"])
print(highest // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the resident memory is read from /proc")
def test_resident_memory_is_bounded_though_the_file_is_larger(tmp_path):
    stars = made(1024, n_pix=3000)
    path = store.write(tmp_path / "x.arrow", (stars for _ in range(20)))
    assert path.stat().st_size > 550e6
    done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300  # MiB, of libraries; read through the map it is the whole file
