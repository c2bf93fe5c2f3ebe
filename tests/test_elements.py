"""Responses of the flux to single elements: every named line where its element is, and the sums that the library's labels stand for."""

import numpy as np
import pytest
import torch

from spectrakit.elements import load_elements
from spectrakit.errors import DataFileError, LabelError
from spectrakit.library import LABELS, load_library
from spectrakit.lines import load_lines

MAKERS = {"CH": {"C"}, "CN": {"C", "N"}, "CO": {"C", "O"}, "OH": {"O"}, "MgH": {"Mg"}, "C2": {"C"}}
HALF_WIDTH = {"optical": 0.8, "hband": 0.5}                # Angstrom; one resolution element
ALPHA = ("O", "Mg", "Si", "Ca", "Ti")                      # those of [alpha/Fe] that were varied


def named(name):
    """Lines with one of the twelve elements in them: where, and whose."""
    elements = load_elements(name)
    makers = [(line["wave"], MAKERS.get(line["species"], {line["species"].split()[0]})) for line in load_lines(elements.wave[0].item(), elements.wave[-1].item())]
    return elements, [(wave, who) for wave, who in makers if who <= set(elements.names)]


def strongest(elements, star, wave, half_width):
    near = (elements.wave - wave).abs() < half_width
    return elements.names[int(elements.response[star][:, near].amin(1).argmin())]


@pytest.mark.parametrize(("name", "star", "share"), [("optical", (5777, 4.44, 0.0), 0.8), ("optical", (4800, 2.5, 0.0), 0.9), ("hband", (4300, 2.0, -1.0), 0.95)])
def test_named_lines_answer_to_their_element_most(name, star, share):
    """The list of lines was compiled from atlases, without these computations; lines a few Angstrom beside are not so sure."""
    elements, lines = named(name)
    row = elements.star(*star)
    right = [strongest(elements, row, wave, HALF_WIDTH[name]) in who for wave, who in lines]
    beside = [strongest(elements, row, wave + 6.0, HALF_WIDTH[name]) in who for wave, who in lines]
    assert len(lines) > 20
    assert np.mean(right) > share > 0.6 > np.mean(beside)


@pytest.mark.parametrize("name", ["optical", "hband"])
def test_more_of_a_metal_deepens_its_lines(name):
    """Left out: what molecules and free electrons depend on (C, N, O, Mg, Si, Na), through which it weakens other elements' lines."""
    elements = load_elements(name)
    for symbol in ("Ca", "Cr", "Fe", "Mn", "Ni", "Ti"):
        assert elements.of(symbol).clamp(max=0).sum() < -3 * elements.of(symbol).clamp(min=0).sum()
    assert (elements.flux >= 0).all() and (elements.flux <= 1).all()


def test_oxygen_takes_carbon_away():
    """Bound in CO, carbon is missing in CH: the G band of a giant brightens with more oxygen (Tsuji 1973, A&A 23, 411), and darkens with more carbon."""
    elements = load_elements("optical")
    giant, band = elements.star(4800, 2.5, 0.0), (elements.wave > 4299) & (elements.wave < 4316)
    assert elements.of("O")[giant, band].mean() > 0.01 and elements.of("C")[giant, band].mean() < -0.1


@pytest.mark.parametrize("name", ["optical", "hband"])
@pytest.mark.parametrize(("label", "symbols"), [("alpha_fe", ALPHA), ("c_fe", ("C",))])
def test_library_moves_as_its_elements_do(name, label, symbols):
    """The emulator's change for +0.1 dex of a label against the computed changes of its elements, added up: no spectrum that it was fitted to knows either.

    Left out: stars in which a whole dex does not even do four times the emulator's error (carbon in the H band of metal-poor stars that are not cool)."""
    elements, library = load_elements(name), load_library(name)
    labels = torch.as_tensor(elements.labels)
    more = labels.clone()
    more[:, LABELS.index(label)] += 0.1
    truth = sum(elements.of(symbol) for symbol in symbols)
    visible = truth.norm(dim=1) > 4 * (library.flux(labels) - elements.flux).norm(dim=1)
    inside = library.contains(more) & visible
    assert inside.sum() >= 15
    found, truth = (library.flux(more[inside]) - library.flux(labels[inside])) / 0.1, truth[inside]
    alike = (found * truth).sum(1) / (found.norm(dim=1) * truth.norm(dim=1))
    assert alike.min() > 0.9 and alike.median() > 0.95


@pytest.mark.parametrize("name", ["optical", "hband"])
def test_stars_are_the_librarys(name):
    elements, library = load_elements(name), load_library(name)
    assert torch.equal(library.wave, elements.wave)
    inside = library.contains(torch.as_tensor(elements.labels))
    error = (library.flux(torch.as_tensor(elements.labels)[inside]) - elements.flux[inside]).abs()
    assert error.median() < 0.003


def test_what_is_not_there_is_refused():
    elements = load_elements("optical")
    torch.testing.assert_close(elements.of("Fe"), elements.response[:, elements.names.index("Fe")])
    with pytest.raises(LabelError, match="No response to 'Xe'; computed are C, .*Fe, Mg.*Ask for one of these"):
        elements.of("Xe")
    with pytest.raises(LabelError, match="No reference star has teff 5000, logg 4.0, feh 0.0; those computed .*5777 4.44 [+]0.0"):
        elements.star(5000, 4.0, 0.0)
    with pytest.raises(DataFileError, match="There is no file elements_xp.safetensors"):
        load_elements("xp")
