"""The truth of the attention chapter, against closed forms and the simulated instrument itself."""

from dataclasses import replace

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.elements import load_elements
from spectrakit.errors import LabelError, MismatchError, SpectrumError
from spectrakit.lines import load_lines
from spectrakit.sensitivity import clean_spectra, element_jacobian, jacobian, marginal, positives, sensitivity
from spectrakit.surveys import LAMOST, LRS_GRID

SUN = np.array([[5777.0, 4.44, 0.0, 0.0, 0.0]])


def test_clean_spectra_are_simulated_ones_without_noise():
    quiet = replace(LAMOST, snr=(1e6, 1e6))
    labels = np.concatenate([SUN, [[4600.0, 2.3, -0.5, 0.2, 0.0]]])
    simulated = sk.normalize(sk.simulate(quiet, 2, seed=0, labels=labels, strength=0))
    assert np.abs(clean_spectra("lamost_lrs", labels) - simulated.flux).max() < 2e-4


def test_jacobian_predicts_a_small_change_of_every_label():
    change = np.array([30.0, 0.04, 0.04, 0.03, 0.03])
    slope = jacobian("lamost_lrs", SUN)[0]
    for k in range(5):
        moved = SUN + np.eye(5)[k] * change[k]
        difference = (clean_spectra("lamost_lrs", moved) - clean_spectra("lamost_lrs", SUN))[0]
        assert np.abs(difference - slope[k] * change[k]).max() < 0.1 * np.abs(difference).max()


def test_hotter_weaker_iron_and_stronger_hydrogen():
    slope = jacobian("lamost_lrs", SUN)[0]
    names = load_lines()
    at = {name: np.argmin(np.abs(LRS_GRID - names["wave"][names["name"] == name][0])) for name in ("Fe I 4384", "Hγ", "Ca I 4227")}
    assert slope[0, at["Fe I 4384"]] > 0 > slope[0, at["Hγ"]] and slope[2, at["Fe I 4384"]] < 0 and slope[3, at["Ca I 4227"]] < 0


def test_outside_the_hull_is_refused():
    with pytest.raises(LabelError, match="1 of 1 stars lie outside the library"):
        jacobian("lamost_lrs", np.array([[9000.0, 4.4, 0.0, 0.0, 0.0]]))


def test_marginal_part_of_a_toy_in_closed_form():
    """Three labels, three pixels: what is left of one is its projection on the cross product of the two others."""
    slope, ivar = np.array([[[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0]]]), np.array([[4.0, 9.0, 1.0]])
    white = np.array([[2.0, 6.0, 0.0], [0.0, 9.0, 1.0], [0.0, 0.0, 5.0]])
    normals = [np.cross(white[1], white[2]), np.cross(white[2], white[0]), np.cross(white[0], white[1])]
    assert np.allclose(marginal(slope, ivar)[0], [(row @ n) / (n @ n) * n for row, n in zip(white, normals, strict=True)])
    assert np.allclose(marginal(slope, ivar)[0, 0], [2, 0, 0])    # only the first pixel is moved by this label alone
    assert np.allclose(marginal(slope[:, :1], ivar)[0, 0], [2, 6, 0])


def test_squares_sum_to_the_inverse_cramer_rao_variance_and_are_orthogonal_to_the_others():
    slope, ivar = jacobian("lamost_lrs", SUN), np.linspace(50, 200, 1462)[None] ** 2
    own = marginal(slope, ivar)[0]
    white = slope[0] * np.sqrt(ivar)
    variance = np.diag(np.linalg.inv(white @ white.T))
    assert np.allclose(np.square(own).sum(1), 1 / variance, rtol=1e-6)
    for k in range(5):
        others = np.delete(white, k, 0)
        assert np.abs(others @ own[k]).max() < 1e-6 * np.linalg.norm(others, axis=1).max() * np.linalg.norm(own[k])
        residual = white[k] - others.T @ np.linalg.lstsq(others.T, white[k], rcond=None)[0]
        assert np.allclose(own[k], residual, atol=1e-6 * np.abs(residual).max())


def test_noise_of_the_best_linear_estimate_is_proportional_to_it():
    """Gauss-Markov: the gradient of the generalised least-squares estimate times sigma, pixel by pixel."""
    rng = np.random.default_rng(0)
    slope, ivar = rng.normal(size=(1, 4, 50)), rng.uniform(1, 100, (1, 50))
    weighted = slope[0] * ivar
    gradient = np.linalg.solve(weighted @ slope[0].T, weighted)      # d estimate / d flux
    noise = gradient / np.sqrt(ivar)
    own = marginal(slope, ivar)[0]
    assert np.allclose(noise / np.linalg.norm(noise, axis=1, keepdims=True), own / np.linalg.norm(own, axis=1, keepdims=True))


def test_of_stars_it_takes_survey_normalisation_noise_and_mask_from_them():
    raw = sk.simulate("desi", 2, seed=0)
    stars = sk.normalize(raw)
    stars.mask[1, 200:230] = True
    found = sensitivity(stars)
    labels = np.stack([stars.label(name) for name in ("teff", "logg", "feh", "alpha_fe", "c_fe")], 1)
    for mine, alone in zip(found[0], marginal(jacobian("desi", labels[:1]), stars.ivar[:1])[0], strict=True):
        assert np.allclose(mine, alone, atol=5e-3 * np.abs(alone).max())          # small differences of 32-bit spectra
    assert (found[1, :, 200:230] == 0).all()
    with pytest.raises(MismatchError, match="not continuum normalised"):
        sensitivity(raw)


@pytest.mark.parametrize("second", [np.zeros(3), 2 * np.ones(3)])
def test_labels_that_cannot_be_told_apart_are_refused(second):
    with pytest.raises(SpectrumError, match="In 1 of 1 spectra .* labels cannot be told apart"):
        marginal(np.stack([np.ones(3), second])[None], np.ones((1, 3)))


def test_positives_are_the_largest_tenth_whatever_their_sign():
    values = np.random.default_rng(0).normal(size=(2, 3, 200))
    chosen = positives(values)
    assert (chosen.sum(-1) == 20).all() and np.abs(values[chosen]).min() >= np.sort(np.abs(values), -1)[..., 180].min()
    for row, marks in zip(values.reshape(-1, 200), chosen.reshape(-1, 200), strict=True):
        assert np.abs(row[marks]).min() > np.abs(row[~marks]).max()
    with pytest.raises(SpectrumError, match="1 of 1200 sensitivities are NaN"):
        positives(np.where(np.arange(1200).reshape(2, 3, 200) == 7, np.nan, values))


def test_elements_seen_by_an_instrument_add_up_to_the_label():
    """[alpha/Fe] of the emulator against the five elements that were computed one by one, both through LAMOST."""
    elements = load_elements("optical")
    row = [elements.star(5777, 4.44, 0.0)]
    single = element_jacobian("lamost_lrs", elements)[row]
    assert single.shape == (1, len(elements.names), LRS_GRID.size) and np.isfinite(single).all()
    summed = single[:, [elements.names.index(name) for name in ("O", "Mg", "Si", "Ca", "Ti")]].sum(1)[0]
    whole = jacobian("lamost_lrs", elements.labels[row])[0, 3]
    assert np.corrcoef(summed, whole)[0, 1] > 0.95
    assert 0.8 < (summed @ whole) / (whole @ whole) < 1.25


def test_elements_of_another_range_are_refused():
    with pytest.raises(MismatchError, match="computed from 15154 to 16954 A, the survey's library reaches from 3951 to 5651 A. Load those of the library 'optical'"):
        element_jacobian("lamost_lrs", load_elements("hband"))
