"""The LoRA lab against the functions that it wires: what it shows is what they give, whatever is ticked, slid or trained."""

import re
import sys
from base64 import b64decode
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.adaptation.placements import PLACEMENTS
from spectrakit.errors import LabelError, MismatchError
from spectrakit.threads import one_thread
from spectrakit.widgets import LoraLab, lora_figure
from spectrakit.widgets.lora_figure import png

STEPS = 15

pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture(scope="module")
def stars(off_scale):
    """40 to train on and 40 to test."""
    return off_scale(80)


@pytest.fixture(scope="module")
def trained(stars):
    with one_thread():
        return {name: sk.adapt(sk.load_model(model), stars[:20], label="feh", placement=placement, seed=0, steps=STEPS) for name, model, placement in (
            ("spectrum", "tiny", ("lora1", "lora2")), ("aligned", "tiny_aligned", ("lora1", "lora3", "lora4")))}


@pytest.fixture
def lab(trained, stars):
    return LoraLab(dict(trained), stars[40:], stars[:40], steps=STEPS)


def plotted(figure):
    """Zero-shot and predicted values, from the points of the left panel; the right panel's text."""
    return *(line.get_ydata() for line in figure.axes[0].lines[:2]), figure.axes[2].texts[0].get_text()


def shown(lab) -> bytes:
    return b64decode(re.search(r"base64,([^\"]+)", lab.picture.value).group(1))


def words(lab) -> str:
    return unescape(re.search(r'alt="([^"]+)"', lab.picture.value).group(1))


def set_state(lab, name, ticked, rank, strength):
    lab.which.value = name
    for placement, row in lab.rows.items():
        if not row.box.disabled:
            row.box.value = placement in ticked
    for placement, k in rank.items():
        lab.rows[placement].rank.value = k
    lab.strength.value = strength


STATES = [("spectrum", ("lora1", "lora2"), {}, 1.0), ("spectrum", ("lora2",), {"lora2": 1}, 1.5), ("aligned", ("lora1", "lora4"), {"lora1": 2}, 0.6),
          ("aligned", ("lora3", "lora4"), {"lora3": 5, "lora4": 3}, 1.0), ("aligned", (), {}, 1.0)]


@pytest.mark.parametrize(("name", "on", "rank", "strength"), STATES, ids=str)
def test_what_is_shown_is_what_the_line_of_code_gives(lab, trained, stars, name, on, rank, strength):
    set_state(lab, name, on, rank, strength)
    test = stars[40:]
    value = trained[name].predict(test, on=on, rank=rank, strength=strength)[0]
    code = {"fits": trained, "test": test}
    exec(lab.code, code)
    assert np.array_equal(code["value"], value) and unescape(lab.line.value).count(lab.code) == 1
    twin = lab.static()
    zero, points, _ = plotted(twin)
    assert np.array_equal(points, value) and shown(lab) == png(twin)
    np.testing.assert_allclose(zero, trained[name].model.predict(test, "feh")[0], atol=2e-6)
    feh = test.label("feh")
    for regime, chosen in (("all", feh > -9), (">= -1", feh >= -1), ("< -1", feh < -1)):
        score = sk.metrics.score(feh[chosen], value[chosen], n_boot=200)
        assert f"{regime}, {score.n} stars: sigma {score.sigma:.3g} dex, bias {score.bias:+.3g}, R2 {score.r2:.2f}" in words(lab)
        low, high = score.sigma_interval
        row = f"{regime} {score.n} {score.sigma:.3f} [{low:.3f}, {high:.3f}] {score.bias:+.3f} {score.r2:.2f}"
        assert row in [" ".join(line.split()) for line in plotted(twin)[2].splitlines()]


def test_nothing_ticked_is_zero_shot(lab, trained, stars):
    for name, fit in trained.items():
        set_state(lab, name, (), {}, 1.0)
        _, points, text = plotted(lab.static())
        np.testing.assert_allclose(points, fit.model.predict(stars[40:], "feh")[0], atol=2e-6)
        assert lab.switches == {"on": (), "rank": {}, "strength": 1.0} and lab.strength.disabled and "there is no update to weaken" in lab.strength_note.value
        assert "zero-shot, no adapter acts" in words(lab) and re.search(r"^all +0 of [\d,]+ trained$", text, re.M)


def test_the_slider_lowers_the_rank_and_the_parameters_in_use(lab, trained, stars):
    lab.rows["lora2"].rank.value = 3
    _, points, text = plotted(lab.static())
    assert lab.switches["rank"] == {"lora2": 3} and np.abs(points - trained["spectrum"].predict(stars[40:])[0]).max() > 1e-4
    rows = trained["spectrum"].status(rank={"lora2": 3})
    assert re.search(r"^LoRA2 +3 +771 ", text, re.M) and "2,563 of 3,848 trained" in text
    assert rows.parameters.sum() == 2563 and rows[rows.placement == "lora2"].parameters.sum() == 771 == 3 * 2056 / 8
    lab.rows["lora1"].box.value = False
    _, _, text = plotted(lab.static())
    assert re.search(r"^LoRA1 +-  off$", text, re.M) and "771 of 3,848 trained" in text


def test_what_cannot_be_used_says_why(lab, trained, stars):
    rows = lab.rows
    assert list(rows) == ["lora1", "lora2", "lora3", "lora4"]
    assert [(r.box.value, r.box.disabled, r.rank.disabled, r.rank.value) for r in rows.values()] == [(True, False, False, 4), (True, False, False, 8)] + 2 * [
        (False, True, True, 1)]
    assert "lora4 is made for the projected embedding of an aligned pair; this network reads the mean" in unescape(rows["lora4"].note.value)
    rows["lora1"].box.value = False
    assert rows["lora1"].rank.disabled and "tick the box to choose one" in rows["lora1"].note.value and not rows["lora2"].rank.disabled
    lab.which.value = "aligned"
    assert rows["lora1"].box.value and rows["lora4"].rank.max == 8 and rows["lora2"].box.disabled
    assert "lora2 is made for the mean of the tokens; this network reads the projected embedding" in unescape(rows["lora2"].note.value)
    assert lab.trainer.stop.disabled and "Stop: nothing is being trained" in lab.trainer.note.value
    placements = (replace(PLACEMENTS["lora2"], rank=1, alpha=2), replace(PLACEMENTS["lora2"], name="gain", kind="ia3"))
    settings = {"label": "feh", "seed": 0, "steps": STEPS, "frozen": trained["spectrum"].frozen}
    odd = {p.name: sk.adapt(trained["spectrum"].model, stars[:12], placement=p, **settings) for p in placements}
    lab = LoraLab(odd, stars[40:])
    assert lab.rows["lora2"].rank.disabled and "trained with rank 1, nothing to lower" in lab.rows["lora2"].note.value
    assert lab.trainer.start.disabled and "give the lab labelled stars" in lab.trainer.note.value
    assert "This fit was trained without LoRA1." in lab.rows["lora1"].note.value and "Train it" not in lab.rows["lora1"].note.value
    lab.which.value = "gain"
    assert lab.rows["gain"].rank.disabled and "kind ia3 has no B A whose rank could be lowered" in lab.rows["gain"].note.value
    assert "trained without LoRA2" in lab.rows["lora2"].note.value and lab.code == 'value, sigma = fits["gain"].predict(test, on=("gain",))'


def test_only_the_encoder_makes_sliders_wait_for_the_release(lab):
    assert not lab.strength.continuous_update and not lab.rows["lora2"].rank.continuous_update
    lab.rows["lora1"].box.value = False
    assert lab.strength.continuous_update and lab.rows["lora2"].rank.continuous_update


def test_what_was_seen_is_not_computed_again(lab, monkeypatch):
    first = lab.picture.value
    lab.rows["lora2"].rank.value = 5
    second = lab.picture.value
    assert second != first
    monkeypatch.setattr("spectrakit.widgets.lora_lab.look", lambda *a, **k: pytest.fail("computed again"))
    for k, expected in ((8, first), (5, second)):
        lab.rows["lora2"].rank.value = k
        assert lab.picture.value == expected


def test_training_here_replaces_the_fit_and_its_code_repeats_it(lab, trained, stars):
    assert [text for text, _ in lab.trainer.what.options] == ["LoRA1", "LoRA2", "LoRA1 + LoRA2"] and lab.trainer.placement == ("lora1", "lora2")
    before, seen = lab.picture.value, []
    lab.trainer.what.value, lab.trainer.labels.value = ("lora2",), 30
    lab.trainer.bar.observe(lambda change: seen.append((change.new, lab.trainer.start.disabled, lab.trainer.stop.disabled)), "value")
    lab.trainer.start.click()
    lab.training.join()
    assert (5 * STEPS, True, False) in seen and not lab.trainer.start.disabled and lab.trainer.stop.disabled
    assert lab.fits["spectrum"] is not trained["spectrum"] and lab.fit.budget == 30 and lab.picture.value != before
    assert "this fit replaces fits[\"spectrum\"]" in unescape(lab.trainer.note.value)
    assert lab.rows["lora1"].box.disabled and "trained without LoRA1. Train it below." in lab.rows["lora1"].note.value
    code = {"fits": dict(trained), "test": stars[40:], "train": stars[:40], "sk": sk}
    exec(lab.code, code)
    assert lab.code.splitlines()[0] == ('fits["spectrum"] = sk.adapt(fits["spectrum"].model, train[:30], label="feh", placement=("lora2",), seed=0, steps=15)')
    np.testing.assert_allclose(code["value"], plotted(lab.static())[1], atol=1e-5)
    lab.which.value = "aligned"
    assert lab.code.startswith("value, sigma") and lab.trainer.placement == ("lora1", "lora3", "lora4") and len(lab.trainer.what.options) == 7


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_training_that_ends_early_leaves_the_old_fit(lab, trained, how, monkeypatch):
    def at_once(change):
        lab.trainer.stop.click()
    before = lab.picture.value, lab.code
    if how == "failed":
        monkeypatch.setattr("spectrakit.widgets.lora_lab.adapt", lambda *a, **k: 1 / 0)
    lab.trainer.what.value = ("lora2",)
    lab.trainer.bar.observe(at_once, "value")
    lab.trainer.start.click()
    lab.training.join()
    told = {"stopped": "Stopped. The old fit stays.", "failed": "ZeroDivisionError: division by zero The old fit stays."}[how]
    assert told in lab.trainer.note.value and not lab.trainer.start.disabled and lab.trainer.stop.disabled
    assert lab.fits == trained and (lab.picture.value, lab.code) == before and lab.trainer.bar.value < 5 * STEPS


def test_what_it_refuses(trained, stars):
    test = stars[40:]
    with pytest.raises(MismatchError, match="There is no fit to look at; expected e.g. {'spectrum': sk.adapt"):
        LoraLab({}, test)
    head = sk.adapt(trained["spectrum"].model, stars[:12], label="feh", placement="head", seed=0, steps=STEPS, frozen=trained["spectrum"].frozen)
    with pytest.raises(MismatchError, match=r"mine trains weights themselves \('head'\): it has no adapter to switch"):
        LoraLab({"mine": head}, test)
    with pytest.raises(MismatchError, match="different labels: a: feh, b: teff. Give each label a lab of its own"):
        LoraLab({"a": trained["spectrum"], "b": replace(trained["aligned"], label="teff")}, test)
    with pytest.raises(LabelError, match="9 training stars; at least 10 are needed to train here"):
        LoraLab(dict(trained), test, stars[:9])
    with pytest.raises(MismatchError, match="This fit has no placement 'lora3'"):
        lora_figure(trained["spectrum"], test, on=("lora3",))


def test_the_twin_needs_no_ipywidgets(monkeypatch, trained, stars):
    for module in [m for m in sys.modules if m.startswith("spectrakit.widgets.lora_") and not m.endswith("figure")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert sk.widgets.lora_figure(trained["spectrum"], stars[40:50], on=("lora2",)).axes
    with pytest.raises(ImportError, match="LoraLab needs ipywidgets: pip install 'spectrakit\\[notebooks\\]'. Its figure does not"):
        _ = sk.widgets.LoraLab
