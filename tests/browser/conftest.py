"""One JupyterLab and one browser for all widgets."""

import pytest

from tests.browser.lab import BROWSERS, Lab, browser, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Late: a widget only wires what the tests before have looked at."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="package")  # playwright holds the thread's event loop; tests elsewhere may want it
def lab(tmp_path_factory) -> Lab:
    """JupyterLab in the browser; the test is skipped where there is none."""
    pytest.importorskip("playwright", reason="needs playwright: pip install -e '.[dev]'")
    if browser() is None:
        pytest.skip(f"needs a browser: install one of {', '.join(BROWSERS)}")
    with running(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
