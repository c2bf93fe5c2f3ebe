"""Two spectra of the same stars: same labels, same order, own noise."""

from dataclasses import replace

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.errors import LabelError, MismatchError, SpectrumError
from spectrakit.gaia_xp import AT_550, WAVE, relative
from spectrakit.pairs import Pairs, bright, simulate_pairs
from spectrakit.surveys import GAIA_XP, LAMOST

PAIRS = simulate_pairs("lamost_lrs", 30, seed=3)


def test_both_spectra_are_of_one_star():
    for name in ("teff", "logg", "feh", "alpha_fe", "c_fe"):
        np.testing.assert_array_equal(PAIRS.lrs.label(name), PAIRS.xp.label(name))
    assert (PAIRS.lrs.labels["star"] == PAIRS.xp.labels["star"]).all()
    assert PAIRS.lrs.normalization == "robust"
    assert PAIRS.xp.normalization == "550nm"
    lrs, xp = PAIRS.tensors()
    assert lrs.shape == (30, 1462)
    assert xp.shape == (30, 343)


def test_a_seed_is_a_draw():
    again, other = simulate_pairs("lamost_lrs", 30, seed=3), simulate_pairs("lamost_lrs", 30, seed=4)
    np.testing.assert_array_equal(again.xp.flux, PAIRS.xp.flux)
    assert not np.allclose(other.lrs.label("teff"), PAIRS.lrs.label("teff"))


def test_stars_given_are_the_stars_seen():
    seen = simulate_pairs("lamost_lrs", 30, seed=9, labels=PAIRS.xp.labels)
    np.testing.assert_array_equal(seen.xp.labels["ebv"], PAIRS.xp.labels["ebv"])
    assert not np.allclose(seen.lrs.flux, PAIRS.lrs.flux)                             # another exposure of them


def test_bright_stars_have_no_noise_to_speak_of():
    still = replace(LAMOST, systematics=LAMOST.systematics.scaled(0.0))
    labels = PAIRS.lrs.labels
    one, two = (sk.normalize(sk.simulate(bright(still), 30, seed=s, labels=labels)).flux for s in (1, 2))
    assert np.abs(one - two).std() < 0.002


def test_flux_over_flux_at_550_nm():
    raw = sk.simulate("gaia_xp", 5, seed=1)
    stars = relative(raw)
    assert WAVE[AT_550] == 5500
    np.testing.assert_allclose(stars.flux[:, AT_550], 1)
    np.testing.assert_allclose(stars.flux[2], raw.flux[2] / raw.flux[2, 107])
    np.testing.assert_allclose(stars.flux * np.sqrt(stars.ivar), raw.flux * np.sqrt(raw.ivar))
    np.testing.assert_array_equal(sk.normalize(raw, "550nm").flux, stars.flux)
    with pytest.raises(MismatchError, match="normalised already"):
        sk.normalize(stars, "550nm")


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_no_light_at_550_nm_is_refused(bad):
    raw = sk.simulate("gaia_xp", 3, seed=1)
    raw.flux[1, AT_550] *= bad
    with pytest.raises(SpectrumError, match=r"1 of 3 spectra have no positive flux at 550 nm \(first: spectrum 1\)"):
        relative(raw)


def test_what_is_no_pair_is_refused():
    with pytest.raises(MismatchError, match="30 LRS spectra and 20 XP spectra"):
        Pairs(PAIRS.lrs, PAIRS.xp[:20])
    with pytest.raises(MismatchError, match=r"Row 0 is star 'sim0000000' in LRS and 'sim0000029' in XP"):
        Pairs(PAIRS.lrs, PAIRS.xp[::-1])
    with pytest.raises(MismatchError, match="Gaia XP is 343 points"):
        relative(sk.simulate("lamost_lrs", 2, seed=0))
    with pytest.raises(LabelError):
        simulate_pairs("lamost_lrs", 1, seed=0, labels=np.array([[9000.0, 4, 0, 0, 0]]))
    assert len(PAIRS[:7]) == 7
    assert PAIRS.xp.survey == GAIA_XP.name
