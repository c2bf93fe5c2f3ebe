"""Boosted trees, a specialist network and components, against direct use of the libraries and closed forms."""

import sys

import numpy as np
import pytest

from spectrakit.errors import LabelError, SpectrakitError
from spectrakit.stars.inputs import Answers
from spectrakit.stars.rivals import KEPT_ASIDE, Components, Trees
from spectrakit.stars.specialist import Specialist

NAMES = ("bp0", "bp1", "rp0")
RIVALS = {"trees": lambda outputs: Trees(NAMES, outputs, n_trees=30), "components": lambda outputs: Components(NAMES, outputs),
          "specialist": lambda outputs: Specialist(NAMES, outputs, steps=250, batch=128)}


@pytest.fixture(scope="module")
def stars():
    """teff is linear in the inputs with an error of 20 K, logg is without; a tenth of bp1 is missing, and a few labels."""
    rng = np.random.default_rng(3)
    known = {name: rng.normal(size=2000) for name in NAMES}
    teff = 5000 + 500 * known["bp0"] - 300 * known["rp0"] + 20 * rng.normal(size=2000)
    known["bp1"][rng.random(2000) < 0.1] = np.nan
    teff[:5] = np.nan
    return known, {"teff": teff, "logg": 3 + known["bp0"]}


def part(known, rows):
    return {name: value[rows] for name, value in known.items()}


@pytest.mark.parametrize("name", RIVALS)
def test_a_linear_law_is_learned(name, stars):
    if name == "trees":
        pytest.importorskip("xgboost")
    known, wanted = stars
    model = RIVALS[name](("teff", "logg")).fit(part(known, slice(0, 1500)), part(wanted, slice(0, 1500)))
    value, sigma = model.request(part(known, slice(1500, None)), ["logg", "teff"])["teff"]
    residual = value - wanted["teff"][1500:]
    most = {"trees": 120.0, "components": 25.0, "specialist": 50.0}[name]
    assert isinstance(model, Answers) and residual.std() < most and value.dtype == np.float64
    assert 0.5 < (np.abs(residual) < sigma).mean() < 0.85 and sigma.shape == value.shape


def test_trees_are_xgboost_on_standardised_stars(stars):
    xgboost = pytest.importorskip("xgboost")
    known, wanted = stars
    value = Trees(NAMES, ("teff", "logg"), seed=4, n_trees=30).fit(known, wanted).request(known, ["teff"])["teff"][0]
    complete = np.isfinite(wanted["teff"])
    x, y = np.stack([known[name] for name in NAMES], 1), np.stack([wanted[name] for name in ("teff", "logg")], 1)[complete]
    centre = np.median(y, 0)
    spread = 1.4826 * np.median(np.abs(y - centre), 0)
    direct = xgboost.XGBRegressor(n_estimators=30, random_state=4, n_jobs=1).fit(x[complete], (y - centre) / spread)      # trees do not care for the scale of inputs
    assert value == pytest.approx(direct.predict(x)[:, 0] * spread[0] + centre[0], abs=1.0)
    assert Trees(NAMES, ("teff",)).n_trees == 2000


def test_components_are_the_regression(stars):
    from sklearn.linear_model import LinearRegression
    known, wanted = stars
    known = {**known, "bp1": np.nan_to_num(known["bp1"])}
    rows = np.isfinite(wanted["teff"])
    model = Components(NAMES, ("teff",)).fit(known, wanted)
    x = np.stack([known[name] for name in NAMES], 1)
    whole = LinearRegression().fit(x[rows], wanted["teff"][rows]).predict(x)
    assert model.n_components == 3 and model.request(known, ["teff"])["teff"][0] == pytest.approx(whole, abs=1e-6)
    sigma = model.request(known, ["teff"])["teff"][1]
    assert np.ptp(sigma) == 0 and KEPT_ASIDE == 0.1


def test_the_specialist_takes_label_errors_out_of_its_sigma(stars):
    known, wanted = stars
    rng, error = np.random.default_rng(0), np.full(2000, 400.0)
    noisy = {"teff": wanted["teff"] + error * rng.normal(size=2000)}
    told = Specialist(NAMES, ("teff",), steps=250, batch=128).fit(known, noisy, {"teff": error}).request(known, ["teff"])["teff"][1]
    untold = Specialist(NAMES, ("teff",), steps=250, batch=128).fit(known, noisy).request(known, ["teff"])["teff"][1]
    assert 330 < np.median(untold) < 470 and np.median(told) < 0.7 * np.median(untold)


def test_rivals_refuse_other_tasks(stars):
    known, wanted = stars
    model = Components(NAMES, ("teff",))
    with pytest.raises(SpectrakitError, match=r"This Components is not fitted yet; call fit\(known, wanted\) first."):
        model.request(known, ["teff"])
    with pytest.raises(LabelError, match="No 'rp0' to learn from"):
        model.fit({name: known[name] for name in NAMES[:2]}, wanted)
    with pytest.raises(LabelError, match="2 of 7 stars have all of teff; at least 50 are needed"):
        model.fit(part(known, slice(0, 7)), part(wanted, slice(0, 7)))
    model.fit(known, wanted)
    with pytest.raises(LabelError, match="made for 3 inputs .*; 'logg' does not fit. Make another one"):
        model.request(known, ["logg"])
    with pytest.raises(LabelError, match="'bp9' does not fit"):
        model.request({**known, "bp9": known["bp0"]}, ["teff"])


def test_without_xgboost_trees_say_what_to_install(stars, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ImportError, match=r"pip install 'spectrakit\[trees\]'"):
        Trees(NAMES, ("teff",)).fit(*stars)
