"""Baselines: exact where a closed form exists, one contract for all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from spectrakit.errors import LabelError, MismatchError, SpectrakitError, SpectrumError
from spectrakit.models.baselines import FluxMLP, GaussianProcessPCA, Regressor, RidgePCA
from spectrakit.models.cannon import Cannon
from spectrakit.spectra import SpectraSet, label_table

MODELS = {"ridge": RidgePCA(n_components=6), "gp": GaussianProcessPCA(n_components=6, n_restarts=0),
          "mlp": FluxMLP(hidden=(32, 8), patience=15, epochs=60, learning_rate=1e-2), "cannon": Cannon()}


def field(n=120, n_pix=60, noise=0.0, seed=0, star_seed=1):
    """Spectra that are exactly quadratic in (teff, logg, feh), plus noise; ``seed`` makes the pixels, ``star_seed`` the stars."""
    rng, pixels = np.random.default_rng(star_seed), np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 3))
    i, j = np.triu_indices(3)
    flux = 1 - 0.3 * pixels.uniform(size=n_pix) + x @ pixels.normal(0, 0.05, (3, n_pix)) + (x[:, i] * x[:, j]) @ pixels.normal(0, 0.01, (6, n_pix))
    return SpectraSet(wave=4000 + 2.0 * np.arange(n_pix), flux=flux + noise * rng.normal(size=flux.shape),
                      ivar=np.full(flux.shape, 1 / max(noise, 1e-4) ** 2), mask=np.zeros(flux.shape, bool),
                      labels=label_table(teff=5500 + 1000 * x[:, 0], logg=3 + 1.5 * x[:, 1], feh=-0.5 + x[:, 2]), survey="synthetic",
                      medium="vacuum", frame="rest", resolution=np.full(n_pix, 1800.0), normalization="exact", noise="simulated", provenance={})


@pytest.fixture(params=MODELS, scope="module")
def fitted(request):
    return replace(MODELS[request.param]).fit(field(noise=0.005), "feh")


def test_labels_are_recovered(fitted):
    test = field(200, noise=0.005, star_seed=2)
    value, sigma = fitted.predict(test)
    error = value - test.label("feh")
    assert isinstance(fitted, Regressor)
    assert value.shape == sigma.shape == (200,)
    assert np.std(error) < 0.08  # the labels themselves scatter by 0.58
    assert 0.6 < np.std(error / sigma) < 1.6
    assert (sigma > 0).all()


def test_masked_pixels_change_nothing(fitted):
    test = field(30, noise=0.005, star_seed=3)
    mask = np.random.default_rng(4).random(test.flux.shape) < 0.2
    garbage = replace(test, mask=mask, flux=np.where(mask, np.nan, test.flux), ivar=np.where(mask, np.nan, test.ivar))
    huge = replace(test, mask=mask, flux=np.where(mask, 1e30, test.flux), ivar=np.where(mask, 1e30, test.ivar))
    for a, b in zip(fitted.predict(garbage), fitted.predict(huge), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.std(fitted.predict(garbage)[0] - test.label("feh")) < 0.3


@pytest.mark.parametrize("name", MODELS)
def test_masked_training_pixels_change_nothing_and_no_global_state_is_touched(name):
    train, test = field(noise=0.005), field(20, star_seed=3)
    mask = np.random.default_rng(4).random(train.flux.shape) < 0.1
    mask[:, 7] = True  # a pixel that nobody has
    state = torch.get_rng_state()

    def predicted(junk, seventh):
        known = replace(train, mask=mask, flux=np.where(mask, junk, train.flux), ivar=np.where(mask, junk, train.ivar))
        return replace(MODELS[name]).fit(known, "feh").predict(replace(test, flux=np.where(np.arange(60) == 7, seventh, test.flux)))

    np.testing.assert_array_equal(predicted(np.nan, 1.0), predicted(1e30, 5.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_other_kinds_of_spectra_are_refused(fitted):
    test = field(5, star_seed=3)
    with pytest.raises(MismatchError, match=r"grid \(50 pixels, 4000.0-4098.0 A\) is not that of the training set \(60 pixels, 4000.0-4118.0 A\)"):
        fitted.predict(field(5, n_pix=50))
    with pytest.raises(MismatchError, match="normalization is 'none', that of the training set 'exact'."):
        fitted.predict(replace(test, normalization="none"))
    with pytest.raises(MismatchError, match="medium is 'air', that of the training set 'vacuum'."):
        fitted.predict(replace(test, medium="air"))
    with pytest.raises(SpectrumError, match=r"1 of 5 stars have no usable pixel \(first: 2\); leave them out."):
        fitted.predict(replace(test, mask=np.arange(5)[:, None] == np.full(60, 2)))


@pytest.mark.parametrize("name", MODELS)
def test_bad_training_sets_are_refused(name):
    model, train = MODELS[name], field(noise=0.005)
    with pytest.raises(SpectrakitError, match="is not fitted yet; call fit"):
        replace(model).predict(train)
    with pytest.raises(MismatchError, match="not continuum normalised"):
        replace(model).fit(replace(train, normalization="none"), "feh")
    with pytest.raises(LabelError, match=f"3 labelled stars; this {type(model).__name__} needs at least"):
        replace(model).fit(train[:3], "feh")
    with pytest.raises(SpectrumError, match="1 of 120 stars have no usable pixel"):
        replace(model).fit(replace(train, mask=np.arange(120)[:, None] == np.full(60, 2)), "feh")
    with pytest.raises(LabelError, match="'alpha_fe'"):
        replace(model).fit(train, "alpha_fe")
    flat = label_table(teff=np.full(120, 5000.0), logg=train.label("logg"), feh=train.label("feh"))
    known = replace(model).fit(train, "teff")
    with pytest.raises(LabelError, match="All 120 stars have teff = 5000: there is nothing to learn."):
        known.fit(replace(train, labels=flat), "teff")
    with pytest.raises(SpectrakitError, match="is not fitted yet"):  # a fit that failed leaves nothing half old, half new
        known.predict(train)


def test_seeds_decide():
    train, test = field(40, noise=0.01), field(10, star_seed=2)
    a, b, c = (FluxMLP(hidden=(8,), epochs=5, seed=s).fit(train, "feh").predict(test)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_ridge_on_all_components_is_ridge_on_centred_flux():
    train, test = field(100, n_pix=20, noise=0.01), field(15, n_pix=20, star_seed=2)
    direct = RidgeCV(np.logspace(-4, 4, 33)).fit(train.flux, train.label("feh"))
    np.testing.assert_allclose(RidgePCA(n_components=20).fit(train, "feh").predict(test)[0], direct.predict(test.flux), atol=1e-8)


def test_gaussian_process_far_away_returns_to_the_training_mean_and_spread():
    train = field(120, noise=0.005)
    far = replace(train[:1], flux=train.flux[:1] + 1e4)
    value, sigma = GaussianProcessPCA(n_components=6, n_restarts=0).fit(train, "feh").predict(far)
    assert value[0] == pytest.approx(train.label("feh").mean(), abs=1e-6)
    assert sigma[0] > train.label("feh").std()


def test_components_need_enough_stars():
    with pytest.raises(LabelError, match="20 labelled stars; this GaussianProcessPCA needs at least 26."):
        GaussianProcessPCA().fit(field(20), "feh")
    with pytest.raises(LabelError, match="28 labelled stars; this RidgePCA needs at least 30."):
        RidgePCA().fit(field(28), "feh")
    RidgePCA().fit(field(30), "feh")  # and that is enough in every fold


@pytest.mark.parametrize("label", ["teff", "logg", "feh"])
def test_cannon_recovers_a_quadratic_field_exactly(label):
    test = field(50, star_seed=2)
    value, _ = Cannon().fit(field(), label).predict(test)
    np.testing.assert_allclose(value, test.label(label), rtol=1e-5, atol=1e-5)


def test_cannon_formal_error_is_that_of_the_noise_and_scatter_is_found():
    model, test = Cannon().fit(field(600, noise=0.01), "feh"), field(400, noise=0.01, star_seed=2)
    value, sigma = model.predict(test)
    assert np.std((value - test.label("feh")) / sigma) == pytest.approx(1, abs=0.12)
    jitter = replace(field(600, noise=0.01), ivar=np.full((600, 60), 1 / 0.001**2))  # noise that the errors do not know
    assert np.median(Cannon().fit(jitter, "feh")._scatter) == pytest.approx(0.01, rel=0.15)


def test_cannon_labels():
    train = field()
    with pytest.raises(LabelError, match="This Cannon models teff, logg, feh, not 'c_fe'; name it in"):
        Cannon().fit(train, "c_fe")
    with pytest.raises(LabelError, match="'feh' is the same for all training stars; leave it out of labels=."):
        Cannon().fit(replace(train, labels=label_table(teff=train.label("teff"), logg=train.label("logg"), feh=np.zeros(120))), "logg")
    thin = replace(train[:4], mask=np.arange(60) > np.array([59, 1, 59, 59])[:, None])
    with pytest.raises(SpectrumError, match=r"1 of 4 stars have fewer usable pixels than this Cannon has labels \(first: 1\); leave them out."):
        Cannon().fit(train, "feh").predict(thin)
    cool = replace(train, labels=label_table(teff=train.label("teff"), feh=train.label("feh")))
    with pytest.raises(LabelError, match="No label 'logg' here"):
        Cannon().fit(cool, "feh")
    assert Cannon(labels=("teff", "feh")).fit(cool, "feh").predict(cool)[0].shape == (120,)
    with pytest.raises(SpectrumError, match="0 pixels are usable in 20 or more of 96 training stars; 3 labels need at least as many."):
        Cannon().fit(replace(train, mask=np.arange(60) != np.arange(120)[:, None] % 60), "feh")
