"""Run notebooks through papermill and tell what each cost and found.

    python -m tools.tour                                              the first notebook
    python -m tools.tour --all --device cuda --kernel NAME            all of them on another kernel
    python -m tools.tour 00_start_here --profile ci --output build/test

Executed notebooks and HTML go to ``--output``. Figures in the closing table come from code cells tagged ``key-figures``
that print lines ``name: value``.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbconvert import HTMLExporter
from tqdm import tqdm

from tools import notebooks
from tools.execution import execute


@dataclass(frozen=True)
class Run:
    """What one notebook cost and found."""

    name: str
    seconds: float
    peak_mb: float
    figures: list[str]
    failure: str = ""


def parameters_of(notebook: nbformat.NotebookNode) -> set[str]:
    """The names a notebook lets its reader set."""
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return {line.split("=")[0].split(":")[0].strip() for source in tagged for line in source.splitlines() if "=" in line and line[:1].isalpha()}


def key_figures(notebook: nbformat.NotebookNode) -> list[str]:
    """The lines ``name: value`` that cells tagged ``key-figures`` printed."""
    tagged = [cell for cell in notebook.cells if "key-figures" in cell.metadata.get("tags", [])]
    texts = [output.text for cell in tagged for output in cell.outputs if output.output_type == "stream" and output.name == "stdout"]
    return [line.strip() for text in texts for line in text.splitlines() if ": " in line]


def peak_mb() -> float:
    """Peak memory of the largest process among the finished children: the kernel, or one it started."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def tick() -> None:
    """Keep the clock of papermill's bar going during a long cell."""
    while True:
        time.sleep(5 if sys.stderr.isatty() else 30)
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.refresh()


def run(source: Path, output: Path, parameters: dict[str, str], kernel: str) -> Run:
    """Execute one notebook; call it in a process of its own, or the memory of earlier ones counts too."""
    threading.Thread(target=tick, daemon=True).start()
    executed, failure, start = output / f"{source.stem}.ipynb", "", time.perf_counter()
    executed.unlink(missing_ok=True)  # an earlier run's figures must not pass for this one's
    try:
        notebook = jupytext.read(source)
        if unknown := parameters.keys() - parameters_of(notebook):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}: assign it in the cell tagged `parameters` of {source.name}")
        execute(notebook, executed, source.parent, kernel, parameters)
    except Exception as error:  # one broken notebook must not hide what the others did
        failure = f"{type(error).__name__}: {str(error).strip()}"
    seconds, figures = time.perf_counter() - start, []
    if executed.exists():
        result = nbformat.read(executed, as_version=4)
        figures = key_figures(result)
        executed.with_suffix(".html").write_text(HTMLExporter().from_notebook_node(result)[0], encoding="utf-8")
    return Run(source.stem, seconds, peak_mb(), figures, failure)


def table(runs: list[Run]) -> str:
    """The closing table, a line a figure."""
    width = max(len("notebook"), *(len(one.name) for one in runs))
    lines = [f"{'notebook':{width}}  {'seconds':>7}  {'peak MB':>7}  key figures"]
    for one in runs:
        told = (["FAILED " + one.failure.splitlines()[-1]] if one.failure else []) + one.figures or ["-"]
        lines.append(f"{one.name:{width}}  {one.seconds:7.1f}  {one.peak_mb:7.0f}  {told[0]}")
        lines += [" " * (width + 20) + line for line in told[1:]]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run notebooks and tell what each cost and found.")
    parser.add_argument("names", nargs="*", help="notebooks, without suffix; the first one when none is named")
    parser.add_argument("--all", action="store_true", help="every notebook")
    parser.add_argument("--profile", default="full", help="how much is computed: full or ci")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--kernel", default="python3", help="a kernel that `jupyter kernelspec list` shows")
    parser.add_argument("--output", type=Path, default=Path("build/tour"))
    arguments = parser.parse_args()
    os.environ.setdefault("SPECTRAKIT_OFFLINE", "1")  # kernels inherit it: the tour downloads nothing

    kernels = KernelSpecManager().find_kernel_specs()
    if arguments.kernel not in kernels:
        raise SystemExit(f"No kernel named {arguments.kernel!r}: expected one of {', '.join(sorted(kernels))}. `jupyter kernelspec list` shows them.")
    chosen = notebooks.sources() if arguments.all else notebooks.named(arguments.names) or notebooks.sources()[:1]
    if not chosen:
        raise SystemExit(f"No notebook to run: expected NN_name.py in {notebooks.FOLDER.name}/.")

    arguments.output.mkdir(parents=True, exist_ok=True)
    parameters, runs = {"profile": arguments.profile, "device": arguments.device}, []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for source in chosen:
            print(f"\n{source.stem} ({arguments.profile} profile, {arguments.device}, kernel {arguments.kernel})", flush=True)
            runs.append(pool.submit(run, source, arguments.output, parameters, arguments.kernel).result())
            if runs[-1].failure:
                print(runs[-1].failure, file=sys.stderr)
    print(f"\n{table(runs)}\n\nexecuted notebooks and HTML: {arguments.output}/")
    if any(one.failure for one in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
