"""Remedies: each against what it must do by itself, and the recipe as a whole."""

from dataclasses import replace

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.adaptation.members import folds
from spectrakit.errors import LabelError, MismatchError, SpectrakitError
from spectrakit.remedies.conformal import CrossConformal
from spectrakit.remedies.density import density_weights, near
from spectrakit.remedies.ensemble import Ensemble
from spectrakit.remedies.heteroscedastic import inverse_variance, likeliest_sigma
from spectrakit.remedies.rehearsal import labelled_by, metal_poor
from spectrakit.remedies.robust import robust
from spectrakit.remedies.selection import choose_even
from spectrakit.remedies.support import Gated, Support


class Fixed:
    """Five members and a zero-shot that are known, looked up by the star's number."""

    label = "feh"

    def __init__(self, members, zero):
        self._members, self._zero = members, zero

    def members(self, stars):
        return self._members[:, np.asarray(stars.labels["row"])]

    def zero_shot(self, stars):
        return self._zero[np.asarray(stars.labels["row"])]


def numbered(stars, truth):
    """``stars`` again and again, with rows of their own and this truth."""
    stars = stars[np.resize(np.arange(len(stars)), len(truth))]
    labels = stars.labels.copy()
    labels["row"], labels["star"] = np.arange(len(truth)), [f"s{i}" for i in range(len(truth))]
    return labelled_by(replace(stars, labels=labels), truth, "feh")


@pytest.fixture(scope="module")
def fit(stars):
    return sk.adapt(sk.load_model("tiny"), stars[:40], validation=stars[40:48], label="feh", recipe="robust", seed=0, steps=60)


def test_a_lonely_label_weighs_more_and_all_weigh_one_on_average():
    labels = np.append(np.linspace(-0.5, 0.3, 50), -2.5)
    weights = density_weights(labels)
    assert weights.mean() == pytest.approx(1) and weights.argmax() == 50
    assert weights[50] / weights[25] == pytest.approx(near(labels[25:26], labels)[0] ** 0.5, rel=1e-6)
    assert np.allclose(density_weights(labels, power=0), 1)
    with pytest.raises(LabelError, match="3 labels that do not differ"):
        density_weights(np.zeros(3))


def test_weights_decide_whom_the_fit_serves(stars):
    """Half of the labels are 0.6 dex higher than the other half: the fit follows those that weigh."""
    upper = np.arange(len(stars)) % 2 == 0
    mixed, settings = labelled_by(stars, stars.label("feh") + np.where(upper, 0.3, -0.3), "feh"), {"label": "feh", "placement": ("lora2",), "seed": 0, "steps": 60}
    model, bias = sk.load_model("tiny"), []
    for heavy in (upper, ~upper):
        fit = sk.adapt(model, mixed[:60], weights=np.where(heavy[:60], 1.0, 0.02), **settings)
        bias.append(np.median(fit.predict(stars[60:])[0] - stars[60:].label("feh")))
    assert bias[0] > bias[1] + 0.1
    with pytest.raises(MismatchError, match=r"weights has shape \(3,\); expected \(60,\)"):
        sk.adapt(model, mixed[:60], weights=np.ones(3), **settings)


def test_likeliest_sigma_finds_the_law_that_made_the_residuals():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000))
    true = 0.1 * np.exp(0.5 * a - 0.3 * b)
    np.testing.assert_allclose(likeliest_sigma(true * rng.standard_normal(4000), a, b), true, rtol=0.15)
    flat = likeliest_sigma(0.2 * rng.standard_normal(4000), np.ones(4000))
    assert np.ptp(flat) == 0 and flat[0] == pytest.approx(0.2, rel=0.05)


def test_stars_that_were_missed_unseen_weigh_less(stars):
    """Residuals of the members that left a star out grow with its zero-shot label; what the others say, who have seen it, is not asked."""
    rng, seed = np.random.default_rng(1), 7
    stars = numbered(stars, np.zeros(200))
    fold, zero = folds(stars, np.random.default_rng(seed)), rng.uniform(-2, 0, 200)
    true = np.where(zero < -1, 0.3, 0.1)
    members = np.full((5, 200), 50.0)
    members[fold, np.arange(200)] = true * rng.standard_normal(200)
    weights = inverse_variance(Fixed(members, zero), stars, seed)
    assert weights.mean() == pytest.approx(1)
    assert 3 < np.median(weights[zero > -1]) / np.median(weights[zero < -1]) < 12          # of the law 9, smoothed by the exponential in zero


def test_rehearsal_holds_an_adapter_to_what_it_knew(stars):
    model, settings = sk.load_model("tiny"), {"label": "feh", "placement": ("lora2",), "seed": 0, "steps": 60}
    zero = model.predict(stars, "feh")[0]
    anchored = sk.adapt(model, stars[:50], rehearsal=labelled_by(stars[60:], zero[60:], "feh"), **settings)
    free = sk.adapt(model, stars[:50], **settings)
    moved = [np.abs(fit.predict(stars[60:])[0] - zero[60:]).mean() for fit in (anchored, free)]
    assert moved[0] < 0.85 * moved[1] and anchored.budget == free.budget == 50


def test_metal_poor_stars_are_metal_poor_and_repeatable():
    first, again = metal_poor("desi", 12, seed=3), metal_poor("desi", 12, seed=3)
    assert len(first) == 12 and (first.label("feh") < -1).all() and first.normalization == "robust"
    assert np.array_equal(first.flux, again.flux)
    with pytest.raises(LabelError, match=r"of the population 'apogee' have \[Fe/H\] < -3.4; 20 were asked for"):
        metal_poor("apogee", 20, seed=0, below=-3.4)


def test_chosen_stars_are_spread_more_evenly_than_random_ones():
    rng = np.random.default_rng(0)
    predicted = np.append(rng.normal(-0.2, 0.2, 900), rng.normal(-1.7, 0.3, 100))
    chosen = choose_even(predicted, 97, np.random.default_rng(1))
    assert len(set(chosen)) == 97 and 25 < (predicted[chosen] < -1).sum() < 70       # random: 10
    with pytest.raises(SpectrakitError, match="11 labels asked for; expected 1 to 10"):
        choose_even(predicted[:10], 11, rng)


def test_the_gate_is_open_where_labels_are_and_shut_where_none_is(stars):
    support = Support.of(np.append(np.zeros(40), [-0.5, 0.5]))
    gate = support.gate(np.array([0.0, -3.0]))
    assert gate[0] == pytest.approx(40.0 / 42, abs=0.02) and gate[1] < 1e-6
    few = numbered(stars[:2], np.zeros(2))
    gated = Gated(Fixed(np.full((5, 2), 1.0), np.array([0.0, -3.0])), support)
    np.testing.assert_allclose(gated.members(few)[0], [gate[0], -3.0], atol=1e-5)


def test_an_ensemble_is_the_mean_member_by_member(fit, stars):
    both = Ensemble(fit.fits)
    np.testing.assert_allclose(both.members(stars[60:70]), (fit.fits[0].members(stars[60:70]) + fit.fits[1].members(stars[60:70])) / 2)
    np.testing.assert_allclose(both.zero_shot(stars[60:70]), np.mean([f.model.predict(stars[60:70], "feh")[0] for f in fit.fits], 0), atol=1e-4)
    with pytest.raises(MismatchError, match="0 fits of the labels none; expected fits of one label."):
        Ensemble([])


def test_intervals_cover_where_the_scatter_changes(stars):
    """Noise of 0.05 dex above -1 and 0.2 below: 68 % on either side, at the price of wider intervals below."""
    rng, n, sides = np.random.default_rng(0), 3000, []
    for _ in range(6):
        truth = np.where(rng.random(n) < 0.25, -2.0, -0.2) + rng.normal(0, 0.1, n)
        said = np.tile(truth + rng.normal(size=n) * np.where(truth < -1, 0.2, 0.05), (5, 1))
        sample = numbered(stars, truth)
        conformal = CrossConformal.of(Fixed(said, truth), sample[:100], sample[100:110], 0, 0.25)
        low, high = conformal.interval(sample[110:])
        inside, poor = (low < truth[110:]) & (truth[110:] < high), truth[110:] < -1
        sides.append((inside[poor].mean(), inside[~poor].mean(), (high - low)[poor].mean() / (high - low)[~poor].mean()))
    poor, rich, wider = np.mean(sides, 0)
    assert 0.60 < poor < 0.76 and 0.63 < rich < 0.73 and wider > 2
    with pytest.raises(LabelError, match=r"level is 0.995 with 110 labelled stars; expected a number between 0 and 0.991"):
        conformal.interval(sample[110:], 0.995)


def test_intervals_use_members_that_have_not_seen_the_star(stars):
    """Members are perfect on what they have seen and off by 1 elsewhere: intervals must not believe the former."""
    truth, n = np.linspace(-1, 0, 60), 50
    sample = numbered(stars, truth)
    fold = folds(sample[:n], np.random.default_rng(0))
    said = np.tile(truth, (5, 1))
    said[fold, np.arange(n)] += 1.0
    assert np.allclose(CrossConformal.of(Fixed(said, truth), sample[:n], None, 0, 0.3).residuals, 1)


def test_the_recipe_predicts_and_warns(fit, stars):
    test = stars[60:]
    value, sigma = fit.predict(test)
    low, high = fit.interval(test)
    zero, adapted = (sk.metrics.score(test.label("feh"), v) for v in (fit.zero_shot(test), value))
    assert fit.budget == 48 and adapted.bias > zero.bias + 0.15 and adapted.r2 > zero.r2                 # labels are off by 0.4
    np.testing.assert_allclose(sigma, (high - low) / 2)
    assert 0.4 < ((low < test.label("feh")) & (test.label("feh") < high)).mean() < 0.95
    assert fit.support(test).mean() > 0.6
    broken = replace(test, flux=np.clip(test.flux + 0.5 * np.sin(test.wave / 30), 0.05, None))
    assert np.asarray(fit.reasons(broken)["far"]).mean() > 0.5
    assert fit.reasons(test).colnames == ["few_labels", "far", "disagree"]


def test_the_recipe_is_its_pieces_put_together(fit, stars):
    weights = density_weights(stars[:40].label("feh"))
    alone = sk.adapt(sk.load_model("tiny"), stars[:40], validation=stars[40:48], label="feh", placement=("lora2",), seed=0, steps=60, weights=weights)
    pieces = Gated(Ensemble([alone, fit.fits[1]]), Support.of(fit.zero_shot(stars[:48])))
    np.testing.assert_allclose(fit.members(stars[60:]), pieces.members(stars[60:]), atol=1e-4)


def test_a_star_beyond_all_labels_stays_at_zero_shot_and_is_flagged(fit):
    alone = sk.normalize(sk.simulate("miles", 1, 0, labels=np.array([[5200.0, 2.5, -3.2, 0.4, 0.0]])))
    assert fit.predict(alone)[0] == pytest.approx(fit.zero_shot(alone), abs=0.1) and not fit.support(alone)[0]


def test_refusals(stars):
    model, settings = sk.load_model("tiny"), {"label": "feh", "seed": 0}
    with pytest.raises(MismatchError, match=r"placement=None and recipe=None; expected one of them: placement=\('lora2',\) and the like, or recipe='robust'."):
        sk.adapt(model, stars[:20], **settings)
    with pytest.raises(MismatchError, match="recipe='clever'; expected one of them"):
        sk.adapt(model, stars[:20], recipe="clever", **settings)
    with pytest.raises(MismatchError, match="This model reads the flux itself"):
        sk.adapt(sk.load_model("small_flux"), stars[:20], recipe="robust", **settings)
    with pytest.raises(MismatchError, match="1 model given; expected at least two"):
        robust((model,), stars[:20], **settings)
