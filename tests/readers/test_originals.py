"""MILES and STELIB from their own files: built to their layout, served by a server on this machine, converted, kept; and every way that can fail."""

import csv
import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from spectrakit import manifests
from spectrakit.errors import DataFileError
from spectrakit.readers import originals, read

ROW = "{name:<23}{number:<7}{cat:<6}{sptype:<15}{teff:>5}{logg:>7}{feh:>10}   {refs:<6}{more}"
STARS = [dict(name="HD000001", number="0001", cat="", sptype="G2V", teff="5777", logg="4.44", feh="0.00", refs="111", more="L J   I E"),
         dict(name="BD+010002A", number="022.", cat="123", sptype="", teff="21581", logg="3.86", feh="--", refs="  3", more=""),
         dict(name="M5 II 99          Cl", number="0985", cat="", sptype="HB", teff="9441", logg="2.43", feh="-1.11", refs="1", more="L")]
TABLE = "Name   MILES\n                      s????   \n - - - -\n" + "".join(ROW.format(**star) + "\n" for star in STARS)


def image(start, step, flux, **more):
    header = fits.Header({"CRVAL1": start, "CDELT1": step, "CRPIX1": 1.0, **more})
    return fits.HDUList([fits.PrimaryHDU(flux, header)])


def flux_of(number, n=4300):
    return 1 + 0.1 * np.sin(np.arange(n) / (10 + number))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """``library("miles")``: the shipped manifest, with a list of small files that a server on this machine has; gives (folder of the server, its requests)."""
    shipped, served, asked = manifests.folder(), tmp_path / "served", []
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("SPECTRAKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPECTRAKIT_DATA", raising=False)
    monkeypatch.delenv("SPECTRAKIT_OFFLINE", raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    (tmp_path / "manifests").mkdir()
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path / "manifests")

    def put(name):
        if name == "miles":
            for number in (1, 221, 985):
                image(3540.5, 0.9, flux_of(number)).writeto(served / f"MILES_res2.50_star_m{number:04d}V.fits")
            (served / originals.PARAMS).write_text(TABLE)
        else:
            image(3300.5, 1.0004, np.r_[-0.5, flux_of(1, 500)].astype("f4")).writeto(served / "STELIB_v3.2_HD000123.fits")
            image(3205.0, 1.0, flux_of(2, 6690)).writeto(served / "STELIB_v3.2_HD053929lp.fits")
        content = yaml.safe_load((shipped / f"{name}.yml").read_text())
        content["originals"]["url"] = f"http://127.0.0.1:{server.server_port}/{{file}}"
        (tmp_path / "manifests" / f"{name}.yml").write_text(yaml.safe_dump(content))
        with open(tmp_path / "manifests" / f"{name}.originals.csv", "w", newline="") as file:
            rows = [(p.name, p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(served.iterdir())]
            csv.writer(file).writerows([("file", "bytes", "sha256"), *rows])
        return served, asked

    yield put
    server.shutdown()
    server.server_close()


def test_miles_comes_from_its_files(library, tmp_path):
    served, _ = library("miles")
    assert {p.stat().st_size for p in served.glob("*.fits")} == {37440}  # as the published ones: one header block, 4300 numbers of 8 bytes
    stars = read("miles")
    np.testing.assert_allclose(stars.wave[[0, 1, -1]], [3540.5, 3541.4, 7409.6])
    np.testing.assert_allclose(stars.flux, [flux_of(n) for n in (1, 221, 985)], rtol=1e-6)
    assert (stars.survey, stars.medium, stars.frame, stars.noise) == ("miles", "air", "rest", "estimated")
    labels = stars.labels
    assert list(labels["star"]) == ["HD1", "BD+01_2A", "M5II99CL"] and list(labels["miles_id"]) == [1, 221, 985]
    np.testing.assert_array_equal(labels["teff"], [5777, 21581, 9441])
    np.testing.assert_array_equal(labels["logg"], [4.44, 3.86, 2.43])
    np.testing.assert_array_equal(labels["feh"], [0.0, np.nan, -1.11])
    assert list(labels["label_refs"]) == ["111", "3", "1"] and list(labels["sptype"]) == ["G2V", "", "HB"]
    assert stars.provenance["history"][0] == "made of 4 public files: the spectra as published, labels of paramsMILES_v9.1.txt"
    assert "cite" not in stars.provenance and manifests.cite(stars) == manifests.cite("miles")


def test_what_was_converted_is_kept_and_made_again_when_damaged(library, tmp_path, monkeypatch):
    served, asked = library("miles")
    first = read("miles")
    n, kept = len(asked), next((tmp_path / "cache" / "miles").glob("*.safetensors"))
    monkeypatch.setenv("SPECTRAKIT_OFFLINE", "1")
    monkeypatch.setattr(originals, "miles", lambda paths: pytest.fail("converted again"))
    np.testing.assert_array_equal(read("miles").flux, first.flux)
    monkeypatch.undo()
    monkeypatch.setenv("SPECTRAKIT_OFFLINE", "1")
    monkeypatch.setenv("SPECTRAKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPECTRAKIT_DATA", raising=False)
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path / "manifests")
    kept.write_bytes(kept.read_bytes()[:-7])
    again = read("miles")
    np.testing.assert_array_equal(again.flux, first.flux)
    assert len(asked) == n == 4 and again.labels.pformat() == first.labels.pformat()


def test_stelib_is_brought_to_one_grid_and_its_labels_are_left_out(library):
    library("stelib")
    stars = read("stelib")
    assert stars.wave.size == 6690 and (stars.wave[0], stars.wave[-1]) == (3205, 9894)
    assert list(stars.labels["star"]) == ["HD123", "HD053929LP"] and list(stars.labels["name"]) == ["HD000123", "HD053929lp"]
    assert not stars.labelled("teff").any() and "the headers' stellar labels are left out" in stars.provenance["history"][0]
    np.testing.assert_allclose(stars.flux[1], flux_of(2, 6690), rtol=1e-6)
    seen = ~stars.mask[0]
    wave = 3300.5 + 1.0004 * np.arange(501)
    inside = (stars.wave >= wave[1]) & (stars.wave <= wave[-1])
    np.testing.assert_array_equal(seen, inside)  # neither beyond the data nor beside a pixel with flux <= 0
    np.testing.assert_allclose(stars.flux[0, seen], 1 + 0.1 * np.sin((stars.wave[seen] - wave[1]) / 1.0004 / 11), atol=2e-4)


def test_a_file_that_was_altered_at_its_origin_is_refused(library, tmp_path):
    served, _ = library("miles")
    spectrum = served / "MILES_res2.50_star_m0221V.fits"
    spectrum.write_bytes(spectrum.read_bytes()[:-1] + b"x")
    with pytest.raises(DataFileError, match="miles.npz, the data of 'miles', was not found: SPECTRAKIT_DATA is not set.* Nor did the originals come: "
                                            "MILES_res2.50_star_m0221V.fits of 'miles' could not be fetched from http://127.0.0.1.*SHA256 hash of downloaded file"):
        read("miles")
    kept = {path.name for path in (tmp_path / "cache" / "miles").iterdir()}
    assert not kept & {"MILES_res2.50_star_m0221V.fits"} and not any(name.endswith(".safetensors") for name in kept)


def test_wrong_layouts_are_named(tmp_path):
    def put(name, hdus):
        hdus.writeto(tmp_path / name, overwrite=True)
        return tmp_path / name

    params = tmp_path / originals.PARAMS
    params.write_text(TABLE)
    good = put("MILES_res2.50_star_m0001V.fits", image(3540.5, 0.9, flux_of(1)))
    empty = fits.HDUList([fits.PrimaryHDU()])
    for wrong, shape in ((image(3540.5, 0.9, np.ones((2, 30))), r"\(2, 30\)"), (image(0.35, 0.9, flux_of(1)), "CRVAL1 0.35"), (empty, r"\(0,\)")):
        with pytest.raises(DataFileError, match=f"m0221V.fits: expected one image with a row of pixels and CRVAL1, CDELT1 in Angstrom; found .*{shape}"):
            originals.miles([params, good, put("MILES_res2.50_star_m0221V.fits", wrong)])
    with pytest.raises(DataFileError, match="The spectrum of star 0985 has other wavelengths than that of star 0001"):
        originals.miles([params, good, put("MILES_res2.50_star_m0985V.fits", image(3540.5, 0.8, flux_of(1)))])
    with pytest.raises(DataFileError, match="paramsMILES_v9.1.txt has no star 0007, of which there is a spectrum"):
        originals.miles([params, put("MILES_res2.50_star_m0007V.fits", image(3540.5, 0.9, flux_of(1)))])
    params.write_text("<html>moved</html>")
    with pytest.raises(DataFileError, match="paramsMILES_v9.1.txt has no row with a star's number in columns 23-28"):
        originals.parameters(params)
    params.write_text(TABLE.replace("5777", "57 7"))
    with pytest.raises(DataFileError, match="the row of star 0001 is not in the table's columns"):
        originals.parameters(params)


@given(st.integers(1, 9999), st.integers(1000, 60000), st.floats(-1, 6), st.one_of(st.none(), st.floats(-4, 1)), st.text("ABGKMIV :.0123", max_size=14))
def test_every_row_that_can_be_written_is_read(tmp_path_factory, number, teff, logg, feh, sptype):
    path = Path(tmp_path_factory.getbasetemp()) / "rows.txt"
    text = "--" if feh is None else f"{feh:.2f}"
    cells = dict(name=f"HD{number:06d}", number=f"{number:04d}", cat="", sptype=sptype, teff=teff, logg=f"{logg:.2f}", feh=text, refs="111", more="")
    path.write_text(ROW.format(**cells) + "\n")
    row = originals.parameters(path)[number]
    assert (row["teff"], row["logg"], row["sptype"], row["key"]) == (teff, round(logg, 2), sptype.strip(), f"HD{number}")
    np.testing.assert_equal(row["feh"], np.nan if feh is None else float(text))


@given(st.binary(max_size=400))
def test_any_bytes_in_place_of_the_table_are_an_error_of_the_kit(tmp_path_factory, content):
    path = Path(tmp_path_factory.getbasetemp()) / "bytes.txt"
    path.write_bytes(content)
    with pytest.raises(DataFileError):
        originals.parameters(path)


@pytest.mark.requires_data("miles")
def test_keys_are_those_of_the_real_set():
    stars = read("miles")
    assert [originals.key(str(name)) for name in stars.labels["name"]] == list(stars.labels["key"])
    listed = {entry["file"] for entry in manifests.load("miles").public()}
    assert listed == {f"MILES_res2.50_star_m{number:04d}V.fits" for number in stars.labels["miles_id"]} | {originals.PARAMS}


@pytest.mark.requires_data("stelib")
def test_the_listed_files_of_stelib_are_the_stars_of_the_real_set():
    names = [entry["file"].removeprefix("STELIB_v3.2_").removesuffix(".fits") for entry in manifests.load("stelib").public()]
    assert sorted(map(originals.key, names)) == sorted(read("stelib").labels["key"])
