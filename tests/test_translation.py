"""Residuals, dust and the anomaly score in closed form; no trained weights are needed for that."""

from dataclasses import replace

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.errors import MismatchError
from spectrakit.gaia_xp import AT_550, WAVE, extinguish
from spectrakit.models.aligned import AlignedModel
from spectrakit.pairs import Pairs, simulate_pairs
from spectrakit.translation import anomaly, remove_dust, residuals, translation_errors

PAIRS = simulate_pairs("lamost_lrs", 400, seed=3)


class Oracle(AlignedModel):
    """Predicts what was really seen, and noise on top of it."""

    def __init__(self, answer, scatter):
        super().__init__(sk.load_model("tiny_aligned").card)
        self.answer, self.scatter = answer, scatter

    def translate(self, stars, batch=256):
        rows = {star: i for i, star in enumerate(self.answer.labels["star"])}
        found = self.answer[[rows[star] for star in stars.labels["star"]]]
        return replace(found, flux=found.flux + self.scatter * np.random.default_rng(0).standard_normal(found.flux.shape))


def test_residuals_are_in_units_of_both_errors():
    seen = PAIRS.xp[[0, 1, 2]]
    seen.mask[1, 7] = True
    said = replace(seen, flux=seen.flux - 0.03, ivar=np.full(seen.flux.shape, 1 / 0.02**2), mask=np.zeros_like(seen.mask))
    found = residuals(seen, said)
    np.testing.assert_allclose(found[0], 0.03 / np.sqrt(1 / seen.ivar[0] + 0.02**2))
    assert np.isnan(found[1, 7])
    assert np.isnan(found).sum() == 1


@pytest.mark.parametrize("ebv", [-0.05, 0.0, 0.3])
def test_dust_put_in_is_the_dust_taken_out(ebv):
    said = PAIRS.xp[:4]
    said = replace(said, flux=said.flux.clip(0.06))
    curve = extinguish(WAVE, np.array([abs(ebv)]), np.array([3.1]))[0] ** np.sign(ebv)
    seen = replace(said, flux=said.flux * curve / curve[AT_550])
    clear, found = remove_dust(seen, said)
    np.testing.assert_allclose(found, ebv, atol=1e-9)
    np.testing.assert_allclose(clear.flux, said.flux, rtol=1e-9)
    np.testing.assert_allclose(clear.flux * np.sqrt(clear.ivar), seen.flux * np.sqrt(seen.ivar))         # its S/N is what it was


def test_dust_is_not_taken_for_strangeness():
    ordinary = Oracle(replace(PAIRS.xp, flux=PAIRS.xp.flux.clip(0.06)), 0.01)
    reference, rest = PAIRS[:300], PAIRS[300:]
    dust = extinguish(WAVE, np.array([0.4]), np.array([3.1]))[0]
    dusty = Pairs(rest.lrs, replace(rest.xp, flux=rest.xp.flux.clip(0.06) * dust / dust[AT_550]))
    assert np.median(anomaly(ordinary, dusty, reference)) < 2 * np.median(anomaly(ordinary, rest, reference))
    assert np.median(anomaly(ordinary, dusty, reference, dust=False)) > 50 * np.median(anomaly(ordinary, rest, reference, dust=False))


def test_score_is_about_one_a_pixel_and_larger_for_a_line_that_should_not_be_there():
    model = Oracle(PAIRS.lrs, 0.02)
    reference, rest = PAIRS[:300], PAIRS[300:]
    assert np.median(anomaly(model, rest, reference, to="lrs")) == pytest.approx(1, abs=0.35)
    flux = rest.lrs.flux.copy()
    flux[0, 500:520] -= 0.3
    strange = anomaly(model, Pairs(replace(rest.lrs, flux=flux), rest.xp), reference, to="lrs")
    assert strange.argmax() == 0


def test_other_stars_pixels_or_units_are_refused():
    with pytest.raises(MismatchError, match="residuals need the same stars on the same grid"):
        residuals(PAIRS.xp, PAIRS.xp[:5])
    with pytest.raises(MismatchError, match="Observed is normalised by 'none', predicted by '550nm'; use sk.normalize"):
        residuals(sk.simulate("gaia_xp", 400, seed=0), PAIRS.xp)
    with pytest.raises(MismatchError, match="to='gaia'; expected 'xp' or 'lrs'."):
        translation_errors(sk.load_model("tiny_aligned"), PAIRS, to="gaia")
