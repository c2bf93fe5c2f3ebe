"""Manifests: the shipped ones hold, and a wrong one is refused with file, key and expectation."""

import copy

import numpy as np
import pytest
import yaml
from astropy.table import Table

from spectrakit import manifests
from spectrakit.errors import DataFileError
from spectrakit.spectra import SpectraSet


@pytest.mark.parametrize("name", ["lamost_lrs", "miles", "stelib"])
def test_shipped_manifests_are_complete(name):
    manifest = manifests.load(name)
    assert name in manifests.names() and manifest.name == name
    assert manifest.file("spectra")["file"] == f"{name}.npz"
    assert {"star", "teff", "logg", "feh"} <= set(manifest.labels)
    assert all(manifest.labels[label]["unit"] == unit for label, unit in {"teff": "K", "logg": "dex", "feh": "dex"}.items())
    assert "github.com: " in manifest.whence() and "cite doi:10." in manifest.whence()


def test_every_shipped_manifest_follows_the_schema():
    found = {name: manifests.load(name) for name in manifests.names()}
    kinds = {name: manifest.kind for name, manifest in found.items()}
    assert kinds == {**dict.fromkeys(["gaia_xp", "lamost_lrs", "miles", "stelib"], "spectra"), **dict.fromkeys(["apogee_dr17", "desi_edr"], "query"),
                     **dict.fromkeys(["leung_bovy", "specclip_test_data", "specclip_weights", "spectrafm"], "files")}
    assert all(manifest.query for name, manifest in found.items() if name in ("apogee_dr17", "desi_edr", "gaia_xp", "lamost_lrs"))


@pytest.mark.parametrize("name, n, size", [("miles", 726, 27237533), ("stelib", 197, 6808320)])
def test_originals_are_listed_file_by_file(name, n, size):
    files = manifests.load(name).public()
    assert (len(files), sum(entry["bytes"] for entry in files)) == (n, size) and len({entry["sha256"] for entry in files}) == n
    assert all(entry["url"] == "https://raw.githubusercontent.com/sdss/mangadap/996b46cb9739126fe0fbe69c1a50d8490d924853/mangadap/data/spectral_templates/"
               f"{name}/{entry['file']}" for entry in files)


@pytest.mark.parametrize("row", ["../m0001V.fits,5," + "a" * 64, "m.fits,five," + "a" * 64, "m.fits,5,abc", "m.fits,-5," + "a" * 64])
def test_a_wrong_row_in_the_list_of_originals_is_refused(tmp_path, monkeypatch, row):
    content = yaml.safe_load((manifests.folder() / "miles.yml").read_text())
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path)
    (tmp_path / "miles.yml").write_text(yaml.safe_dump(content))
    (tmp_path / "miles.originals.csv").write_text("file,bytes,sha256\n" + row + "\n")
    with pytest.raises(DataFileError, match="miles.originals.csv, key a row: expected a plain file name, a number of bytes and 64 hexadecimal digits"):
        manifests.load("miles").public()


def test_cite_gives_bibtex_of_names_and_sets(stars):
    miles = manifests.cite("miles")
    assert miles.startswith("@article{SanchezBlazquez2006,") and miles.count("@article{") == 7
    both = manifests.cite("miles", "stelib")
    assert both.count("@article{") == 8 and both.count("Hinkel2014") == 1  # shared entries once
    assert manifests.cite(stars(survey="desi")) == manifests.cite("desi_edr")
    assert manifests.cite(stars(survey="desi", provenance={"manifest": "miles"})) == miles
    assert manifests.cite(stars(survey="miles+stelib", provenance={"parts": [{"manifest": "miles"}, {"manifest": "stelib"}]})) == both


def test_cite_says_when_nothing_describes_a_set(stars):
    with pytest.raises(DataFileError, match="No manifest describes this set .survey 'mine', noise measured.; there are apogee, .* Cite what its provenance"):
        manifests.cite(stars(survey="mine"))
    with pytest.raises(DataFileError, match="noise simulated"):
        manifests.cite(stars(survey="miles", noise="simulated"))


@pytest.fixture
def stars():
    def make(survey, noise="measured", provenance=None):
        n = 5
        return SpectraSet(wave=np.linspace(4000.0, 4004, n), flux=np.ones((1, n)), ivar=np.ones((1, n)), mask=np.zeros((1, n), bool), labels=Table({"star": ["a"]}),
                          survey=survey, medium="air", frame="rest", resolution=np.full(n, 1e3), normalization="none", noise=noise,
                          provenance={"origin": "x", **(provenance or {})})
    return make


def test_a_manifest_is_found_when_the_package_is_installed(tmp_path, monkeypatch):
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests" / "mine.yml").write_text("")
    monkeypatch.setattr(manifests.resources, "files", lambda package: tmp_path)
    assert manifests.names() == ["mine"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataFileError, match="No manifest named 'mils'; expected one of apogee_dr17, .*, gaia_xp, .*, stelib. A new set is one more file"):
        manifests.load("mils")


def test_a_file_that_is_not_yaml_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "folder", lambda: tmp_path)
    (tmp_path / "broken.yml").write_text("a: [1\n")
    with pytest.raises(DataFileError, match=r"(?s)broken.yml is not YAML: .* Compare it with the other manifests"):
        manifests.load("broken")


@pytest.fixture(scope="module")
def good():
    return yaml.safe_load((manifests.folder() / "miles.yml").read_text())


DELETE = object()
WRONG = {
    "key missing": (["licence"], DELETE, "miles.yml, key licence: expected to be there"),
    "key unknown": (["license"], "MIT", "key license: expected no such key; known here: name, kind, title, .*; found 'MIT'"),
    "set's kind": (["kind"], "stars", "key kind: expected one of spectra, query, files; found 'stars'"),
    "list escape": (["originals", "list"], "../../etc/passwd", "key originals.list: expected a plain file name, without folders; found '../../etc/passwd'"),
    "originals": (["originals", "url"], DELETE, "key originals.url: expected to be there"),
    "query": (["query"], {"text": "SELECT"}, "key query.language: expected to be there"),
    "kind": (["title"], 5, "key title: expected a str; found 5"),
    "name": (["name"], "stelib", "key name: expected 'miles', as the file is called; found 'stelib'"),
    "medium": (["medium"], "water", "key medium: expected 'vacuum' or 'air'; found 'water'"),
    "frame": (["frame"], "observed", "key frame: expected 'rest' or 'heliocentric'"),
    "no citation": (["citation"], [], "key citation: expected at least one BibTeX entry"),
    "citation": (["citation", 0], "Sanchez-Blazquez 2006", r"key citation\[0\]: expected a BibTeX entry, @article"),
    "origin": (["origin", 0, "repository"], DELETE, r"key origin\[0\].repository: expected to be there"),
    "no origin": (["origin"], [], "key origin: expected at least one public origin"),
    "path escape": (["files", 0, "file"], "../secret.npz", r"key files\[0\].file: expected a plain file name, without folders; found '../secret"),
    "hash": (["files", 0, "sha256"], "abc", r"key files\[0\].sha256: expected 64 hexadecimal digits"),
    "bytes": (["files", 0, "bytes"], True, r"key files\[0\].bytes: expected a int; found True"),
    "role": (["files", 0, "role"], "pictures", "key files: expected one file with role 'spectra'"),
    "resolution": (["resolution"], {"fwhm": 2.5, "power": 1800}, r"key resolution: expected one positive number: fwhm \(Angstrom\) or power"),
    "no resolution": (["resolution"], {}, "key resolution: expected one positive number"),
    "no scale": (["scale"], DELETE, "key scale: expected to be there"),
    "noise kind": (["noise", "kind"], "guessed", "key noise.kind: expected 'measured' or 'estimated'"),
    "noise floor": (["noise", "floor"], DELETE, "key noise.floor: expected to be there"),
    "unit": (["labels", "teff", "unit"], "Kelvins!", "key labels.teff.unit: expected a unit that astropy knows; found 'Kelvins!'"),
    "field unit": (["labels", "teff", "unit"], "km", "key labels.teff.unit: expected K; found 'km'"),
    "wave unit": (["wave_unit"], "K", "key wave_unit: expected a unit of length; found 'K'"),
    "label source": (["labels", "feh", "source"], DELETE, "key labels.feh.source: expected to be there"),
    "label": (["labels", "feh"], "dex", "key labels.feh: expected a mapping of keys to values; found 'dex'"),
    "label file": (["labels", "alpha_fe", "file"], "other.csv", "key labels.alpha_fe.file: expected a file of this manifest; found 'other.csv'"),
    "star": (["labels", "star"], DELETE, "key labels.star: expected the star's identity: splits by star need it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_manifest_names_file_key_and_expectation(good, case):
    path, value, message = WRONG[case]
    content = copy.deepcopy(good)
    parent = content
    for step in path[:-1]:
        parent = parent[step]
    if value is DELETE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    with pytest.raises(DataFileError, match=message) as caught:
        manifests.check(content, "miles")
    assert str(caught.value).endswith("Correct the manifest.")


@pytest.mark.parametrize("content", [None, [], "text"])
def test_a_manifest_that_is_no_mapping_is_refused(content):
    with pytest.raises(DataFileError, match="miles.yml, key the file: expected a mapping of keys to values"):
        manifests.check(content, "miles")
