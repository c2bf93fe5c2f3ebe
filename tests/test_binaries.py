"""Two stars in one spectrum: the sum of their surface fluxes, and pairs that could exist."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit import population
from spectrakit.binaries import draw_binaries, simulate_binaries
from spectrakit.errors import LabelError
from spectrakit.library import LABELS, load_library
from spectrakit.surveys import GAIA_XP, LAMOST

STARS = draw_binaries(12, seed=1)
STILL = replace(LAMOST, snr=(1e6, 1e6), systematics=LAMOST.systematics.scaled(0.0))


def numbers(table, **other):
    return np.stack([np.asarray(table[other.get(name, name)], "f8") for name in LABELS], 1)


def surface(labels, survey):
    """Surface flux at the survey's pixels: its shape from a noiseless exposure, its level from the continuum of the library."""
    library = load_library(survey.library)
    seen = sk.simulate(survey, len(labels), seed=0, labels=labels).flux
    grid = torch.as_tensor(labels)
    level = (library.flux_unchecked(grid) * library.continuum_at(library.wave.numpy(), grid)).mean(1).numpy()
    return seen * level[:, None]


def test_light_adds_up():
    a, b = numbers(STARS), numbers(STARS, teff="teff_b", logg="logg_b")
    expected = surface(a, STILL) + np.asarray(STARS["light_b"])[:, None] * surface(b, STILL)
    seen = simulate_binaries(STILL, STARS, seed=5).flux
    ratio = seen / expected
    np.testing.assert_allclose(ratio / ratio.mean(1, keepdims=True), 1, atol=0.004)
    alone = surface(a, STILL)
    assert np.abs(seen / alone / (seen / alone).mean(1, keepdims=True) - 1).max() > 0.05          # and it matters


def test_companions_are_cooler_dwarfs_and_fainter():
    many = draw_binaries(300, seed=2)
    assert (many["teff_b"] <= many["teff"].value - 300).all()
    assert (many["logg_b"] > 4.3).all()
    flux_ratio = many["light_b"] * (many["teff_b"] / many["teff"].value) ** 4
    assert (flux_ratio < 1).all()
    assert flux_ratio.max() > 0.4
    assert len(set(many["star"])) == 300


def test_both_surveys_see_the_same_binary():
    for survey in (LAMOST, GAIA_XP):
        stars = simulate_binaries(survey, STARS, seed=5)
        np.testing.assert_array_equal(stars.labels["teff_b"], STARS["teff_b"])
        assert stars.survey == survey.name
        assert np.isfinite(stars.flux).all()


def test_tables_that_are_no_binaries_are_refused(monkeypatch):
    with pytest.raises(LabelError, match="The table of binaries lacks teff_b, logg_b; make it with draw_binaries."):
        simulate_binaries("lamost_lrs", STARS[[*LABELS, "light_b"]], 0)
    cold = STARS.copy()
    cold["teff_b"] = 3500.0
    with pytest.raises(LabelError, match="outside"):
        simulate_binaries("lamost_lrs", cold, 0)
    monkeypatch.setattr(population, "draw", lambda name, n, *_: np.tile([4800.0, 2.5, 0, 0, 0], (n, 1)))
    with pytest.raises(LabelError, match="The population 'giants' gave 0 dwarfs hot enough for a cooler companion; 5 were asked for."):
        draw_binaries(5, 0, "giants")
