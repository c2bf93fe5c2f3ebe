"""Each notebook's source and its committed executed copy say the same."""

import jupytext
import nbformat
import pytest

from tools import notebooks, tour

SOURCE = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A title

# %% tags=["parameters"]
profile = "full"
device: str = "cpu"

# %% tags=["key-figures"]
print("answer: 42 dex")
"""


ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])


@pytest.fixture
def pair(tmp_path):
    """A source and a faithful copy that looks executed."""
    source = tmp_path / "00_trial.py"
    source.write_text(SOURCE)
    notebook = jupytext.read(source)
    for count, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = count + 1
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="answer: 42 dex\n")]
    nbformat.write(notebook, source.with_suffix(".ipynb"))
    return source, source.with_suffix(".ipynb")


def change(copy, edit):
    notebook = nbformat.read(copy, as_version=4)
    edit(notebook)
    nbformat.write(notebook, copy)


def test_committed_pairs_agree():
    assert notebooks.check() == []


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_notebook_can_be_toured(source):
    assert {"profile", "device"} <= tour.parameters_of(jupytext.read(source))


def test_faithful_pair_passes(pair):
    assert notebooks.check(pair[0].parent) == []


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda notebook: notebook.cells[1].update(source='profile = "ci"'), "cell 1: source differs"),
        (lambda notebook: notebook.cells[1].metadata.update(tags=[]), "cell 1: tags differs"),
        (lambda notebook: notebook.cells.__setitem__(0, nbformat.v4.new_raw_cell("# A title")), "cell 0: type differs"),
        (lambda notebook: notebook.cells.pop(), "cell 2: only in 00_trial.py"),
        (lambda notebook: notebook.cells.append(nbformat.v4.new_markdown_cell("more")), "cell 3: only in 00_trial.ipynb"),
        (lambda notebook: notebook.cells[2].update(execution_count=None), "cell 2: not executed"),
        (lambda notebook: notebook.cells[2].outputs.append(ERROR), "ends in ValueError"),
        (lambda notebook: notebook.cells[2].outputs[0].update(text="saved to /home/ada/x.npz"), "a path of one machine, '/home/ada'"),
        (lambda notebook: notebook.metadata.kernelspec.update(name="conda-env-mine"), "kernel 'conda-env-mine'"),
    ],
)
def test_tampered_pair_is_told(pair, edit, told):
    change(pair[1], edit)
    assert any(told in line for line in notebooks.check(pair[0].parent)), notebooks.check(pair[0].parent)


def test_half_a_pair_is_told(pair):
    source, copy = pair
    copy.rename(copy.with_name("01_other.ipynb"))
    assert [line.split(":")[0] for line in notebooks.check(source.parent)] == ["01_other.ipynb", "00_trial.py"]


def test_an_image_may_spell_anything(pair):
    image = nbformat.v4.new_output("display_data", data={"image/png": "abc/home/ada", "text/plain": "<Figure>"})
    change(pair[1], lambda notebook: notebook.cells[2].outputs.append(image))
    assert notebooks.check(pair[0].parent) == []


def test_tour_reads_parameters_and_key_figures(pair):
    notebook = nbformat.read(pair[1], as_version=4)
    assert tour.parameters_of(notebook) == {"profile", "device"}
    assert tour.key_figures(notebook) == ["answer: 42 dex"]


def test_table_says_which_notebook_failed():
    good = tour.Run("00_good", 1.25, 300.0, ["a: 1", "b: 2"])
    bad = tour.Run("01_bad", 2.0, 100.0, [], "CellError: x\nValueError: wrong grid")
    told = tour.table([good, bad])
    assert told.splitlines()[1:] == [
        "00_good       1.2      300  a: 1",
        " " * 28 + "b: 2",
        "01_bad        2.0      100  FAILED ValueError: wrong grid",
    ]
