"""What the kit promises about real stars; the whole table is made by benchmarks/adaptation.py."""

import numpy as np
import pytest

import spectrakit as sk

pytestmark = pytest.mark.requires_data("miles")


@pytest.fixture(scope="module")
def stars():
    stars = sk.read("miles")
    stars = stars[stars.labelled("teff", "logg", "feh")]
    stars = stars[(stars.label("teff") > 4200) & (stars.label("teff") < 7000)]
    return sk.normalize(stars[sk.experiments.in_hull(stars)])


def test_404_miles_stars_lie_in_the_hull_60_of_them_metal_poor(stars):
    assert len(stars) == 404 and (stars.label("feh") < -1).sum() == 60


def test_zero_shot_on_real_stars(stars):
    score = sk.metrics.score(stars.label("feh"), sk.load_model("small").predict(stars, "feh")[0])
    assert score.sigma <= 0.165 and abs(score.bias) < 0.03 and score.r2 > 0.88, score


def test_89_labels_help(stars):
    model, zero, adapted = sk.load_model("small"), [], []
    for k, (train, valid, test) in enumerate(sk.experiments.splits(np.asarray(stars.labels["star"]), n_splits=4, seed=0)):
        fit = sk.adapt(model, stars[train], validation=stars[valid], label="feh", placement=("lora2",), seed=k)
        for figures, value in ((zero, model.predict(stars[test], "feh")[0]), (adapted, fit.predict(stars[test])[0])):
            figures.append(sk.metrics.score(stars[test].label("feh"), value))
    assert np.mean([s.sigma for s in adapted]) <= 0.145 and np.mean([s.r2 for s in adapted]) >= 0.90
    assert np.mean([s.sigma for s in adapted]) < np.mean([s.sigma for s in zero])
