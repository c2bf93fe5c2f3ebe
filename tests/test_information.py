"""The information limit: closed forms, the scatter of a fit that should reach it, scaling, priors, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit import information
from spectrakit.errors import LabelError, MismatchError
from spectrakit.information import PARAMETERS, fisher, limit, population_prior, shrinkage
from spectrakit.library import LABELS, load_library
from spectrakit.models.physical import PhysicalFit
from spectrakit.spectra import label_table
from spectrakit.surveys import DESI, LAMOST, Systematics

SUN = np.array([[5600.0, 4.4, 0.0, 0.0, 0.0], [5600.0, 4.4, -1.0, 0.3, 0.0], [5600.0, 4.4, -2.0, 0.3, 0.0]])


def seen(labels, snr, survey=LAMOST, seed=0, strength=0.0):
    survey = replace(survey, snr=(float(snr), float(snr)))
    return sk.simulate(survey, len(labels), seed, labels=label_table(**dict(zip(LABELS, labels.T, strict=True))), strength=strength)


@pytest.fixture(scope="module")
def three():
    return fisher(seen(SUN, 50))


class Line(information.Instrument):
    """An instrument whose spectrum is linear in its parameters."""

    def __init__(self, rng, n_pix=200):
        object.__setattr__(self, "slopes", torch.as_tensor(rng.normal(size=(6, n_pix))))
        object.__setattr__(self, "basis", torch.as_tensor(np.polynomial.legendre.legvander(np.linspace(-1, 1, n_pix), 2).T))

    def model(self, x):
        return 1 + 0 * x @ self.slopes

    def jacobian(self, x):
        return self.slopes.expand(len(x), -1, -1)


def test_a_linear_model_gives_the_covariance_of_least_squares():
    rng = np.random.default_rng(0)
    toy, variance = Line(rng), torch.as_tensor(rng.uniform(0.5, 2, (1, 200)))
    spectra = information.Spectra(torch.ones(1, 200, dtype=torch.float64), variance, torch.ones(1, 200, dtype=torch.bool))
    found = np.linalg.inv(information._block(toy, spectra, torch.zeros(1, 6, dtype=torch.float64), 0.0).numpy()[0])
    design = torch.cat([toy.slopes, toy.basis]).numpy() / np.sqrt(variance.numpy())
    expected = np.linalg.inv(design @ design.T)[:6, :6]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_physical_fit_reaches_the_limit_on_its_own_model():
    labels = np.tile([[5300.0, 4.3, -0.6, 0.15, 0.05]], (120, 1))
    stars = sk.normalize(seen(labels, 150, seed=3))
    found = PhysicalFit(alpha_spread=np.inf, c_spread=np.inf, lines=0.0, floor=1e-6, n_starts=1).fit_labels(stars)
    bound = limit(fisher(stars[:1]))[0]
    for i, name in enumerate(PARAMETERS):
        ratio = np.std(found[name], ddof=1) / bound[i]
        assert 0.82 < ratio < 1.24, (name, ratio)                                # a scatter of 120 is known to 6 %; Student's weights cost 3 %


def test_half_the_noise_half_the_limit(three):
    np.testing.assert_allclose(limit(fisher(seen(SUN, 100))), limit(three) / 2, rtol=0.02)


def test_lines_that_vanish_take_the_information_along(three):
    feh = limit(three)[:, LABELS.index("feh")]
    assert feh[2] > 2 * feh[0] and (limit(three) > 0).all()


def test_a_narrow_prior_wins_and_a_wide_one_loses(three):
    narrow, wide = np.diag([1.0, 1e-3, 1e-3, 1e-3, 1e-3]) ** 2, np.diag([1e6, 1e3, 1e3, 1e3, 1e3]) ** 2
    np.testing.assert_allclose(limit(three, narrow)[:, :5], np.tile(np.sqrt(np.diag(narrow)), (3, 1)), rtol=0.02)
    np.testing.assert_allclose(limit(three, wide), limit(three), rtol=1e-3)
    assert (limit(three, population_prior("desi")) <= limit(three) * (1 + 1e-9)).all()


def test_shrinkage_goes_from_the_mean_to_the_truth(three):
    prior = population_prior("desi")
    np.testing.assert_allclose(shrinkage(1e6 * three, prior, "feh"), 1, atol=1e-3)
    assert (np.abs(shrinkage(1e-9 * three, prior, "feh")) < 1e-3).all()
    assert (np.diff(shrinkage(three, prior, "feh")) < 0).all()


def test_the_posterior_mean_of_a_linear_model_has_that_rms_and_that_slope():
    rng, prior = np.random.default_rng(0), np.diag([0.3, 1.0, 0.5, 0.2, 0.2]) ** 2
    slopes = rng.normal(size=(6, 30))
    truth = np.column_stack([rng.multivariate_normal(np.zeros(5), prior, 40_000), np.zeros(40_000)])
    info, weight = slopes @ slopes.T, information._padded(prior)
    estimate = (truth @ slopes + rng.normal(size=(40_000, 30))) @ slopes.T @ np.linalg.inv(info + weight)
    np.testing.assert_allclose((estimate - truth)[:, :5].std(0), limit(info[None], prior)[0, :5], rtol=0.02)
    assert np.polyfit(truth[:, 2], estimate[:, 2], 1)[0] == pytest.approx(shrinkage(info[None], prior, "feh")[0], abs=0.01)


def test_wrong_lines_have_the_covariance_of_the_simulation():
    labels = np.tile(SUN[:1], (800, 1))
    survey = replace(DESI, systematics=Systematics(0.0, 0.0, 0.0, 0.0, 0.05))
    wrong, right = seen(labels, 1e6, survey, seed=1, strength=1.0), seen(labels[:1], 1e6, survey)
    instrument = information.Instrument.of(replace(right, normalization="any"), load_library(), 2, (0.0,), spreads=(1.0, 1.0), lines=0.0, floor=0.0)
    columns = 0.05 * information._line_errors(instrument, load_library().opacity(torch.as_tensor(SUN[:1]))[0]).numpy()
    change = wrong.flux / right.flux - 1
    model = instrument.model(torch.as_tensor(np.append(SUN[0], 0.0) / information.UNIT)[None])[0].numpy()
    expected = (columns**2).sum(0) / model**2
    core = expected > np.quantile(expected, 0.2)
    np.testing.assert_allclose((change.var(0) / expected)[core], 1, atol=0.2)


def test_wrong_lines_cost_information_and_none_cost_nothing(three):
    stars = seen(SUN, 50)[:1]
    np.testing.assert_allclose(fisher(stars, lines=1e-8), alone := fisher(stars), rtol=1e-6)
    scale = np.sqrt(np.diagonal(alone, axis1=1, axis2=2))
    np.testing.assert_allclose(alone / (scale[:, :, None] * scale[:, None]), three[:1] / (scale[:, :, None] * scale[:, None]), atol=1e-6)    # in company, too
    assert (limit(fisher(stars, lines=0.2)) > 1.1 * limit(three[:1])).all()


def test_masked_pixels_tell_nothing(three):
    stars = seen(SUN, 50)
    mask = stars.mask.copy()
    mask[:, :400] = True
    hidden = replace(stars, mask=mask, flux=np.where(mask, np.nan, stars.flux))
    assert (limit(fisher(hidden)) > limit(three)).all()


def test_refusals(three):
    stars = seen(SUN, 50)
    labels = stars.labels.copy()
    labels.remove_column("c_fe")
    with pytest.raises(LabelError, match="No label 'c_fe' here"):
        fisher(replace(stars, labels=labels))
    with pytest.raises(MismatchError, match="The information about some parameter is zero or not finite"):
        limit(0 * three)
    flat = three.copy()
    flat[:, 0] = flat[:, 1]
    flat[:, :, 0] = flat[:, :, 1]
    flat[:, 0, 0] = flat[:, 1, 1]
    with pytest.raises(MismatchError, match="two parameters cannot be told apart"):
        limit(flat)
