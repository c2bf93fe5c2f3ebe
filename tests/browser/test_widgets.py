"""Every widget of the notebooks, touched in JupyterLab by mouse and by keyboard."""

import pytest

from tests.browser import lab as harness
from tests.browser.widgets import WIDGETS

pytestmark = pytest.mark.browser

TRIAL = ["import ipywidgets, matplotlib.pyplot as plt\nruns = globals().get('runs', 0) + 1\nassert runs == 1, 'run twice'", """
def show(height, grid):
    plt.plot([0, height])
    plt.grid(grid)
    plt.show()
    print("height", height)

_ = ipywidgets.interact(show, height=ipywidgets.IntSlider(3, 0, 10, continuous_update=False), grid=False)
useless, broken = ipywidgets.Button(description="useless"), ipywidgets.Button(description="broken")
broken.on_click(lambda _: 1 / 0)
display(useless, broken, ipywidgets.IntSlider(description="closed", disabled=True), ipywidgets.Dropdown(description="which", options=["a", "b"]))
"""]


def test_the_harness_sees_what_a_user_sees(lab, monkeypatch, tmp_path):
    with lab.notebook(TRIAL) as notebook:
        notebook.run_all()
        slider, box = notebook.widget("height"), notebook.widget("grid")
        assert [notebook.widget(label).value for label in ("height", "broken", "closed", "which")] == ["3", "broken", "0", "a"]
        assert [notebook.widget(label).disabled for label in ("height", "grid", "broken", "closed")] == [False, False, False, True]
        with notebook.redraws():
            box.click()
        with notebook.redraws():
            box.press("Space")
        assert not box.ticked
        with notebook.redraws():
            slider.slide(1.0)
        assert slider.value == "10" and "height 10" in notebook.text()
        notebook.screenshot(tmp_path / "seen.png")
        assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG") and notebook.figure().startswith(b"\x89PNG")

        monkeypatch.setattr(harness, "PATIENCE", 0.5)
        with pytest.raises(AssertionError, match="the figure is the same after 0 s"), notebook.redraws():
            notebook.widget("useless").click()
        monkeypatch.undo()
        with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"), notebook.redraws():
            notebook.widget("broken").click()
        with pytest.raises(AssertionError, match="AssertionError: run twice"):
            notebook.run_all()


@pytest.mark.parametrize("name", WIDGETS)
def test_sliders_and_menus_redraw(lab, name):
    entry = WIDGETS[name]
    with lab.notebook(entry.cells) as notebook:
        notebook.run_all()
        for key in entry.twin:
            with notebook.redraws():
                notebook.widget(entry.sliders[0]).press(key)
        assert notebook.figure() == notebook.figure(cell=-2), "the widget and its static twin differ"
        for label in entry.sliders:
            moves(notebook, notebook.widget(label))
        for label in entry.boxes:
            before, box = notebook.figure(), notebook.widget(label)
            for touch in (box.click, lambda box=box: box.press("Space")):
                with notebook.redraws():
                    touch()
            assert notebook.figure() == before, f"{label}: ticked and unticked, another figure than before"
        for label in entry.menus:
            chosen = notebook.widget(label).control
            with notebook.redraws():
                chosen.select_option(index=(chosen.evaluate("menu => menu.selectedIndex") or chosen.locator("option").count()) - 1)


def moves(notebook, slider):
    """Mouse and keys change value and figure; the figure depends on nothing but the value."""
    start, figures = int(slider.value), {}
    with notebook.redraws():
        slider.slide(0.5)
    middle = int(slider.value)
    assert middle != start
    for key, value in (("ArrowRight", middle + 1), ("ArrowLeft", middle), ("ArrowUp", middle + 1), ("ArrowDown", middle)):
        with notebook.redraws():
            slider.press(key)
        assert int(slider.value) == value, key
        assert figures.setdefault(value, notebook.figure()) == notebook.figure(), f"{value}: another figure than before"


def test_the_lora_lab_is_worked_by_mouse_and_keys(lab, tmp_path):
    with lab.notebook(WIDGETS["lora"].cells) as notebook:
        notebook.run_all()
        box, rank, strength, fit = (notebook.widget(label) for label in ("LoRA1", "LoRA1 rank", "strength", "fit"))
        assert box.ticked and not rank.disabled and notebook.widget("LoRA4").disabled
        assert "lora4 is made for the projected embedding of an aligned pair; this network reads the mean of the tokens" in notebook.text()
        for touch in (lambda: box.press("Space"), lambda: strength.press("ArrowRight")):
            with notebook.redraws():
                touch()
        assert rank.disabled and strength.value == "1.05" and "tick the box to choose one" in notebook.text()
        assert 'value, sigma = fits["spectrum"].predict(test, on=("lora2",), strength=1.05)' in notebook.text()
        assert notebook.page.get_by_role("img", name="spectrum model: LoRA2, strength 1.05. By [Fe/H]: all, 40 stars: sigma").count() == 1
        notebook.screenshot(tmp_path / "lora_lab.png")
        with notebook.redraws():
            fit.control.select_option("aligned")
        assert box.disabled and "This fit was trained without LoRA1. Train it below." in notebook.text() and notebook.widget("LoRA3").ticked
        trains(notebook)


def trains(notebook):
    """Stopped, the old fit stays; else the new one is seen. Everything else can be used meanwhile."""
    start, stop, what, told = (*(notebook.widget(label) for label in ("Train here", "Stop", "train")), notebook.page.get_by_text)
    before, controls = notebook.figure(), (start, stop, what)
    assert [control.disabled for control in controls] == [False, True, False]
    what.control.select_option("LoRA1 + LoRA3 + LoRA4")
    start.click()
    told("The old fit still acts").wait_for()
    assert [control.disabled for control in controls] == [True, False, True]
    with notebook.redraws():
        notebook.widget("LoRA3").click()
    stop.click()
    told("Stopped. The old fit stays.").wait_for()
    with notebook.redraws():
        notebook.widget("LoRA3").press("Space")
    assert notebook.figure() == before
    what.control.select_option("LoRA4")
    with notebook.redraws():
        start.click()
    told("Done: this fit replaces").wait_for()
    notebook.wait()
    assert "trained without LoRA3" in notebook.text()
    assert 'fits["aligned"] = sk.adapt(fits["aligned"].model, train, label="feh", placement=("lora4",)' in notebook.text()
