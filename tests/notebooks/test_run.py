"""Every notebook runs in the short profile; running it again gives the same output, and its exercises can be solved."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import nbformat
import pytest

from tools import course, notebooks

ROOT = notebooks.FOLDER.parent
OUTPUT = ROOT / "build" / "test"
SANITIZE = Path(__file__).with_name("sanitize.cfg")

pytestmark = pytest.mark.notebook


@pytest.fixture(scope="module", params=notebooks.sources(), ids=lambda path: path.stem)
def executed(request) -> Path:
    """The notebook as papermill left it."""
    command = [sys.executable, "-m", "tools.tour", request.param.stem, "--profile", "ci", "--output", str(OUTPUT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (OUTPUT / f"{request.param.stem}.txt").write_text(done.stdout, encoding="utf-8")
    return OUTPUT / f"{request.param.stem}.ipynb"


def test_runs_and_names_its_key_figures(executed):
    cells = nbformat.read(executed, as_version=4).cells
    # nbval compares nothing, and is content, where a cell has not been executed.
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip())
    assert any("key-figures" in cell.metadata.get("tags", []) and cell.outputs for cell in cells), "no cell tagged key-figures printed `name: value`"


def test_costs_less_than_twice_what_its_header_says(executed):
    """The header is about the full profile: of the short one this can only be exceeded by a mistake."""
    promised = course.budget(course.cells_of(notebooks.FOLDER / f"{executed.stem}.py"))
    seconds, megabytes = re.search(rf"^{executed.stem} +([\d.]+) +(\d+)", executed.with_suffix(".txt").read_text(encoding="utf-8"), re.M).groups()
    assert float(seconds) < 2 * 60 * promised.run
    assert float(megabytes) < 2 * 1000 * promised.memory


def test_the_tour_of_the_readme_needs_no_real_stars(tmp_path):
    """The first notebook in its full profile, which is what a newcomer runs."""
    without = {name: value for name, value in os.environ.items() if name != "SPECTRAKIT_DATA"}
    done = subprocess.run([sys.executable, "-m", "tools.tour", "--output", str(tmp_path)], cwd=ROOT, env=without, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "SIMULATED stars" in (tmp_path / "00_start_here.ipynb").read_text(encoding="utf-8")


SOLVED = """import contextlib as _contextlib, io as _io
{solution}
with _contextlib.redirect_stdout(_io.StringIO()) as _heard:
{check}
assert "done." in _heard.getvalue(), _heard.getvalue()"""


def solved(cells) -> list:
    """A cell for each exercise: its solution, and its check, which has to be content."""
    published = "\n".join(cell.source for cell in cells if "solutions" in cell.metadata.get("tags", []))
    solutions = re.findall(r"<summary>Exercise \d</summary>\n\n```python\n(.*?)```", published, re.S)
    checks = [found[0] for cell in cells if cell.cell_type == "code" and (found := re.search(r"^check_\w+\(.*", cell.source, re.S | re.M))]
    assert len(checks) == len(solutions) == 4, f"{len(checks)} cells that end in a check, {len(solutions)} solutions; 4 wanted of each"
    sources = [SOLVED.format(solution=solution, check=indent(check, "    ")) for check, solution in zip(checks, solutions, strict=True)]
    return [nbformat.v4.new_code_cell(source, metadata={"tags": ["nbval-ignore-output"]}, execution_count=900 + k) for k, source in enumerate(sources)]


def test_gives_the_same_output_twice_and_can_be_solved(executed):
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells += solved(notebook.cells)
    nbformat.write(notebook, again := executed.with_name(f"{executed.stem}_solved.ipynb"))
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZE)]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, str(again)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
