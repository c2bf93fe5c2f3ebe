"""From a manifest and its file to a SpectraSet, on a small set made here; and what is said when the file is not there or not right."""

import gzip
import hashlib
import io

import numpy as np
import pytest
import yaml
from astropy import units as u

from spectrakit import manifests
from spectrakit.errors import DataFileError
from spectrakit.readers import read

N, N_PIX = 4, 600


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """``put(arrays, ...)`` writes a manifest "toy" with its file, and points the environment variable at it."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "data" / "real").mkdir(parents=True)
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path / "manifests")
    monkeypatch.setenv("SPECTRAKIT_DATA", str(tmp_path / "data"))

    def put(content, extra=None, place="real", **changes):
        files = [{"file": "toy.npz", "role": "spectra", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
        if extra is not None:
            files.append({"file": "extra.csv.gz", "role": "labels", "bytes": len(extra), "sha256": hashlib.sha256(extra).hexdigest()})
        manifest = dict(
            name="toy", kind="spectra", title="Toy", what="a test", home="http://example.org", licence="none", origin=[{"repository": "a/b", "commit": "c" * 40}],
            citation=["@article{Toy, doi = {10.1/toy}}"], files=files, wave_unit="nm", medium="air", frame="rest", resolution={"fwhm": 2.0},
            noise={"kind": "estimated", "correlation": 2.0, "floor": 0.005}, scale="toy", labels={"star": {"column": "key", "source": "x"}})
        (tmp_path / "manifests" / "toy.yml").write_text(yaml.safe_dump({**manifest, **changes}))
        (tmp_path / "data" / place / "toy.npz").write_bytes(content)
        return tmp_path / "data" / place / "toy.npz"

    put.extra = tmp_path / "data" / "real" / "extra.csv.gz"
    return put


def arrays(**changes):
    rng = np.random.default_rng(0)
    flux = rng.normal(1, 0.01, (N, N_PIX)).astype("f4")
    return {"wave": np.linspace(400, 459.9, N_PIX), "flux": flux, "key": np.array(["A", "B", "C", "D"]), **changes}


@pytest.mark.parametrize("place", ["real", "."])
def test_declarations_give_the_arrays_their_meaning(shelf, place):
    shelf(npz(**arrays()), place=place)
    stars = read("toy")
    np.testing.assert_allclose(stars.wave[[0, -1]], [4000, 4599])
    np.testing.assert_allclose(stars.resolution, stars.wave / 2)
    assert (stars.survey, stars.medium, stars.frame, stars.normalization, stars.noise) == ("toy", "air", "rest", "none", "estimated")
    assert list(stars.labels["star"]) == ["A", "B", "C", "D"] and stars.flux.dtype == "f8"
    assert stars.provenance["manifest"] == "toy" and len(stars.provenance["sha256"]) == 64


def test_defects_of_a_library_spectrum_are_masked(shelf):
    flux = arrays()["flux"]
    flux[0, :5] = [np.nan, np.inf, 0, -1, 1]
    shelf(npz(**arrays(flux=flux)))
    stars = read("toy")
    assert stars.mask.sum() == 4 and stars.mask[0, :4].all()
    assert not stars.flux[stars.mask].any() and not stars.ivar[stars.mask].any() and (stars.ivar[~stars.mask] > 0).all()


def test_measured_errors_and_flags_are_honoured(shelf):
    flux = np.ones((N, N_PIX))
    ivar, flags = np.full((N, N_PIX), 4.0), np.zeros((N, N_PIX), bool)
    ivar[0, :3], flags[1, 7], flux[2, 9], flux[3, 9] = [0, -1, np.nan], True, 0, -0.5
    shelf(npz(**arrays(flux=flux, ivar=ivar, bad=flags)), noise={"kind": "measured", "flags": "bad"}, resolution={"power": 1800})
    stars = read("toy")
    expected = flags.copy()
    expected[0, :3], expected[2, 9] = True, True  # a negative flux is noise here, and stays
    np.testing.assert_array_equal(stars.mask, expected)
    np.testing.assert_array_equal(stars.ivar, np.where(expected, 0, 4.0))
    assert stars.noise == "measured" and (stars.resolution == 1800).all()


LABELS = {"star": {"column": "key", "source": "x"}, "teff": {"unit": "K", "source": "x"}, "rv": {"unit": "km/s", "missing": 9999, "source": "x"},
          "alpha_fe": {"unit": "dex", "file": "extra.csv.gz", "source": "x"}, "note": {"file": "extra.csv.gz", "source": "x"}}
MORE = dict(teff=np.array([5000, np.nan, 6000, 7000], "f4"), rv=np.array([1.0, 9999, -3, 0]))


def test_labels_have_units_and_missing_values_are_nan(shelf):
    extra = gzip.compress(b"key,alpha_fe,note\nC,0.3,\nA,,odd\nZ,0.1,\n")
    shelf(npz(**arrays(**MORE)), extra, labels=LABELS)
    shelf.extra.write_bytes(extra)
    labels = read("toy").labels
    assert [labels[name].unit for name in ("teff", "rv", "alpha_fe")] == [u.K, u.km / u.s, u.dex]
    np.testing.assert_array_equal(labels["teff"], MORE["teff"])
    np.testing.assert_array_equal(labels["rv"], [1, np.nan, -3, 0])
    np.testing.assert_array_equal(labels["alpha_fe"], [np.nan, np.nan, 0.3, np.nan])
    assert list(labels["note"]) == ["odd", "", "", ""]


def test_an_absent_label_file_leaves_its_columns_empty_and_says_so(shelf):
    shelf(npz(**arrays(**MORE)), gzip.compress(b"key,alpha_fe,note\n"), labels=LABELS)
    stars = read("toy")
    assert np.isnan(stars.labels["alpha_fe"]).all() and set(stars.labels["note"]) == {""}
    assert stars.provenance["history"] == ["extra.csv.gz not found: its labels are empty"]


def test_a_label_file_is_checked_too(shelf):
    shelf(npz(**arrays(**MORE)), gzip.compress(b"key,alpha_fe,note\n"), labels=LABELS)
    shelf.extra.write_bytes(gzip.compress(b"key,alpha_fe,note\nA,9,\n"))
    with pytest.raises(DataFileError, match="extra.csv.gz is not the file that the manifest 'toy' describes"):
        read("toy")
    extra = gzip.compress(b"key,alpha_fe\n")
    shelf(npz(**arrays(**MORE)), extra, labels=LABELS)
    shelf.extra.write_bytes(extra)
    with pytest.raises(DataFileError, match="label file has no column 'key' or 'note'; it has: key, alpha_fe. Correct the manifest"):
        read("toy")


def test_a_missing_array_is_named(shelf):
    content = arrays()
    del content["flux"]
    shelf(npz(**content))
    with pytest.raises(DataFileError, match="toy.npz has no array 'flux', which the manifest 'toy' needs; it has: wave, key"):
        read("toy")


def test_pickled_objects_are_refused(shelf):
    shelf(npz(**arrays(key=np.array(["A", None, {}, 1], dtype=object))))
    with pytest.raises(DataFileError, match="toy.npz is not a readable npz file .*allow_pickle=False.*Copy it anew from http://example.org"):
        read("toy")


def test_what_is_no_npz_is_refused_even_with_the_right_hash(shelf):
    for content in (b"<html>not found</html>", npz(**arrays())[:200], b"PK\x03\x04", b"x"):
        shelf(content)
        with pytest.raises(DataFileError, match="toy.npz is not a readable npz file"):
            read("toy")


def test_absent_data_say_variable_file_origin_and_what_to_do(monkeypatch, tmp_path):
    origin = r"Public origin of the data: http://miles.iac.es; github.com: sdss/mangadap mangadap/data/\S+ \(commit 996b46cb9739\); cite doi:10.1111"
    todo = "Set it to a folder that holds real/miles.npz or miles.npz. "
    offline = r"Nor did the originals come: MILES_res2.50_star_m0001V.fits and 725 more of 'miles' are not in .*, and SPECTRAKIT_OFFLINE forbids the network"
    monkeypatch.setenv("SPECTRAKIT_OFFLINE", "1")
    monkeypatch.setenv("SPECTRAKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPECTRAKIT_DATA", raising=False)
    with pytest.raises(DataFileError, match=f"miles.npz, the data of 'miles', was not found: SPECTRAKIT_DATA is not set. {todo}{origin}.* {offline}"):
        read("miles")
    monkeypatch.setenv("SPECTRAKIT_DATA", str(tmp_path))
    with pytest.raises(DataFileError, match="SPECTRAKIT_DATA is '.*', which holds neither real/miles.npz nor miles.npz"):
        read("miles")
    monkeypatch.setenv("SPECTRAKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataFileError, match="SPECTRAKIT_DATA is '.*nowhere', which is no folder"):
        read("miles")
    assert not (tmp_path / "cache").exists()


def test_what_is_no_star_loses_its_stellar_labels_and_is_flagged(shelf):
    labels = {"star": {"column": "key", "source": "x"}, "teff": {"unit": "K", "source": "x"}, "teff_err": {"unit": "K", "source": "x"},
              "z": {"unit": "", "source": "x"}, "object_class": {"column": "kind", "source": "x"}}
    made = arrays(teff=np.array([5000.0, 5500, 6000, 7000]), teff_err=np.full(4, 50.0), z=np.full(4, 0.1), kind=np.array(["STAR", "GALAXY", "Unknown", ""]))
    shelf(npz(**made), labels=labels)
    found = read("toy").labels
    assert list(found["object_class"]) == ["star", "galaxy", "unknown", ""]
    np.testing.assert_array_equal(found["teff"], [5000, np.nan, 6000, 7000])
    np.testing.assert_array_equal(found["teff_err"], [50, np.nan, 50, 50])
    np.testing.assert_array_equal(found["z"], np.full(4, 0.1))


@pytest.mark.parametrize("name, todo", [("desi_edr", "Ask SPARCL for it"), ("apogee_dr17", "give it to spectrakit.crossmatch.by_position"), ("spectrafm", "on https://zenodo"),
                                        ("specclip_weights", r"It is files: fetch\('specclip_weights', FILE\), FILE one of lrs_encoder.ckpt, ")])
def test_what_cannot_be_read_by_name_says_what_to_do(name, todo):
    with pytest.raises(DataFileError, match=f"'{name}' cannot be read by name. .*{todo}"):
        read(name)


def test_a_truncated_or_altered_file_is_refused_before_it_is_parsed(shelf, monkeypatch):
    content = npz(**arrays())
    path = shelf(content)
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("parsed an unchecked file"))
    path.write_bytes(content[:-10])
    size = len(content)
    both = r"SHA-256 expected [0-9a-f]{64}, found [0-9a-f]{64}. Nothing was read from it: copy the file anew. Origin: http://example.org"
    with pytest.raises(DataFileError, match=rf"toy.npz is not the file .* \({size - 10} of {size} bytes: truncated\). {both}"):
        read("toy")
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataFileError, match=rf"\({size} bytes, expected {size}\). {both}"):
        read("toy")


def test_an_unreadable_file_is_an_error_of_its_own(shelf, monkeypatch):
    shelf(npz(**arrays()))

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DataFileError, match="toy.npz cannot be read .Permission denied.. Check its permissions"):
        read("toy")


def test_an_unknown_source_lists_what_can_be_read():
    with pytest.raises(DataFileError, match="Cannot read 'mils': it is neither a data set .apogee_dr17, .*, stelib. nor a file. Check name and path"):
        read("mils")
    for source in ("stars.fits", "miles.npz"):
        with pytest.raises(DataFileError, match=f"There is no file {source}. Check the path"):
            read(source)
