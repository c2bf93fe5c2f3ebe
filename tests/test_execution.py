"""Widgets while a notebook is run: nothing goes back to the kernel, so nothing can be slept through."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tools.execution import execute

CELLS = ["""import ipywidgets

def show(n):
    print("shown", n)

_ = ipywidgets.interact(show, n=(0, 4))""", "out = ipywidgets.Output()\nfor i in range(200):\n    with out:\n        print(i)", "print('done')"]


def test_output_of_widgets_lies_in_the_cells(tmp_path):
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS], metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    execute(notebook, tmp_path / "out.ipynb", tmp_path)
    first, second, third = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert any(output.get("text") == "shown 2\n" for output in first.outputs)
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in first.outputs)
    assert "".join(output.text for output in second.outputs).split() == [str(i) for i in range(200)]
    assert "".join(output.text for output in third.outputs) == "done\n"  # a kernel may send one line in two messages
