"""Notebook pairs: ``notebooks/NN_name.py`` (jupytext, percent format) is the source, ``NN_name.ipynb`` its executed copy.

python -m tools.notebooks build [NAME ...]    execute the sources and write the copies
python -m tools.notebooks check               compare each pair, cell by cell
"""

import argparse
import json
import os
import re
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat

from tools.execution import execute

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
# A path that only exists on one machine: it would mislead every other reader.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|var|opt|usr|work|private|mnt|scratch)/[\w.+-]+|\b[A-Z]:\\\\[\w.+-]+")
VOLATILE = ("papermill", "execution")


def sources(folder: Path = FOLDER) -> list[Path]:
    """The notebooks' sources, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def named(names: list[str], folder: Path = FOLDER) -> list[Path]:
    """The sources called ``names``."""
    known = {path.stem: path for path in sources(folder)}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"No notebook named {', '.join(unknown)}: expected one of {', '.join(known) or '(none yet)'}.")
    return [known[name] for name in names]


def differences(source: Path, copy: Path) -> list[str]:
    """Where the executed copy departs from its source; empty when they agree."""
    found = []
    pairs = zip_longest(jupytext.read(source).cells, nbformat.read(copy, as_version=4).cells)
    for number, (wanted, actual) in enumerate(pairs):
        if wanted is None or actual is None:
            found.append(f"cell {number}: only in {source.name if actual is None else copy.name}")
            continue
        for what, pick in _COMPARED.items():
            if pick(wanted) != pick(actual):
                found.append(f"cell {number}: {what} differs: {pick(wanted)!r} in {source.name}, {pick(actual)!r} in {copy.name}")
    return found


_COMPARED = {
    "type": lambda cell: cell.cell_type,
    "source": lambda cell: cell.source,
    "tags": lambda cell: sorted(cell.metadata.get("tags", [])),
}


def faults(copy: Path) -> list[str]:
    """What a committed copy must not have: a cell that did not run, an error, a path of one machine, a foreign kernel."""
    notebook = nbformat.read(copy, as_version=4)
    found = []
    if (kernel := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        found.append(f"kernel {kernel!r}: expected 'python3', which every environment has")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            found.append(f"cell {number}: not executed")
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {number}: ends in {output.ename}: {output.evalue}")
        if path := MACHINE_PATH.search(_text(cell)):
            found.append(f"cell {number}: holds a path of one machine, {path.group()!r}")
    return found


def _text(cell: nbformat.NotebookNode) -> str:
    """A cell without its images, whose encoding may spell anything."""
    outputs = [
        {**output, "data": {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}}
        for output in cell.get("outputs", [])
    ]
    return json.dumps({**cell, "outputs": outputs}, ensure_ascii=False)


def build(source: Path) -> None:
    """Execute ``source`` with the parameters written in it and replace its copy."""
    print(f"{source.name}:", flush=True)
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # random ids would change with every build
    notebook = execute(notebook, None, source.parent)
    for metadata in (notebook.metadata, *(cell.metadata for cell in notebook.cells)):
        for key in VOLATILE:
            metadata.pop(key, None)
        if not metadata.get("tags", True):
            del metadata["tags"]
    notebook.metadata.pop("jupytext", None)
    nbformat.write(notebook, source.with_suffix(".ipynb"))


def check(folder: Path = FOLDER) -> list[str]:
    """Everything wrong with the pairs in ``folder``."""
    found = [f"{copy.name}: no source {copy.stem}.py beside it" for copy in sorted(folder.glob("*.ipynb")) if not copy.with_suffix(".py").exists()]
    for source in sources(folder):
        copy = source.with_suffix(".ipynb")
        if not copy.exists():
            found.append(f"{source.name}: no executed copy beside it; run `make notebooks name={source.stem}`")
            continue
        found += [f"{copy.name}, {line}" for line in differences(source, copy) + faults(copy)]
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Notebook pairs.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="execute the sources and write the copies").add_argument("names", nargs="*")
    commands.add_parser("check", help="compare each pair")
    arguments = parser.parse_args()
    os.environ.setdefault("SPECTRAKIT_OFFLINE", "1")  # kernels inherit it: notebooks use what is here, and say what is not
    if arguments.command == "build":
        for source in named(arguments.names) or sources():
            build(source)
    if found := check():
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
