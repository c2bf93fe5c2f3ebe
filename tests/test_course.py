"""The course's checks find each thing that a notebook lacks, and nothing in one that has all; and the notebooks lack nothing."""

import pytest

from tools import course, notebooks
from tools.course import Cell

HEADER = """# 00 A trial

| | |
|---|---|
| **Question** | Does it work? |
| **You will** | look; count; compare |
| **You need** | nothing |
| **Time** | 5 minutes to read, about 1 minute to run on 2 cores, about 0.5 GB of memory |
| **Data** | simulated |"""
BY_HAND = """def mean_by_hand(x):
    return sum(x) / len(x)


assert np.allclose(mean_by_hand(x), np.mean(x))"""
FIGURE = 'fig, ax = plt.subplots()\nax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", title="A line")\nassert depth > 0'
CHECKS = """def check_sum(function):
    told({number}, function(x), (), ((lambda y: y < 0, "The sign."),))


def total(x):
    return None


check_sum(total)"""
SOLUTION = "<details><summary>Exercise {number}</summary>\n\n```python\ndef total(x):\n    return x.sum()\n```\n\n</details>"
CLOSING = """## What was shown, and what not

* It works. *Not* shown: why.

**Common misreadings.** "It works, so it is right."

**Next.** The same again.

**References.** LoRA: Hu et al. 2021, arXiv:2106.09685."""


def good() -> list[Cell]:
    """A notebook that lacks nothing."""
    exercises = [cell for number in range(1, 5)
                 for cell in (Cell("markdown", f"**Exercise {number}** (easy, 5 minutes). Add."), Cell("code", CHECKS.format(number=number)))]
    solutions = "## Solutions\n\n" + "\n\n".join(SOLUTION.format(number=number) for number in range(1, 5))
    return [Cell("markdown", HEADER), Cell("code", "x = np.arange(3)"), Cell("markdown", "## 1. A mean"), Cell("code", BY_HAND),
            Cell("markdown", "**Predict first.** How deep? The control is noise."), Cell("code", FIGURE), Cell("markdown", "**Takeaway.** Deep."),
            Cell("code", "def show(n=1):\n    plt.plot([n])\n\n\nshow(2)"), Cell("markdown", "As code: `show(2)`. With a slider:"),
            Cell("code", "_ = ipywidgets.interact(show, n=(1, 3))"), *exercises, Cell("markdown", CLOSING), Cell("markdown", solutions, ("solutions",))]


def change(old: str, new: str, cells: list[Cell] | None = None) -> list[Cell]:
    """The good notebook, or another, with a text replaced, which has to be there."""
    cells = cells or good()
    assert any(old in cell.source for cell in cells)
    return [Cell(cell.kind, cell.source.replace(old, new), cell.tags) for cell in cells]


def test_a_notebook_that_has_all_is_told_nothing():
    assert course.missing(good()) == {name: [] for name in course.REQUIREMENTS}
    assert course.budget(good()) == course.Budget(5, 1, 0.5)


@pytest.mark.parametrize(("cells", "requirement", "fault"), [
    (change("| **Data** | simulated |", ""), "header", "no row 'Data'"),
    (change("look; count; compare", "look; count"), "header", "2 goals"),
    (change("look; count; compare", "a; b; c; d; e; f"), "header", "6 goals"),
    (change("about 1 minute to run", "a moment to run"), "header", "no time like"),
    (good() + [Cell("markdown", "more")] * 50, "size", "70 cells, at most 60"),
    (good() + [Cell("code", "1")] * 3, "size", "11 of 23 cells are text"),
    (change("x = np.arange(3)", "x = 1\n" * 31), "size", "cell 1 has 31 lines"),
    (change("by_hand", "here"), "by hand", "no assertion that something called by_hand"),
    (change("np.allclose(mean_by_hand(x), np.mean(x))", "mean_by_hand(x) > 0"), "by hand", "no assertion that something called by_hand"),
    (change("**Predict first.**", "Guess."), "prediction", "no '**Predict first.**'"),
    (change("\nassert depth > 0", ""), "prediction", "no prediction is followed by an assertion"),
    (change("The control is noise.", "The control is noise.\n\n## 2. Another section"), "prediction", "no prediction is followed"),
    (change(" [Å]", "", change("flux / continuum", "flux")), "figure, control", "no figure with"),
    (change(', title="A line"', ""), "figure, control", "no figure with"),
    (change("**Takeaway.** Deep.", "Deep."), "figure, control", "no figure with"),
    (change("The control is noise.", ""), "figure, control", "no control"),
    (change("ipywidgets.interact(show, n=(1, 3))", "1"), "widget", "no widget"),
    (change("\n\n\nshow(2)", ""), "widget", "no static twin: call show(...)"),
    (change("As code: `show(2)`. ", ""), "widget", "no line of code"),
    (change("As code: `show(2)`. ", "See `shower(2)`. "), "widget", "no line of code"),
    (change("**Exercise 4** (easy, 5 minutes).", "Add, too."), "exercises", "3 exercises"),
    (change("**Exercise 4** (easy, 5 minutes).", "**Exercise 4** (easy)."), "exercises", "3 exercises"),
    (change("    return None", "    return 3"), "exercises", "exercise 1: no stub"),
    (change("told(", "print("), "exercises", "exercise 1: check_sum is not defined here with told"),
    (change("<summary>Exercise 3</summary>", "<summary>Three</summary>"), "exercises", "exercise 3: no <summary>Exercise 3</summary>"),
    ([Cell(cell.kind, cell.source) for cell in good()], "exercises", "exercise 1: no <summary>Exercise 1</summary>"),
    (change("*Not* shown", "Unknown"), "closing", "no what was not"),
    (change("**Common misreadings.**", ""), "closing", "no misreadings"),
    (change("**Next.**", ""), "closing", "no next steps"),
    (change("arXiv:2106.09685", "somewhere"), "closing", "no reference with arXiv number"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_missing_is_told_and_nothing_else(cells, requirement, fault):
    found = course.missing(cells)
    assert any(line.startswith(fault) for line in found.pop(requirement))
    assert not any(found.values())


def test_a_widget_of_the_package_has_its_figure_as_twin():
    lab = change("ipywidgets.interact(show, n=(1, 3))", "sk.widgets.LoraLab(fits, test)")
    assert course.missing(lab)["widget"] == ["no static twin: a figure of sk.widgets before the widget"]
    assert course.missing(change("show(2)", "_ = sk.widgets.lora_figure(fit, test)", lab))["widget"] == []


def test_the_table_names_what_is_missing():
    told = course.table({"00_good": course.missing(good()), "01_bad": course.missing(change("**Next.**", ""))}).splitlines()
    assert told[0].split() == "notebook header size by hand prediction figure, control widget exercises closing".split()
    assert told[1].split() == ["00_good"] + 8 * ["met"] and told[2].split() == ["01_bad"] + 7 * ["met"] + ["-"]
    assert told[3:] == ["", "01_bad, closing: no next steps (**Next.**)"]


def test_sources_are_read_with_their_tags(tmp_path):
    (tmp_path / "00_x.py").write_text('# %% [markdown] tags=["solutions"]\n# ## Solutions\n\n# %%\nx = 1\n')
    assert course.cells_of(tmp_path / "00_x.py") == [Cell("markdown", "## Solutions", ("solutions",)), Cell("code", "x = 1")]


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_every_notebook_has_it_all(source):
    assert not {name: faults for name, faults in course.missing(course.cells_of(source)).items() if faults}
