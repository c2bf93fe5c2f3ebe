"""What docs/ and the README refer to is there: links, tests, error messages, headers of notebooks; and the code of docs/extending.md runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import course, notebooks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)$", re.M)
HOLE = "\0"                                                                     # what an f-string fills in


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link, as GitHub and the site do it."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", prose(page), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = prose(page)
    for link in (a or b for a, b in LINK.findall(text) if not (a or b).startswith(("http:", "https:"))):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        made = target.with_suffix(".py") if target.suffix == ".ipynb" else target   # an executed copy can be made from its source
        assert made.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
    used, defined = set(re.findall(r"\[(\d\d)\](?![:(])", text)), set(re.findall(r"^\[(\d\d)\]: ", text, re.M))
    assert used == defined


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page):
    for path, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
        assert not name or re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), f"{path}::{name}"


def messages() -> str:
    """Every text in the code that may reach a reader, one a line; what it fills in is a hole."""
    files = [path for folder in ("spectrakit", "tools", "tests") for path in (ROOT / folder).rglob("*.py") if path.name != Path(__file__).name]
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def entries() -> list[str]:
    """The entries of the troubleshooting page."""
    return re.findall(r"^\*\*.+?(?=\n\n|\Z)", prose(ROOT / "docs/troubleshooting.md"), re.S | re.M)


def test_every_trouble_is_shown_somewhere():
    assert len(entries()) > 30
    for entry in entries():
        assert re.search(r"^Shown (by `tests/[\w/]+\.py::\w+`|in `notebooks/\w+\.py`, \".+\")\.$", entry, re.M), entry
        for name, words in re.findall(r"^Shown in `(notebooks/\w+\.py)`, \"(.+)\"\.$", entry, re.M):
            assert words in " ".join((ROOT / name).read_text(encoding="utf-8").replace("\n# ", " ").split()), f"{name}: {words}"


def test_messages_are_quoted_as_they_are():
    known, quoted = messages(), [quote for entry in entries() for quote in re.findall(r"\"(.+?)\"", entry.partition("\n")[0].split("**")[1])]
    assert len(quoted) > 25
    for quote in quoted:
        pattern = rf"[^\n]*{HOLE}[^\n]*".join(re.escape(part.strip()) for part in quote.split("..."))
        assert re.search(pattern, known), f"no message of the kit reads {quote!r}"


def test_the_lecturers_guide_has_the_minutes_of_the_headers():
    text = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.+?\]\(\.\./notebooks/(\w+)\.ipynb\) \| ([^|]+) \| ([^|]+) \|", text, re.M)
    assert [name for name, *_ in rows] == [source.stem for source in notebooks.sources()]
    for name, read, run in rows:
        if budget := course.budget(course.cells_of(notebooks.FOLDER / f"{name}.py")):
            assert (read, run) == (str(budget.read), str(budget.run)), f"{name}: its header says {budget}"
    to_read = {name[:2]: int(read) for name, read, _ in rows}
    days = re.findall(r"^\| \d \| ([^|]+) \| (?:\d+ to )?(\d+) \|", text, re.M)
    assert [int(minutes) for _, minutes in days] == [sum(to_read[number] for number in re.findall(r"\d\d", names)) for names, _ in days] and len(days) == 5


def test_the_glossary_links_every_notebook():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    assert [source.stem for source in notebooks.sources() if f"notebooks/{source.stem}.ipynb" not in text] == []
    terms = re.findall(r"^- \*\*(.+?)\.\*\* ", text, re.M)
    assert len(terms) >= 40 and len(set(terms)) == len(terms) == len(re.findall(r"^- ", text, re.M))


def test_the_site_shows_every_page():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [page.stem for page in PAGES[1:] if page.stem not in ("index", *index.split())] == []


def test_a_binder_gets_what_make_env_installs_without_the_tools_of_development():
    target = re.search(r'pip install -c constraints.txt -e "\.\[(.+)\]"', (ROOT / "Makefile").read_text())[1].split(",")
    script = (ROOT / "binder/postBuild").read_text()
    assert f'-c binder/constraints.txt -e ".[{",".join(extra for extra in target if extra != "dev")}]"' in script
    assert "grep -v '^torch==' constraints.txt > binder/constraints.txt" in script and "pytorch-cpu" in (ROOT / "binder/environment.yml").read_text()
    assert (ROOT / "binder/postBuild").stat().st_mode & 0o100


def test_the_code_about_extending_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 6
    (tmp_path / "extending.py").write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, "extending.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "encoder.blocks.0.attention.kv" in done.stdout and "03_contrastive_alignment" in done.stdout
