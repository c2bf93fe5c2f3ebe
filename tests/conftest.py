"""What every test shares: where the real spectra are, and a guard over state that would leak from one test into the next."""

import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import spectrakit
from spectrakit.threads import one_thread

os.environ.setdefault("SPECTRAKIT_OFFLINE", "1")  # no test asks a public archive; those of fetching have a server of their own
THREADS = int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1)))  # small tensors: more threads than two only wait for each other
torch.set_num_threads(THREADS)
hypothesis.settings.register_profile("spectrakit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("spectrakit")


def data_folder() -> Path | None:
    """SPECTRAKIT_DATA, or None when it is not set."""
    return Path(os.environ["SPECTRAKIT_DATA"]) if os.environ.get("SPECTRAKIT_DATA") else None


def pytest_report_header() -> str:
    """Say which half of the tests can run: a green run without data proves less."""
    folder = data_folder()
    if folder is None:
        return "SPECTRAKIT_DATA: not set, tests on real spectra are skipped"
    return "SPECTRAKIT_DATA: " + ("set and found" if folder.is_dir() else "set, but NOT FOUND: tests on real spectra are skipped")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``requires_data("miles")`` where that file is not."""
    for marker in item.iter_markers("requires_data"):
        for name in marker.args:
            if (folder := data_folder()) is None or not (folder / "real" / f"{name}.npz").is_file():
                pytest.skip(f"needs real/{name}.npz under SPECTRAKIT_DATA")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole notebooks last: what a unit test can say should be said first."""
    items.sort(key=lambda item: item.get_closest_marker("notebook") is not None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Side by side: all tests of a notebook, or else of a file, stay with one process and share what it has set up."""
    from xdist.scheduler import LoadScopeScheduling
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda test: test.split("[")[-1] if test.startswith("tests/notebooks/") else test.split("::")[0]
    return scheduler


def global_state() -> dict[str, object]:
    """The process-wide switches that a test could leave turned."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "numpy's global random state": (kind, keys.tobytes(), position, has_gauss, gauss),
        "torch's global random state": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's thread count": torch.get_num_threads(),
    }


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    """Fail a test after which a global switch stands differently, and turn it back."""
    before, numpy_state, torch_state = global_state(), np.random.get_state(), torch.get_rng_state()
    yield
    changed = [name for name, value in global_state().items() if value != before[name]]
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
    torch.set_default_dtype(before["torch's default dtype"])
    torch.set_grad_enabled(before["torch's grad mode"])
    torch.set_num_threads(THREADS)
    if changed:
        pytest.fail(f"{', '.join(changed)} changed: draw from a generator of your own, and undo in a context what you switch")


@pytest.fixture
def single_thread():
    """For tests with small matrices, which only wait for other threads."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def off_scale():
    """``off_scale(n)``: simulated stars whose [Fe/H] is off by 0.4 dex, something that labels can teach."""
    def stars(n):
        spectra = spectrakit.normalize(spectrakit.simulate("miles", n=n, seed=5))
        labels = spectra.labels.copy()
        labels["feh"] = labels["feh"] + 0.4 * labels["feh"].unit
        return replace(spectra, labels=labels)
    return stars


def _launch(text: str, folder: Path) -> None:
    (script := folder / "script.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(spectrakit.__file__).parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    started = subprocess.Popen([*launcher, str(script), str(folder / "two")], env=environment, stderr=subprocess.PIPE, text=True)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]), one_thread():
        patch.setattr("spectrakit.pretraining.heads.STEPS", spectrakit.pretraining.heads.STEPS)         # a script may change it, the context puts it back
        patch.setattr(sys, "argv", ["script.py", str(folder / "one")])
        runpy.run_path(str(script))
    error = started.communicate(timeout=300)[1]
    assert started.returncode == 0, error[-2000:]


@pytest.fixture(scope="session")
def launch():
    """``launch(script, folder)``: the script by torchrun as two processes with ``folder/two`` as argument, and meanwhile here alone with ``folder/one``."""
    return _launch
