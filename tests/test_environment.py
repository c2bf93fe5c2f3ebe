"""The ways to install spectrakit agree with each other, and the tests run on what they claim to."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in CONSTRAINTS)}
# What torch brings along for a GPU differs from machine to machine, and torch pins it itself.
OF_A_GPU = re.compile(r"nvidia|cuda|triton")
LEFT_OUT = {"hats", "site"}  # extras that `make env` does not install; their tests skip by name


def direct() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra not in LEFT_OUT]
    return [Requirement(line) for line in sum(extras, project["dependencies"])]


def needed() -> set[str]:
    """Every package that the direct dependencies lead to in this environment."""
    found, queue = set(), [(requirement.name, frozenset(requirement.extras)) for requirement in direct()]
    while queue:
        if (item := queue.pop()) in found:
            continue
        found.add(item)
        for requirement in map(Requirement, importlib.metadata.requires(item[0]) or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *item[1])):
                queue.append((requirement.name, frozenset(requirement.extras)))
    return {canonicalize_name(name) for name, _ in found if not OF_A_GPU.search(name)}


def make_install() -> list[str]:
    """The options of the last `pip install` that `make env` runs, as a requirements file would list them."""
    installs = re.findall(r"pip install (-c \S+) (-e) \"([^\"]+)\"", (ROOT / "Makefile").read_text())
    assert len(installs) == 1, f"expected one editable install in the Makefile, found {installs}"
    constraint, editable, target = installs[0]
    return [constraint, f"{editable} {target}"]


def test_every_pin_is_exact_and_single():
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert len(PINS) == len(CONSTRAINTS)
    assert [name for name in PINS if OF_A_GPU.search(name)] == []


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_pin_of_a_dependency_is_within_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.skipif(sys.platform != "linux", reason="constraints.txt was made on Linux; other systems need a few packages more")
def test_whatever_they_need_is_pinned_too():
    assert sorted(needed() - PINS.keys()) == []


def test_conda_installs_what_make_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": make_install()}
    extras = re.search(r"\[(.*)\]", make_install()[1]).group(1).split(",")
    assert set(extras) == set(PROJECT["project"]["optional-dependencies"]) - LEFT_OUT


def test_every_package_folder_is_installed():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "spectrakit").rglob("__init__.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"spectrakit.data_manifests"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected, "bring [tool.setuptools] packages in pyproject.toml up to date"


def test_installed_package_finds_its_manifests():
    from spectrakit import manifests

    files = [path for path in (ROOT / "data_manifests").iterdir() if path.suffix.startswith(".y")]
    assert sorted(manifests.names()) == sorted(path.stem for path in files)
    assert {f"*{path.suffix}" for path in files} <= set(PROJECT["tool"]["setuptools"]["package-data"]["spectrakit.data_manifests"])


def test_shapes_in_signatures_are_checked():
    import spectrakit

    assert "jaxtyping" in type(spectrakit.__spec__.loader).__module__, "spectrakit was imported before the hook that checks shapes"


LEAKS = """
import numpy as np, pytest, torch

def test_quiet(): torch.rand(2, generator=torch.Generator()); np.random.default_rng(0).normal()
def test_torch_draw(): torch.rand(2)
def test_numpy_draw(): np.random.rand()
def test_dtype(): torch.set_default_dtype(torch.float64)
def test_grad(): torch.set_grad_enabled(False)
def test_threads(): torch.set_num_threads(torch.get_num_threads() + 1)
def test_all_is_turned_back(): assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
@pytest.mark.requires_data("no_such_survey")
def test_data(): pass
"""


def test_guards_of_the_test_suite_work(pytester, monkeypatch):
    monkeypatch.delenv("SPECTRAKIT_DATA", raising=False)
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(LEAKS)
    result = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=7, errors=5, skipped=1)
    for changed in (
        "torch's global random state",
        "numpy's global random state",
        "torch's default dtype",
        "torch's grad mode",
        "torch's thread count",
    ):
        result.stdout.fnmatch_lines([f"*{changed} changed: draw from*"])
    result.stdout.fnmatch_lines(["*needs real/no_such_survey.npz under SPECTRAKIT_DATA*"])
