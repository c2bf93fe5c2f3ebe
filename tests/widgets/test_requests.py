"""The figure behind the widget of notebook 09: what is ticked is told, what is wanted is not, and the code gives the same numbers."""

from dataclasses import replace

import numpy as np
import pytest

from spectrakit import gaia_xp
from spectrakit.errors import LabelError
from spectrakit.library import load_library
from spectrakit.models.star_transformer import BP, COLOURS, IDENTITY, PRESETS, RP, STAR_LABELS, StarCard, StarTransformer
from spectrakit.pretraining.stars import simulate_stars
from spectrakit.stars.sequences import COEFFICIENTS
from spectrakit.widgets.requests import TICKS, WANTED, ask, request_figure


class Listener:
    """Remembers what it is told; answers 7 ± 2."""

    def __init__(self):
        self.told = []

    def request(self, known, wanted):
        self.told.append(dict(known))
        return {name: (np.full(1, 7.0), np.full(1, 2.0)) for name in wanted}


@pytest.fixture(scope="module")
def table():
    """Stars that lack nothing."""
    found = simulate_stars(40, seed=8)
    return replace(found, value=np.where(np.isfinite(found.value), found.value, found.truth), relevant=np.ones(found.relevant.shape, bool))


@pytest.mark.parametrize(("ticked", "wanted", "told"), [
    (("BP",), "teff", BP[:52]), (("BP", "RP"), "teff", (*BP[:25], *RP[:25])), (("colours", "logg"), "j_h", ("bp_rp", "j_k", "logg")),
    (("teff", "logg"), "teff", ("logg",)), (TICKS, "teff", (*BP[:25], *RP[:25], *COLOURS, *STAR_LABELS[1:]))])
def test_what_is_ticked_is_told_but_for_what_is_wanted(table, ticked, wanted, told):
    listener = Listener()
    found = ask(listener, table, 3, ticked, wanted)
    assert tuple(listener.told[0]) == tuple(told) and found.told == len(told) <= 64
    assert (found.value, found.sigma, found.truth) == (7, 2, table.column(wanted, "truth")[3])
    assert all(listener.told[0][name][0] == table.column(name)[3] for name in told)


def test_code_gives_the_same_numbers(table):
    model = StarTransformer(StarCard(PRESETS["tiny"], load_library("xp").sha256, 3.1, {}, {"n_stars": 1}), seed=1)
    for ticked, wanted in ((("RP", "teff"), "logg"), (("colours", "BP", "ln_ebv"), "j_k"), (("m_h",), "bp_rp")):
        found, names = ask(model, table, 5, ticked, wanted), {"model": model, "table": table, "BP": BP, "RP": RP, "COLOURS": COLOURS}
        exec(found.code, names)
        assert (names["value"][0], names["sigma"][0]) == pytest.approx((found.value, found.sigma), rel=1e-6)


def test_known_coefficients_are_drawn_as_they_are(table):
    found = ask(Listener(), table, 2, ("BP",), "teff")
    coeff = np.full(110, 7.0)
    coeff[:52] = table.value[2, :52]
    scale = gaia_xp.g_flux(np.array([15.0]))[0]
    design = gaia_xp.load_design().flux
    assert found.flux == pytest.approx(scale * design @ coeff, rel=1e-9)
    assert found.observed == pytest.approx(scale * design @ table.value[2, :110], rel=1e-9)
    assert found.flux_sigma == pytest.approx(scale * 2 * np.sqrt((design[:, 52:] ** 2).sum(1)), rel=1e-9)


def test_the_figure_is_the_same_each_time_and_says_what_it_shows(table):
    first, second = (request_figure(Listener(), table, 4, ("teff",), "logg") for _ in range(2))
    for figure in (first, second):
        figure.canvas.draw()
    assert np.array_equal(np.asarray(first.canvas.buffer_rgba()), np.asarray(second.canvas.buffer_rgba()))
    left, right = first.axes
    assert left.get_title() == "Star 4; 1 observable told" and right.get_title().startswith("log g = 7.00 ± 2.00, truth") and "[nm]" in left.get_xlabel()


def test_every_observable_of_the_menu_can_be_drawn(table):
    for wanted in WANTED:
        assert request_figure(Listener(), table, 1, ("BP",), wanted).axes[1].get_xlabel()


def test_questions_without_an_answer_say_why(table):
    with pytest.raises(LabelError, match="Of star 3 nothing is known: teff is ticked, Teff is wanted. Tick something else."):
        ask(Listener(), table, 3, ("teff",), "teff")
    with pytest.raises(LabelError, match="'Teff' cannot be ticked; there are: BP, RP, colours, teff"):
        ask(Listener(), table, 3, ("Teff",), "logg")
    gaps = replace(table, value=np.where(np.arange(table.value.shape[1]) == IDENTITY["teff"] - 1, np.nan, table.value))
    assert ask(Listener(), gaps, 3, ("teff", "logg"), "m_h").told == 1
    assert len(COEFFICIENTS) == 110
