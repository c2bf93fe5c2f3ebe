"""The line list against the refraction of air, the Rydberg formula and molecular constants."""

import matplotlib
import numpy as np
import pytest
from astropy import units as u
from specutils.utils.wcs_utils import refraction_index

from spectrakit.errors import SpectrumError
from spectrakit.lines import load_lines, name_lines, share_near

matplotlib.use("agg")
import matplotlib.pyplot as plt

LINES = load_lines()
ELEMENTS = {"H", "Li", "Na", "Mg", "Al", "Si", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Ni", "Sr", "Ba"}
MOLECULES = {"CH", "CN", "CO", "C2", "MgH", "OH", "TiO"}


def test_sorted_named_once_and_told_about():
    assert 60 <= len(LINES) <= 100 and len(set(LINES["name"])) == len(LINES)
    assert (np.diff(LINES["wave"]) > 0).all() and (np.diff(LINES["wave_air"]) > 0).all()
    assert all(text.strip() for column in ("tells", "origin") for text in LINES[column])
    inside = ((LINES["wave_air"] > 3900) & (LINES["wave_air"] < 6900)) | ((LINES["wave_air"] > 15100) & (LINES["wave_air"] < 17000))
    assert inside.all() and LINES["wave"].unit == u.AA


def test_species_are_atoms_with_a_stage_or_known_molecules():
    for species in LINES["species"]:
        atom, _, stage = species.partition(" ")
        assert (atom in ELEMENTS and stage in ("I", "II")) or species in MOLECULES, species


@pytest.mark.parametrize(("formula", "tolerance"), [("Ciddor1996", 0.0101), ("Morton2000", 0.015), ("Edlen1966", 0.015)])
def test_air_times_refractive_index_is_vacuum(formula, tolerance):
    """Ciddor is the one the table uses, to its two digits; the other two are independent formulae."""
    vacuum = LINES["wave"].quantity
    assert np.abs(LINES["wave_air"] * refraction_index(vacuum, method=formula) - LINES["wave"]).max() < tolerance


@pytest.mark.parametrize(("prefix", "low", "ups"), [("H", 2, dict(zip("αβγδε", range(3, 8), strict=True))), ("Br", 4, {str(n): n for n in range(11, 17)})])
def test_hydrogen_lines_obey_rydberg(prefix, low, ups):
    """Relativity moves the lines by 0.09 A (H alpha) and less from the formula."""
    for name, up in ups.items():
        vacuum = 1e8 / (109677.5834 * (1 / low**2 - 1 / up**2))
        assert LINES["wave"][LINES["name"] == f"{prefix}{name}"][0] == pytest.approx(vacuum, abs=0.1)


def test_heads_of_co_follow_from_molecular_constants():
    """12C16O, ground state: Huber & Herzberg 1979; the head is the highest frequency of the R branch."""
    def term(v, j):
        h, jj = v + 0.5, j * (j + 1)
        return (2169.81358 * h - 13.28831 * h**2 + 0.010511 * h**3 + (1.93128087 - 0.01750441 * h + 5.487e-7 * h**2) * jj
                - (6.12147e-6 + 1.153e-9 * h) * jj**2)
    j = np.arange(120)
    for v in range(6):
        head = 1e8 / (term(v + 3, j + 1) - term(v, j)).max()
        assert LINES["wave"][LINES["name"] == f"CO {v + 3}-{v}"][0] == pytest.approx(head, abs=1.5)


def test_a_range_is_cut_out():
    some = load_lines(5160, 5190)
    assert [name for name in some["name"]] == ["C2 5165", "TiO 5167", "Mg b4", "Fe II 5169", "Mg b2", "Mg b1"]


def test_share_near_counts_weights_and_pixels():
    wave = np.arange(5000.0, 5100.0)
    weights = np.where(wave == 5050, 3.0, 0.0) + np.where(wave == 5080, 1.0, 0.0)
    assert share_near(weights, wave, [5050.0], 2) == (0.75, 0.05)
    with pytest.raises(SpectrumError, match="run from 0 to 0; expected 0 or more, some of them more"):
        share_near(0 * weights, wave, [5050.0], 2)


def test_names_are_drawn_inside_the_axes_alone_and_do_not_overlap():
    fig, ax = plt.subplots(figsize=(10, 3))
    ax.set_xlim(4000, 5600)
    name_lines(ax, LINES)
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    plt.close(fig)
    assert 30 < len(boxes) and all(4000 < text.xy[0] < 5600 for text in ax.texts)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
