"""The site of `make site`: docs/ and the executed notebooks as web pages. Nothing is executed, and a page needs nothing from outside."""

import json
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "spectrakit"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/[0-9][0-9]_*.ipynb"]
exclude_patterns = [".*", "build", "spectrakit*", "tests", "tools", "benchmarks"]
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]
html_theme = "furo"
html_title = "spectrakit"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_math_renderer = "mathml"
html_static_path = ["site.css"]
html_css_files = ["site.css"]

WIDGET = "application/vnd.jupyter.widget-view+json"
DEAD = "*Controls stand here where a kernel is running. The figure above is the same without them.*"


def words(text: str) -> str:
    """The takeaway in a text as words for those who do not see the figure before it; where there is none, that a figure is there."""
    takeaway = re.sub(r"[*`$\\]|\[([^]]*)\]\([^)]*\)", r"\1", text.partition("**Takeaway.**")[2].strip().split("\n\n")[0])
    return f"Figure. {' '.join('. '.join(takeaway.split('. ')[:2]).split())}" if takeaway else "Figure; the text around it says what it shows."


def prepare(app, docname: str, source: list[str]) -> None:
    """Give each figure its words, those of its output if there are any, and put a remark where a widget cannot work."""
    if not docname.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    notebook["metadata"].pop("widgets", None)
    told = words("")
    for cell in reversed(notebook["cells"]):
        told = words("".join(cell["source"])) if cell["cell_type"] == "markdown" else told
        outputs = cell.get("outputs", [])
        said = [output["metadata"].get("image/png", {}).get("alt") or told for output in outputs if "image/png" in output.get("data", {})]
        if said:
            cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(dict.fromkeys(said))}}
        for output in outputs:
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/markdown": DEAD}
    source[0] = json.dumps(notebook)


def mathml(block: bool):
    """A visitor that writes a formula as MathML, which browsers read by themselves, and read out."""
    def visit(writer, node) -> None:
        formula = re.sub(r"\{\\rm ([^{}]*)\}", r"{\\mathrm{\1}}", node.astext())     # the only old-style command that docutils does not know
        written = tex2mathml(formula, as_block=block)
        writer.body.append(f'<div class="math">{written}</div>' if block else written)
        raise nodes.SkipNode
    return visit


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("source-read", prepare)
    app.add_html_math_renderer("mathml", (mathml(False), None), (mathml(True), None))
