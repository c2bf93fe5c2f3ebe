"""Every notebook runs in the short profile, and running it again gives the same output."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import notebooks

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
    return OUTPUT / f"{request.param.stem}.ipynb"


def test_runs_and_names_its_key_figures(executed):
    cells = nbformat.read(executed, as_version=4).cells
    # nbval compares nothing, and is content, where a cell has not been executed.
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip())
    assert any("key-figures" in cell.metadata.get("tags", []) and cell.outputs for cell in cells), "no cell tagged key-figures printed `name: value`"


def test_gives_the_same_output_twice(executed):
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZE)]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, str(executed)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
