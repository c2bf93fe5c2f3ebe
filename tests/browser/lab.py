"""JupyterLab on this machine, driven by the Chromium installed here: what a test of a widget needs.

    with running(folder) as lab, lab.notebook(["import ipywidgets ...", "..."]) as notebook:
        notebook.run_all()
        with notebook.redraws():
            notebook.widget("gaps").press("ArrowRight")

The user's Jupyter settings are not read, what Jupyter and the browser write lies under ``folder``, and the browser reaches 127.0.0.1 only.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300.0  # seconds; a limit for a busy machine, nothing waits for it to pass
NEVER_ASK = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}

# Errors are collected from the kernel's messages: one raised in a widget's callback appears in no cell's output.
LISTEN = """async () => {
    window.panel = jupyterapp.shell.currentWidget;
    window.kernel = panel.sessionContext.session.kernel;
    Object.assign(window, {errors: [], busy: []});
    panel.sessionContext.iopubMessage.connect((_, m) => {
        if (m.header.msg_type === 'error') errors.push(m.content.traceback.join('\\n'));
        if (m.header.msg_type === 'status' && m.parent_header.msg_type === 'comm_msg') busy.push([m.parent_header.msg_id, m.header.date]);
    });
}"""
READY = "() => globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
# While the kernel is at work a widget keeps its last change back, and sends it when it hears that the kernel is idle: ask until nothing came between.
SETTLED = """async () => {
    for (let seen = -1; seen !== busy.length;) {
        seen = busy.length;
        await kernel.requestKernelInfo();
    }
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
}"""
BYTES = """image => fetch(image.src).then(answer => answer.blob()).then(blob => new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(',')[1]);
    reader.readAsDataURL(blob);
}))"""


def browser() -> str | None:
    """The path of an installed Chromium or Chrome, None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Widget:
    """One widget, found by the label beside or on it."""

    def __init__(self, notebook: "Notebook", label: str):
        page = notebook.page
        said = page.get_by_text(label, exact=True).and_(page.locator(":not(option)"))          # a menu may offer what another widget is labelled with
        labelled = page.locator(".widget-inline-hbox").filter(has=said)
        self.box = labelled.or_(page.get_by_role("button", name=label, exact=True))
        self.control = self.box.locator(".noUi-handle, input:not(.widget-readout), select").or_(self.box.and_(page.locator("button"))).first

    @property
    def value(self) -> str:
        """What is shown: a slider's read-out, an input's content, a button's text."""
        shown = self.box.locator(".widget-readout")
        return (shown if shown.count() else self.control).evaluate("e => e.value || e.innerText")

    @property
    def ticked(self) -> bool:
        """Whether the box is ticked."""
        return self.control.is_checked()

    @property
    def disabled(self) -> bool:
        """Whether the user is kept from it."""
        return self.control.evaluate("e => e.disabled || e.closest('[disabled]') !== null")

    def slide(self, fraction: float) -> None:
        """Drag the handle, by mouse, to a fraction of the way from the left end to the right one."""
        self.control.scroll_into_view_if_needed()
        handle, track = self.control.bounding_box(), self.box.locator(".noUi-base").bounding_box()
        middle, mouse = handle["y"] + handle["height"] / 2, self.control.page.mouse
        mouse.move(handle["x"] + handle["width"] / 2, middle)
        mouse.down()
        mouse.move(track["x"] + fraction * track["width"], middle, steps=4)
        mouse.up()

    def press(self, *keys: str) -> None:
        """Give it the focus and press keys, named as in the browser: ArrowRight, Space, Tab."""
        self.control.focus()
        for key in keys:
            self.control.page.keyboard.press(key)

    def click(self) -> None:
        """Click on it: a box is ticked or unticked, a button pressed."""
        self.control.click()


class Notebook:
    """One notebook in one page of the browser. ``page`` is playwright's."""

    def __init__(self, page):
        self.page = page

    def within(self, script: str, what: str) -> object:
        """The answer of an asynchronous script in the page; an error that says what it waited for after PATIENCE."""
        late = f"new Promise((_, no) => setTimeout(() => no(new Error('the kernel is ' + kernel.status)), {1000 * PATIENCE}))"
        try:
            return self.page.evaluate(f"() => Promise.race([({script})(), {late}])")
        except Exception as error:
            raise AssertionError(f"{what}: not within {PATIENCE:.0f} s, or not at all ({error})") from error

    def wait(self) -> None:
        """Wait until the kernel has nothing left to do and the page shows it; raise what went wrong, with its traceback."""
        self.within(SETTLED, "waiting for the kernel")
        if errors := self.errors():
            raise AssertionError("the notebook raised\n" + "\n".join(errors))

    def run_all(self) -> None:
        """Run all cells and wait."""
        self.within("() => jupyterapp.commands.execute('notebook:run-all-cells')", "running all cells")
        self.wait()

    def errors(self) -> list[str]:
        """Tracebacks since the notebook was opened, those of callbacks included."""
        return [re.sub(r"\x1b\[[0-9;]*m", "", error) for error in self.page.evaluate("() => errors")]

    def widget(self, label: str) -> Widget:
        """The widget labelled so."""
        return Widget(self, label)

    def output(self, cell: int = -1):
        """What a cell shows, as playwright's locator; negative numbers count from the last cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def text(self, cell: int = -1) -> str:
        """The text a cell shows, widgets' labels and read-outs included."""
        return self.output(cell).inner_text()

    def figure(self, number: int = 0, cell: int = -1) -> bytes:
        """A figure that a cell shows, as the bytes of its image file."""
        return base64.b64decode(self.output(cell).locator("img").nth(number).evaluate(BYTES))

    @contextmanager
    def redraws(self, number: int = 0) -> Iterator[None]:
        """What is done inside must end with another figure on the screen."""
        before, limit = self.figure(number), time.monotonic() + PATIENCE
        yield
        while self.figure(number) == before:
            if self.errors() or time.monotonic() > limit:
                self.wait()
                raise AssertionError(f"the figure is the same after {PATIENCE:.0f} s")
            self.page.wait_for_timeout(50)
        self.wait()

    def screenshot(self, path: Path) -> None:
        """The window, scrolled to the last cell's output, as PNG."""
        self.output().scroll_into_view_if_needed()
        self.page.screenshot(path=path)


class Lab:
    """A running JupyterLab and a browser for it; from ``running``."""

    def __init__(self, context, folder: Path, server: dict):
        self.context, self.folder, self.server = context, folder, server

    @contextmanager
    def notebook(self, cells: list[str]) -> Iterator[Notebook]:
        """Open a notebook of these code cells, its kernel idle; close the page and end the kernel after."""
        name = f"notebook{len(list((self.folder / 'root').iterdir()))}"
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(content, self.folder / "root" / f"{name}.ipynb")
        page = self.context.new_page()
        try:
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"{self.server['url']}doc/workspaces/{name}/tree/{name}.ipynb?token={self.server['token']}")
            page.wait_for_function(READY)
            page.evaluate(LISTEN)
            yield Notebook(page)
            page.evaluate("() => panel.sessionContext.shutdown()")
        finally:
            page.close()


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with every folder that Jupyter or the browser would write to under ``folder``."""
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    for name, settings in NEVER_ASK.items():
        (file := folder / "JUPYTERLAB_SETTINGS_DIR" / f"{name}.jupyterlab-settings").parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    return {**os.environ, **{name: str(folder / name) for name in places}, "JUPYTER_TOKEN": os.urandom(16).hex(), "JUPYTER_PREFER_ENV_PATH": "1"}


@contextmanager
def server(folder: Path) -> Iterator[dict]:
    """JupyterLab on a free port; what it writes about itself (url, token, ...)."""
    (folder / "root").mkdir()
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder / 'root'}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
               # if this process is killed: ten minutes without a browser end the kernels, ten without a kernel the server
               "--MappingKernelManager.cull_idle_timeout=600", "--ServerApp.shutdown_no_activity_timeout=600"]
    with open(folder / "lab.log", "w") as log:
        # A session of its own: Ctrl-C is for pytest, which then ends the server.
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=environment(folder), stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, start_new_session=True)
        try:
            limit, described = time.monotonic() + PATIENCE, folder / "JUPYTER_RUNTIME_DIR" / f"jpserver-{process.pid}.json"
            while not (described.exists() and described.read_text().endswith("}")):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"JupyterLab did not start:\n{(folder / 'lab.log').read_text()}")
                time.sleep(0.05)
            yield json.loads(described.read_text())
        finally:
            process.send_signal(signal.SIGTERM)  # it ends its kernels first
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running(folder: Path) -> Iterator[Lab]:
    """JupyterLab and a browser, both ended on leaving. ``folder`` is empty and takes everything they write."""
    from playwright.sync_api import sync_playwright

    with server(folder) as described, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            folder / "profile", executable_path=browser(), chromium_sandbox=os.geteuid() != 0, viewport={"width": 1280, "height": 900},
            timeout=1000 * PATIENCE, args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"], env={**os.environ, "HOME": str(folder)},
        )
        with context:
            yield Lab(context, folder, described)
