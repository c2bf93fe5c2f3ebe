"""Adapters of a finished fit switched off, weakened, lowered in rank: against networks whose weights were put together by hand with numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.adapters import load
from spectrakit.adaptation.placements import PLACEMENTS
from spectrakit.errors import MismatchError
from spectrakit.threads import one_thread


@pytest.fixture(scope="module")
def fit(stars):
    """All that a tiny aligned pair can have, trained for 30 steps."""
    with one_thread():
        fit = sk.adapt(sk.load_model("tiny_aligned"), stars[:30], label="feh", placement=("lora1", "lora3", "lora4"), seed=0, steps=30)
    assert fit.steps > 0
    return fit


def by_hand(fit, stars, on, rank=None, strength=1.0):
    """Predictions of plain networks with W + strength alpha / rank (B A, truncated by numpy) in them; no peft."""
    rank, values = rank or {}, []
    for state in fit.states:
        network = fit.model.network(fit.label).eval()
        for key in [k for k in state if ".lora_A." in k]:
            module, name = key.removeprefix("base_model.model.").split(".lora_A.")
            name = name.removesuffix(".weight")
            if name in on:
                U, S, Vh = np.linalg.svd(state[key.replace("lora_A", "lora_B")].double().numpy() @ state[key].double().numpy(), full_matrices=False)
                S[rank.get(name, len(S)):] = 0
                with torch.no_grad():
                    network.get_submodule(module).weight += torch.as_tensor(strength * 2 * (U * S) @ Vh, dtype=torch.float32)
        with torch.no_grad():
            values.append(network(*fit.model.prepare(stars)))
    return torch.stack(values).mean(0).numpy()


@pytest.mark.parametrize("switches", [
    {}, {"on": ("lora4",)}, {"on": ("lora1", "lora3")}, {"rank": {"lora4": 2}}, {"rank": {"lora1": 1, "lora3": 3, "lora4": 0}}, {"strength": 0.4},
    {"on": "lora3", "rank": {"lora3": 5}, "strength": 1.7}], ids=str)
def test_predictions_are_those_of_weights_put_together_by_hand(fit, stars, switches):
    test, zero = stars[60:80], fit.model.predict(stars[60:80], "feh")[0]
    on = switches.get("on", ("lora1", "lora3", "lora4"))
    expected = by_hand(fit, test, on, switches.get("rank"), switches.get("strength", 1.0))
    assert np.abs(expected - zero).max() > 0.005
    np.testing.assert_allclose(fit.predict(test, **switches)[0], expected, atol=1e-4)


def test_all_off_is_zero_shot_and_all_on_is_as_trained(fit, stars):
    test = stars[60:80]
    zero = fit.model.predict(test, "feh")[0]
    for switches in ({"on": ()}, {"strength": 0}, {"rank": dict.fromkeys(("lora1", "lora3", "lora4"), 0)}):
        np.testing.assert_allclose(fit.predict(test, **switches)[0], zero, atol=2e-6)
    value, sigma = fit.predict(test)
    again = fit.predict(test, on=("lora1", "lora3", "lora4"), rank={"lora1": 4, "lora3": 16, "lora4": 8}, strength=1)
    assert np.array_equal(again[0], value) and np.array_equal(again[1], sigma)


def test_the_stored_weights_stay_as_they_are(fit, stars):
    before = [{k: v.clone() for k, v in state.items()} for state in fit.states]
    value = fit.predict(stars[60:70])[0]
    fit.predict(stars[60:70], on=("lora1",), rank={"lora1": 2}, strength=0.5)
    fit.status(rank={"lora4": 1})
    assert all(torch.equal(a[k], b[k]) for a, b in zip(fit.states, before, strict=True) for k in b)
    assert np.array_equal(fit.predict(stars[60:70])[0], value)


def test_status_counts_ranks_and_norms(fit):
    table = fit.status()
    assert list(table.columns) == ["placement", "module", "kind", "rank", "alpha", "parameters", "norm", "on", "share"]
    assert len(table) == 6 + 3 + 4 and table.on.all() and set(table.kind) == {"lora"}
    assert table.groupby("placement")["rank"].first().to_dict() == {"lora1": 4, "lora3": 16, "lora4": 8}
    assert table.parameters.sum() == fit.n_trained == sum(v.numel() for v in fit.states[0].values())
    network = fit.model.network("feh")
    head = sum(p.numel() for p in network.head.parameters())
    own = table[table.placement == "lora4"]
    assert own.share.sum() == pytest.approx(own.parameters.sum() / (head + own.parameters.sum()))
    row = table[table.module == "projection.mlp.up"].iloc[0]
    key = "base_model.model.projection.mlp.up.lora_{}.lora3.weight"
    updates = [2 * s[key.format("B")].double().numpy() @ s[key.format("A")].double().numpy() for s in fit.states]
    assert row.norm == pytest.approx(np.mean([np.linalg.norm(u) for u in updates]), rel=1e-6)
    lower = fit.status(on=("lora3",), rank={"lora3": 2}, strength=0.5)
    kept = np.mean([0.5 * np.sqrt((np.linalg.svd(u, compute_uv=False)[:2] ** 2).sum()) for u in updates])
    row = lower[lower.module == "projection.mlp.up"].iloc[0]
    assert row["rank"] == 2 and row.norm == pytest.approx(kept, rel=1e-5) and row.parameters == 2 * (16 + 64)
    assert set(lower[lower.on].placement) == {"lora3"}


@pytest.mark.parametrize("kind", ["dora", "pissa", "vera", "ia3", "oft"])
def test_other_kinds_have_the_same_switches_and_their_norm_is_that_of_the_merged_weight(stars, kind):
    fit = sk.adapt(sk.load_model("tiny"), stars[:20], label="feh", placement=(replace(PLACEMENTS["lora2"], kind=kind),), seed=0, steps=15, lr=0.02)
    test, zero = stars[60:80], fit.model.predict(stars[60:80], "feh")[0]
    half, whole = (fit.predict(test, strength=s)[0] for s in (0.5, 1.0))
    assert np.array_equal(fit.predict(test, on=())[0], zero) and np.abs(whole - zero).max() > 1e-3
    assert np.abs(half - zero).max() < np.abs(whole - zero).max()
    status = fit.status().set_index("module")
    merged, base = [], fit.model.network("feh").head.linears[1].weight
    for state in fit.states:
        load(fit.network, state)
        layer = fit.network.base_model.model.head.linears[1]
        with torch.no_grad():
            merged.append(float(((layer(torch.eye(64)) - layer(torch.zeros(1, 64))).T - base).norm()))
    assert status.norm["head.linears.1"] == pytest.approx(np.mean(merged), rel=1e-3)
    if kind in ("dora", "pissa"):
        assert not np.array_equal(fit.predict(test, rank={"lora2": 1})[0], whole)
        assert status["rank"].unique().tolist() == [8 if kind == "dora" else 16]
    else:
        with pytest.raises(MismatchError, match=f"lora2 is of kind '{kind}', which has no B A whose rank could be lowered"):
            fit.predict(test, rank={"lora2": 1})


def test_switches_that_are_not_there(fit, stars):
    for call in (fit.predict, lambda s, **k: fit.status(**k)):
        with pytest.raises(MismatchError, match="This fit has no placement 'lora2'; it has: lora1, lora3, lora4. Train it"):
            call(stars[:3], on=("lora2",))
        with pytest.raises(MismatchError, match="no placement 'lora2'"):
            call(stars[:3], rank={"lora2": 2})
        with pytest.raises(MismatchError, match="Rank 9 of an adapter that was trained with rank 8.*train again"):
            call(stars[:3], rank={"lora4": 9})
        with pytest.raises(MismatchError, match="strength is nan; expected a finite number"):
            call(stars[:3], strength=float("nan"))
    full = sk.adapt(sk.load_model("tiny"), stars[:20], label="feh", placement=("head",), seed=0, steps=15)
    with pytest.raises(MismatchError, match="'head' trains weights themselves: there is no adapter to switch"):
        full.predict(stars[:3], strength=0.5)
    row = full.status().iloc[0]
    assert (row.placement, row.module, row.parameters) == ("head", "head", full.n_trained) and row.norm > 0
