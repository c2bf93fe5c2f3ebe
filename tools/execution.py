"""Notebooks run by papermill, without sleeping through the kernel's answer.

nbclient sends what is shown inside an ``Output`` widget back to the kernel, on the very socket on which it waits for the reply to a cell. Sending can swallow the
news that the reply is there, and nbclient then waits for ever (github.com/jupyter/nbclient/issues/312). Here nothing is sent: such output stays in the cell, as any
other.
"""

from pathlib import Path

import nbformat
import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger


class OutputInCells(NBClientEngine):
    """papermill's own engine, whose client knows no ``Output`` widget."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=60, **_):
        client = PapermillNotebookClient(nb_man, startup_timeout=start_timeout, kernel_name=kernel_name, log=logger)
        client.widget_registry = {}
        return client.execute()


papermill_engines.register("cells", OutputInCells)


def execute(notebook: nbformat.NotebookNode, output: Path | None, folder: Path, kernel: str = "python3",
            parameters: dict[str, str] | None = None) -> nbformat.NotebookNode:
    """``papermill.execute_notebook`` in ``folder``, written to ``output`` if one is given."""
    return papermill.execute_notebook(notebook, output, parameters, engine_name="cells", kernel_name=kernel, cwd=folder)
