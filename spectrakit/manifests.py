"""Manifests: one short YAML a data set says what it is, where it comes from, under which licence, and how to check the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from astropy import units as u

from .errors import DataFileError
from .spectra import FRAMES, LABEL_UNITS, MEDIA
from .surveys import SURVEYS

MANIFEST = {"name": str, "title": str, "what": str, "home": str, "licence": str, "citation": list, "origin": list, "files": list,
            "wave_unit": str, "medium": str, "frame": str, "resolution": dict, "noise": dict, "scale": str, "labels": dict}
ORIGIN = {"repository": str, "commit": str, "path": str, "licence": str}
FILE = {"file": str, "role": str, "bytes": int, "sha256": str}
LABEL = {"source": str, "unit": str, "column": str, "file": str, "missing": (int, float)}
RESOLUTION = {"fwhm": (int, float), "power": (int, float), "survey": str}
NOISE = {"kind": str, "flags": str, "error": str, "correlation": (int, float), "floor": (int, float)}


@dataclass(frozen=True)
class Manifest:
    """What ``data_manifests/<name>.yml`` says; every field is described on the notation page, ``docs/notation.md``."""

    name: str
    title: str
    what: str
    home: str
    licence: str
    citation: list[str]
    origin: list[dict]
    files: list[dict]
    wave_unit: str
    medium: str
    frame: str
    resolution: dict
    noise: dict
    scale: str
    labels: dict[str, dict]

    def file(self, role: str) -> dict | None:
        """The entry of ``files`` with this role (``"spectra"``, ``"labels"``), or None."""
        return next((entry for entry in self.files if entry["role"] == role), None)

    def whence(self) -> str:
        """The public origin and what to cite, in one line, for messages."""
        places = ", ".join(" ".join(o[k] for k in ("repository", "path") if k in o) + (f" (commit {o['commit'][:12]})" if "commit" in o else "")
                           for o in self.origin)
        doi = re.findall(r"doi\s*=\s*\{(.+?)\}", self.citation[0])
        return f"{self.home}; github.com: {places}; cite doi:{doi[0] if doi else '(see the manifest)'}"


def folder() -> Traversable:
    """Where the manifests are: inside the installed package, else beside it in the repository."""
    packaged = resources.files("spectrakit") / "data_manifests"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "data_manifests"


def names() -> list[str]:
    """The data sets that have a manifest, sorted."""
    return sorted(f.name.removesuffix(".yml") for f in folder().iterdir() if f.name.endswith(".yml"))


def load(name: str) -> Manifest:
    """One manifest, checked.

    Raises
    ------
    DataFileError
        No such manifest, not YAML, or a key that is missing, unknown, or of the wrong kind: the message names file, key and expectation.
    """
    if name not in names():
        raise DataFileError(f"No manifest named {name!r}; expected one of {', '.join(names())}. A new set is one more file in data_manifests/.")
    where = f"{name}.yml"
    try:
        content = yaml.safe_load((folder() / where).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFileError(f"{where} is not YAML: {error}. Compare it with the other manifests.") from error
    return Manifest(**check(content, name))


def check(content: object, name: str) -> dict:
    """The content of ``<name>.yml`` unchanged if it follows the schema at the top of this module; ``DataFileError`` otherwise."""
    where = f"{name}.yml"
    _keys(content, MANIFEST, set(MANIFEST), where, "")
    _require(content["name"] == name, where, "name", f"{name!r}, as the file is called", content["name"])
    _require(content["medium"] in MEDIA, where, "medium", "'vacuum' or 'air'", content["medium"])
    _require(content["frame"] in FRAMES, where, "frame", "'rest' or 'heliocentric'", content["frame"])
    _require(content["origin"], where, "origin", "at least one public origin", content["origin"])
    for i, origin in enumerate(content["origin"]):
        _keys(origin, ORIGIN, {"repository"}, where, f"origin[{i}].")
    for i, text in enumerate(content["citation"]):
        _require(isinstance(text, str) and text.lstrip().startswith("@"), where, f"citation[{i}]", "a BibTeX entry, @article{...}", text)
    _require(content["citation"], where, "citation", "at least one BibTeX entry", content["citation"])
    _check_files(content, where)
    _check_numbers(content, where)
    _check_labels(content, where)
    return content


def _check_files(content: dict, where: str) -> None:
    for i, entry in enumerate(content["files"]):
        _keys(entry, FILE, set(FILE), where, f"files[{i}].")
        # A path in a manifest could point out of the data folder.
        _require(re.fullmatch(r"\w[\w.-]*", entry["file"]), where, f"files[{i}].file", "a plain file name, without folders", entry["file"])
        _require(re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]), where, f"files[{i}].sha256", "64 hexadecimal digits", entry["sha256"])
        _require(entry["bytes"] > 0, where, f"files[{i}].bytes", "a positive number", entry["bytes"])
    roles = [entry["role"] for entry in content["files"]]
    _require(roles in (["spectra"], ["spectra", "labels"]), where, "files", "one file with role 'spectra', then at most one with 'labels'", roles)


def _check_labels(content: dict, where: str) -> None:
    for label, entry in content["labels"].items():
        _keys(entry, LABEL, {"source"}, where, f"labels.{label}.")
        known = {None, *(f["file"] for f in content["files"] if f["role"] == "labels")}
        _require(entry.get("file") in known, where, f"labels.{label}.file", "a file of this manifest", entry.get("file"))
        unit = _unit(entry.get("unit", ""), where, f"labels.{label}.unit")
        expected = LABEL_UNITS.get(label, unit)
        _require(unit == expected, where, f"labels.{label}.unit", str(expected), entry.get("unit"))
    _require("star" in content["labels"], where, "labels.star", "the star's identity: splits by star need it", None)


def _unit(text: str, where: str, key: str) -> u.UnitBase:
    unit = u.Unit(text, parse_strict="silent")
    _require(not isinstance(unit, u.UnrecognizedUnit), where, key, "a unit that astropy knows", text)
    return unit


def _check_numbers(content: dict, where: str) -> None:
    resolution, noise, unit = content["resolution"], content["noise"], _unit(content["wave_unit"], where, "wave_unit")
    _require(unit.physical_type == "length", where, "wave_unit", "a unit of length", content["wave_unit"])
    _keys(resolution, RESOLUTION, set(), where, "resolution.")
    sound = len(resolution) == 1 and all(value in SURVEYS if key == "survey" else value > 0 for key, value in resolution.items())
    _require(sound, where, "resolution", "one positive number: fwhm (Angstrom) or power; or survey, as declared in surveys.py", resolution)
    _keys(noise, NOISE, {"kind", "correlation", "floor"} if noise.get("kind") == "estimated" else {"kind"}, where, "noise.")
    _require(noise["kind"] in ("measured", "estimated"), where, "noise.kind", "'measured' or 'estimated'", noise["kind"])


def _keys(mapping: object, allowed: dict, required: set, where: str, prefix: str) -> None:
    _require(isinstance(mapping, dict), where, prefix.rstrip(".") or "the file", "a mapping of keys to values", mapping)
    for key in sorted(required - set(mapping)):
        _require(False, where, prefix + key, "to be there", None)
    for key, value in mapping.items():
        _require(key in allowed, where, f"{prefix}{key}", f"no such key; known here: {', '.join(allowed)}", value)
        kind = allowed[key]
        word = "number" if isinstance(kind, tuple) else kind.__name__
        # In YAML `yes` is a bool, and a bool is an int in Python.
        _require(isinstance(value, kind) and not isinstance(value, bool), where, f"{prefix}{key}", f"a {word}", value)


def _require(condition: object, where: str, key: str, expected: str, found: object) -> None:
    if not condition:
        raise DataFileError(f"{where}, key {key}: expected {expected}; found {found!r}. Correct the manifest.")
