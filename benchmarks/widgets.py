"""How long a reader waits for a widget: from the key that moves a slider to the new figure on the screen of JupyterLab in Chromium.

    python -m benchmarks.widgets [--names gaps] [--changes 30]

Widgets are those of tests/browser/widgets.py, the LoRA lab with larger models than there. A slider walks from its first value upwards (values never
seen: first visits, as many as it has), then to and fro over the same values (later visits). "screen" ends two frames after the new image is decoded,
so it is too long by up to one frame (17 ms), never too short. "Python" is the time the kernel is busy with the message that brought the change, by
its own clock; the browser, JupyterLab's server and what they send each other are the rest. On a busy machine nothing here means much: the load is
printed.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from tests.browser.lab import Notebook, Widget, running
from tests.browser.widgets import WIDGETS, lora_lab

# of the size that the notebook shows: with LoRA1 the encoder reads every star, without it nothing but a head is run
TIMED = WIDGETS | {"lora": lora_lab("small", 94, ("LoRA1 rank",)), "lora, head": lora_lab("small", 94, ("LoRA2 rank",), off=("lora1",))}

WATCH = """() => {
    const output = panel.content.widgets.at(-1).node.querySelector('.jp-Cell-outputArea');
    const before = output.querySelector('img').src;
    busy.length = 0;
    window.drawn = new Promise(done => {
        let start;
        output.addEventListener('keydown', event => { start = event.timeStamp; }, {capture: true, once: true});
        const observer = new MutationObserver(async () => {
            const image = output.querySelector('img');
            if (!image || image.src === before) return;
            observer.disconnect();
            await image.decode();
            requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
        });
        observer.observe(output, {subtree: true, childList: true, attributeFilter: ['src']});
    });
}"""


def change(notebook: Notebook, widget: Widget, key: str) -> tuple[float, float]:
    """Milliseconds from the key to the figure on the screen, and those of them in which the kernel was busy."""
    notebook.page.evaluate(WATCH)
    widget.press(key)
    screen = notebook.within("() => drawn", f"waiting for the figure after {key}")
    notebook.wait()
    messages = {}
    for message, date in notebook.page.evaluate("() => busy"):
        messages.setdefault(message, []).append(datetime.fromisoformat(date))
    # The others are short: the page tells the kernel what it has drawn.
    return screen, 1000 * max((dates[-1] - dates[0]).total_seconds() for dates in messages.values())


def walk(notebook: Notebook, widget: Widget, n: int) -> Iterator[tuple[str, np.ndarray]]:
    """First visits and later ones, each (n, 2): screen and Python, milliseconds."""
    widget.press("Home")
    notebook.wait()
    low, high = (int(widget.control.get_attribute(f"aria-value{end}").split(".")[0]) for end in ("min", "max"))
    steps = min(n, high - low)
    yield "first", np.array([change(notebook, widget, "ArrowRight") for _ in range(steps)])
    back_and_forth = cycle(["ArrowLeft"] * steps + ["ArrowRight"] * steps)
    yield "later", np.array([change(notebook, widget, key) for key in islice(back_and_forth, n)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=list(TIMED), choices=list(TIMED))
    parser.add_argument("--changes", type=int, default=30)
    a = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; milliseconds")
    print(f"{'widget':12s}{'slider':12s}{'visit':8s}{'n':>3s}{'screen median':>15s}{'95 %':>7s}{'Python median':>15s}{'95 %':>7s}")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as lab:
        for name in a.names:
            with lab.notebook(TIMED[name].cells) as notebook:
                notebook.run_all()
                for slider in TIMED[name].sliders:
                    for visit, times in walk(notebook, notebook.widget(slider), a.changes):
                        (screen, python), (screen_95, python_95) = np.quantile(times, (0.5, 0.95), axis=0)
                        print(f"{name:12s}{slider:12s}{visit:8s}{len(times):3d}{screen:15.0f}{screen_95:7.0f}{python:15.0f}{python_95:7.0f}", flush=True)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
