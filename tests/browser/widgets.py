"""The widgets of the notebooks, each with the least that it needs before it: what the tests touch and the benchmark times."""

from dataclasses import dataclass
from functools import cached_property

import jupytext

from tools import notebooks


@dataclass(frozen=True)
class Entry:
    """The widget of a notebook. The cells are the notebook's own: those that hold ``pieces``, with ``setup`` after the first."""

    notebook: str
    sliders: tuple[str, ...]            # their labels
    setup: str
    twin: tuple[str, ...] = ()          # keys that bring the first slider where the static figure, in the last cell but one, was drawn
    pieces: tuple[str, ...] = ("sk.plots.use_style()", "def show(", "ipywidgets.interact(")

    @cached_property
    def cells(self) -> list[str]:
        code = [cell.source for cell in jupytext.read(notebooks.FOLDER / f"{self.notebook}.py").cells if cell.cell_type == "code"]
        first, *rest = [next(source for source in code if piece in source) for piece in self.pieces]
        return ['profile, device = "ci", "cpu"', first, self.setup, *rest]


GAPS = """
stars = sk.normalize(sk.simulate("lamost_lrs", n=32, seed=20, models="held_out"))
encoder, one, components = sk.load_model("small").encoder, stars.flux[:1], PrincipalComponents.fit(stars.flux, 10)


def chunks(n, n_chunks, seed):
    return SpectrumTransformer(replace(PRESETS["tiny"], n_chunks=n_chunks), seed=0).draw_chunks(n, torch.Generator().manual_seed(seed))
"""
NEIGHBOURS = """
n, row = 40, 3
pairs, model = sk.simulate_pairs(replace(LAMOST, population="gaia", snr=(50.0, 50.0)), n, seed=31), sk.load_model("small_aligned")
z = {"lrs": model.embed(pairs.lrs), "xp": model.embed(pairs.xp)}
true = {label: pairs.xp.label(label) for label in ("teff", "feh", "ebv")}
teff, ebv, found = true["teff"], true["ebv"], {"LRS finds XP": ranks(z["lrs"], z["xp"])}
"""

WIDGETS = {
    "gaps": Entry("02_masked_pretraining", ("gaps",), GAPS, twin=("End",)),
    "neighbours": Entry("03_contrastive_alignment", ("star", "neighbours"), NEIGHBOURS),
}
