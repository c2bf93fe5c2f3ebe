"""Manifests: one short YAML a data set says what it is, where it comes from, under which licence, and how to check the file."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from astropy import units as u

from .errors import DataFileError
from .spectra import FRAMES, LABEL_UNITS, MEDIA, SpectraSet
from .surveys import SURVEYS

ANY = {"name": str, "kind": str, "title": str, "what": str, "home": str, "licence": str, "citation": list, "origin": list}
MEANING = {"wave_unit": str, "medium": str, "frame": str, "resolution": dict, "scale": str, "labels": dict}
# What a manifest of each kind has to say, and what it may.
REQUIRED = {"spectra": {**ANY, **MEANING, "files": list, "noise": dict}, "query": {**ANY, **MEANING, "query": dict}, "files": {**ANY, "files": list}}
ALLOWED = {"spectra": {**REQUIRED["spectra"], "originals": dict, "query": dict}, "query": {**REQUIRED["query"], "survey": str}, "files": REQUIRED["files"]}
ORIGIN = {"repository": str, "commit": str, "path": str, "licence": str}
FILE = {"file": str, "role": str, "bytes": int, "sha256": str}
PUBLIC = {"file": str, "url": str, "bytes": int, "sha256": str, "what": str}
ORIGINALS = {"format": str, "url": str, "list": str}
QUERY = {"service": str, "language": str, "text": str, "read": str, "cuts": list, "status": str}
CUT = {"column": str, "keep": str, "value": (int, float, list), "why": str}
KEEP = ("at least", "at most", "equal", "without bits", "finite")
LABEL = {"source": str, "unit": str, "column": str, "file": str, "missing": (int, float)}
RESOLUTION = {"fwhm": (int, float), "power": (int, float), "survey": str}
NOISE = {"kind": str, "flags": str, "error": str, "correlation": (int, float), "floor": (int, float)}
PLAIN = r"\w[\w.-]*"  # a file name without folders: a path in a manifest could point out of the data folder


@dataclass(frozen=True)
class Manifest:
    """What ``data_manifests/<name>.yml`` says; every field is described on the notation page, ``docs/notation.md``.

    ``kind``: ``"spectra"`` can be read by name; ``"query"`` is what to ask an archive for; ``"files"`` are files for other purposes, such as weights.
    """

    name: str
    kind: str
    title: str
    what: str
    home: str
    licence: str
    citation: list[str]
    origin: list[dict]
    files: list[dict] = field(default_factory=list)
    wave_unit: str = ""
    medium: str = ""
    frame: str = ""
    resolution: dict = field(default_factory=dict)
    noise: dict = field(default_factory=dict)
    scale: str = ""
    labels: dict[str, dict] = field(default_factory=dict)
    survey: str = ""
    originals: dict = field(default_factory=dict)
    query: dict = field(default_factory=dict)

    def file(self, role: str) -> dict | None:
        """The entry of ``files`` with this role (``"spectra"``, ``"labels"``), or None."""
        return next((entry for entry in self.files if entry["role"] == role), None)

    def whence(self) -> str:
        """The public origin and what to cite, in one line, for messages."""
        places = ", ".join(" ".join(o[k] for k in ("repository", "path") if k in o) + (f" (commit {o['commit'][:12]})" if "commit" in o else "")
                           for o in self.origin)
        doi = re.findall(r"doi\s*=\s*\{(.+?)\}", self.citation[0])
        return f"{self.home}; github.com: {places}; cite doi:{doi[0] if doi else '(see the manifest)'}"

    def public(self) -> list[dict]:
        """Files that can be fetched, each ``file``, ``url``, ``bytes``, ``sha256`` (0 and "" where the manifest cannot know them).

        For spectra these are the original files that the set was made of; they are listed, one row a file, beside the manifest.
        """
        if self.kind == "files":
            return [{"bytes": 0, "sha256": "", **entry} for entry in self.files]
        if not self.originals:
            return []
        origin = self.origin[0]
        with (folder() / self.originals["list"]).open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            _require(re.fullmatch(PLAIN, row["file"]) and re.fullmatch("[0-9a-f]{64}", row["sha256"]) and row["bytes"].isdigit(), self.originals["list"], "a row",
                     "a plain file name, a number of bytes and 64 hexadecimal digits", row)
        return [{**row, "bytes": int(row["bytes"]), "url": self.originals["url"].format(**origin, file=row["file"])} for row in rows]


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


def cite(*sources: str | SpectraSet) -> str:
    """What to cite for data sets, as BibTeX, each entry once: ``cite("miles", stars)``.

    Parameters
    ----------
    sources : names of manifests, or sets. A set is known by the manifest it was read from, else by its survey; simulated stars have none.

    Raises
    ------
    DataFileError
        No manifest of that name, or none that describes the set.
    """
    found = {}
    for source in sources:
        for manifest in _described(source):
            found.update(dict.fromkeys(text.strip() for text in manifest.citation))
    return "\n\n".join(found)


def _described(source):
    if isinstance(source, str):
        return [load(source)]
    parts = source.provenance.get("parts", [source.provenance])
    named = dict.fromkeys(part["manifest"] for part in parts if "manifest" in part)
    known = [load(name) for name in names()]
    surveys = {manifest.survey or manifest.name: manifest for manifest in known}
    wanted = [load(name) for name in named] or [surveys[survey] for survey in source.survey.split("+") if survey in surveys]
    if not wanted or source.noise == "simulated":
        raise DataFileError(f"No manifest describes this set (survey {source.survey!r}, noise {source.noise}); there are {', '.join(surveys)}. Cite what its "
                            f"provenance names: {source.provenance.get('origin')}.")
    return wanted


def check(content: object, name: str) -> dict:
    """The content of ``<name>.yml`` unchanged if it follows the schema at the top of this module; ``DataFileError`` otherwise."""
    where = f"{name}.yml"
    _require(isinstance(content, dict), where, "the file", "a mapping of keys to values", content)
    kind = content.get("kind")
    _require(kind in REQUIRED, where, "kind", f"one of {', '.join(REQUIRED)}", kind)
    _keys(content, ALLOWED[kind], set(REQUIRED[kind]), where, "")
    _require(content["name"] == name, where, "name", f"{name!r}, as the file is called", content["name"])
    _require(content["origin"], where, "origin", "at least one public origin", content["origin"])
    for i, origin in enumerate(content["origin"]):
        _keys(origin, ORIGIN, {"repository"}, where, f"origin[{i}].")
    for i, text in enumerate(content["citation"]):
        _require(isinstance(text, str) and text.lstrip().startswith("@"), where, f"citation[{i}]", "a BibTeX entry, @article{...}", text)
    _require(content["citation"], where, "citation", "at least one BibTeX entry", content["citation"])
    _check_files(content, where)
    if kind != "files":
        _check_numbers(content, where)
        _check_labels(content, where)
    if "originals" in content:
        _keys(content["originals"], ORIGINALS, set(ORIGINALS), where, "originals.")
        _plain(content["originals"]["list"], where, "originals.list")
    if "query" in content:
        _check_query(content["query"], where)
    return content


def _check_files(content: dict, where: str) -> None:
    for i, entry in enumerate(content.get("files", [])):
        if content["kind"] == "files":
            _keys(entry, PUBLIC, {"file", "url", "what"}, where, f"files[{i}].")
            _require(re.match(r"https?://", entry["url"]), where, f"files[{i}].url", "an address, https://...", entry["url"])
        else:
            _keys(entry, FILE, set(FILE), where, f"files[{i}].")
        _plain(entry["file"], where, f"files[{i}].file")
        _require(re.fullmatch(r"[0-9a-f]{64}", entry.get("sha256", "0" * 64)), where, f"files[{i}].sha256", "64 hexadecimal digits", entry.get("sha256"))
        _require(entry.get("bytes", 1) > 0, where, f"files[{i}].bytes", "a positive number", entry.get("bytes"))
    if content["kind"] == "spectra":
        roles = [entry["role"] for entry in content["files"]]
        _require(roles in (["spectra"], ["spectra", "labels"]), where, "files", "one file with role 'spectra', then at most one with 'labels'", roles)


def _plain(file: str, where: str, key: str) -> None:
    _require(re.fullmatch(PLAIN, file), where, key, "a plain file name, without folders", file)


def _check_query(query: dict, where: str) -> None:
    _keys(query, QUERY, {"service", "language", "text", "read", "status"}, where, "query.")
    for i, cut in enumerate(query.get("cuts", [])):
        _keys(cut, CUT, {"column", "keep", "why"}, where, f"query.cuts[{i}].")
        _require(cut["keep"] in KEEP, where, f"query.cuts[{i}].keep", f"one of {', '.join(KEEP)}", cut["keep"])
        _require(("value" in cut) == (cut["keep"] != "finite"), where, f"query.cuts[{i}].value", "a value, except with keep: finite", cut.get("value"))


def _check_labels(content: dict, where: str) -> None:
    for label, entry in content["labels"].items():
        _keys(entry, LABEL, {"source"}, where, f"labels.{label}.")
        known = {None, *(f["file"] for f in content.get("files", []) if f["role"] == "labels")}
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
    resolution, unit = content["resolution"], _unit(content["wave_unit"], where, "wave_unit")
    _require(content["medium"] in MEDIA, where, "medium", "'vacuum' or 'air'", content["medium"])
    _require(content["frame"] in FRAMES, where, "frame", "'rest' or 'heliocentric'", content["frame"])
    _require(unit.physical_type == "length", where, "wave_unit", "a unit of length", content["wave_unit"])
    _keys(resolution, RESOLUTION, set(), where, "resolution.")
    sound = len(resolution) == 1 and all(value in SURVEYS if key == "survey" else value > 0 for key, value in resolution.items())
    _require(sound, where, "resolution", "one positive number: fwhm (Angstrom) or power; or survey, as declared in surveys.py", resolution)
    if content["kind"] == "spectra":
        noise = content["noise"]
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
