"""What every notebook of the course has to have, checked on its source and printed as a table: `python -m tools.course`.

Eight requirements a notebook. Each is a marker in the text or code of ``notebooks/NN_name.py``; whether a control is the right one, or a figure worth its place, no
script can say. The exit code is 1 while something is missing.
"""

import argparse
import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jupytext

from tools import notebooks

ROWS = ("Question", "You will", "You need", "Time", "Data")
TIME = re.compile(r"(\d+) minutes to read, about (\d+) minutes? to run on 2 cores, about (\d+(?:\.\d+)?) GB of memory")
EXERCISE = re.compile(r"\*\*Exercise (\d+)\*\* \((easy|medium|hard), (\d+) minutes\)")
WIDGET = re.compile(r"ipywidgets\.interact\(\s*(\w+)|sk\.widgets\.([A-Z]\w*)\(")
CLOSING = {"what was shown": "## What was shown, and what not", "what was not": "*Not* shown", "misreadings": "**Common misreadings.**", "next steps": "**Next.**",
           "references": "**References.**"}
DOCS = ("notation.md", "glossary.md", "teaching.md", "troubleshooting.md", "extending.md")


@dataclass(frozen=True)
class Cell:
    """One cell: ``kind`` is ``markdown`` or ``code``."""

    kind: str
    source: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What a header promises: minutes to read and to run on 2 cores, peak memory in GB."""

    read: int
    run: int
    memory: float


def cells_of(source: Path) -> list[Cell]:
    """The cells of a notebook's source."""
    return [Cell(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ()))) for cell in jupytext.read(source).cells]


def header(cells: list[Cell]) -> dict[str, str]:
    """The rows of the table in the first cell, by name."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", cells[0].source, re.M))


def budget(cells: list[Cell]) -> Budget | None:
    """The promise in the header, None where it is not made in the usual words."""
    found = TIME.search(header(cells).get("Time", ""))
    return found and Budget(int(found[1]), int(found[2]), float(found[3]))


def code(cells: list[Cell]) -> Iterator[str]:
    """The sources of the code cells."""
    return (cell.source for cell in cells if cell.kind == "code")


def text(cells: list[Cell]) -> str:
    """All text cells as one."""
    return "\n\n".join(cell.source for cell in cells if cell.kind == "markdown")


def asserts(source: str) -> list[str]:
    """The assertions in a code cell."""
    plain = re.sub(r"^[%!].*$", "", source, flags=re.M)
    return [ast.unparse(node.test) for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.Assert)]


def check_header(cells: list[Cell]) -> Iterator[str]:
    """Question, 3 to 5 goals, prerequisites, minutes to read and to run, memory, data."""
    rows = header(cells)
    yield from (f"no row {name!r}" for name in ROWS if name not in rows)
    goals = [goal for goal in rows.get("You will", "").split(";") if goal.strip()]
    if not 3 <= len(goals) <= 5:
        yield f"{len(goals)} goals (parted by ;), 3 to 5 wanted"
    if budget(cells) is None:
        yield "no time like '50 minutes to read, about 2 minutes to run on 2 cores, about 1.5 GB of memory'"


def check_size(cells: list[Cell]) -> Iterator[str]:
    """At most 60 cells, half of them text, no code cell over 30 lines."""
    said = sum(cell.kind == "markdown" for cell in cells)
    if len(cells) > 60:
        yield f"{len(cells)} cells, at most 60 wanted"
    if 2 * said < len(cells):
        yield f"{said} of {len(cells)} cells are text, half wanted"
    for number, cell in enumerate(cells):
        if cell.kind == "code" and (lines := len(cell.source.splitlines())) > 30:
            yield f"cell {number} has {lines} lines, at most 30 wanted"


def check_by_hand(cells: list[Cell]) -> Iterator[str]:
    """An idea written out under a name with ``by_hand``, asserted equal to the package."""
    same = ("allclose", "isclose", "equal", "==")
    if not any("by_hand" in test and any(word in test for word in same) for source in code(cells) for test in asserts(source)):
        yield "no assertion that something called by_hand equals the package"


def check_prediction(cells: list[Cell]) -> Iterator[str]:
    """``**Predict`` in the text, and an assertion after it in the same section."""
    asked, kept, waiting = 0, 0, False
    for cell in cells:
        if cell.kind == "markdown":
            _, heading, section = ("\n" + cell.source).rpartition("\n## ")     # without a heading all is section
            asked += "**Predict" in cell.source
            waiting = "**Predict" in section or (waiting and not heading)
        elif waiting and asserts(cell.source):
            kept, waiting = kept + 1, False
    if not asked:
        yield "no '**Predict first.**'"
    elif not kept:
        yield "no prediction is followed by an assertion in its section"


def check_figure(cells: list[Cell]) -> Iterator[str]:
    """A figure with axes named, a unit and a title, a takeaway after it; and a control."""
    whole = [k for k, cell in enumerate(cells) if cell.kind == "code" and all(word in cell.source for word in ("xlabel", "ylabel", "title"))
             and re.search(r"label\w*\s*[=(][^\n]*(?:\[[^\]\n]+\]| / )", cell.source)]
    if not any("**Takeaway" in next((c.source for c in cells[k:] if c.kind == "markdown"), "") for k in whole):
        yield "no figure with xlabel, ylabel, unit and title is followed by a '**Takeaway.**'"
    if not re.search(r"\bcontrols?\b", text(cells), re.I):
        yield "no control"


def check_widget(cells: list[Cell]) -> Iterator[str]:
    """A widget, its static twin in a cell before it, and the line of code."""
    place = next((k for k, cell in enumerate(cells) if cell.kind == "code" and WIDGET.search(cell.source)), None)
    if place is None:
        yield "no widget"
        return
    shown = WIDGET.search(cells[place].source)[1]
    twin = rf"^{shown}\(" if shown else r"\bsk\.widgets\.[a-z]\w*\("
    if not any(re.search(twin, source, re.M) for source in code(cells[:place])):
        yield "no static twin: " + (f"call {shown}(...) in a cell before the widget" if shown else "a figure of sk.widgets before the widget")
    if not re.search(rf"\bas code\b|\bline of code\b|\bone line\b|`{shown}\(", text(cells), re.I):
        yield "no line of code: say 'As code: `...`'"


def check_exercises(cells: list[Cell]) -> Iterator[str]:
    """Four, each with difficulty, minutes, a runnable stub, a ``check_*`` with hints, and a solution kept apart."""
    asked = [(k, number) for k, cell in enumerate(cells) if cell.kind == "markdown" for number, *_ in EXERCISE.findall(cell.source)]
    if len(asked) < 4:
        yield f"{len(asked)} exercises like '**Exercise 1** (easy, 5 minutes).', 4 wanted"
    solutions = "\n".join(cell.source for cell in cells if "solutions" in cell.tags)
    everything = "\n".join(code(cells))
    for place, number in asked:
        stub = next((source for source in code(cells[place:]) if re.search(r"^check_\w+\(", source, re.M)), "")
        names, check = re.findall(r"^def (?!check_)(\w+)\(.*\n(?:    .*\n|\n)*?    return None$", stub, re.M), re.search(r"^(check_\w+)\(", stub, re.M)
        if not names or not check:
            yield f"exercise {number}: no stub that ends in 'return None' with its check_*(...) in the cell"
            continue
        body = re.search(rf"^def {check[1]}\(.*\n(?:(?:    .*)?\n)*", everything + "\n", re.M)
        if body is None or "told(" not in body[0]:
            yield f"exercise {number}: {check[1]} is not defined here with told(...)"
        if f"<summary>Exercise {number}</summary>" not in solutions or not any(f"def {name}(" in solutions for name in names):
            yield f"exercise {number}: no <summary>Exercise {number}</summary> with def {names[0]}( in the cell tagged solutions"


def check_closing(cells: list[Cell]) -> Iterator[str]:
    """What was shown, what not, misreadings, next steps, references."""
    said = text(cells)
    yield from (f"no {what} ({mark})" for what, mark in CLOSING.items() if mark not in said)
    if not re.search(r"arXiv:\d{4}\.\d{4,5}|\b\d{4}, (?:ApJ|A&A|MNRAS|AJ)\b", said.partition("**References.**")[2]):
        yield "no reference with arXiv number or journal"


REQUIREMENTS: dict[str, Callable[[list[Cell]], Iterator[str]]] = {
    "header": check_header, "size": check_size, "by hand": check_by_hand, "prediction": check_prediction, "figure, control": check_figure, "widget": check_widget,
    "exercises": check_exercises, "closing": check_closing}


def missing(cells: list[Cell]) -> dict[str, list[str]]:
    """For each requirement what is missing; an empty list is met."""
    return {name: list(check(cells)) for name, check in REQUIREMENTS.items()}


def table(found: dict[str, dict[str, list[str]]]) -> str:
    """Notebooks down, requirements across, and below what is missing."""
    width = max(map(len, found), default=8)
    lines = [f"{'notebook':{width}}  " + "  ".join(REQUIREMENTS)]
    for name, faults in found.items():
        lines.append(f"{name:{width}}  " + "  ".join(f"{'-' if faults[r] else 'met':{len(r)}}" for r in REQUIREMENTS).rstrip())
    told = [f"{name}, {requirement}: {fault}" for name, faults in found.items() for requirement, some in faults.items() for fault in some]
    return "\n".join(lines + ([""] + told if told else []))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The eight requirements of the course, notebook by notebook.")
    parser.add_argument("names", nargs="*", help="notebooks, without suffix; all of them when none is named")
    found = {source.stem: missing(cells_of(source)) for source in notebooks.named(parser.parse_args().names) or notebooks.sources()}
    print(table(found))
    absent = [name for name in DOCS if not (notebooks.FOLDER.parent / "docs" / name).exists()]
    print(f"\ndocs: {'missing ' + ', '.join(absent) if absent else 'notation, glossary, lecturer, troubleshooting, extending are there'}")
    if absent or any(any(faults.values()) for faults in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
