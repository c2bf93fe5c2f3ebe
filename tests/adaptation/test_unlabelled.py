"""Adapting without labels: the objective falls on spectra it has not seen, only what was asked for moves, and wrong uses are refused."""

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.placements import Placement
from spectrakit.adaptation.unlabelled import adapt_unlabelled
from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.alignment import info_nce


@pytest.fixture(scope="module")
def pairs():
    return sk.simulate_pairs("lamost_lrs", 96, seed=9)


def restored(encoder, stars, model):
    """Mean square error of hidden windows, the same ones in every call."""
    flux, _ = model.prepare(stars)
    with torch.no_grad():
        return float(encoder.masked_loss(flux, encoder.draw_chunks(len(flux), torch.Generator().manual_seed(3))))


@pytest.mark.parametrize("name", ["tiny", "tiny_aligned"])
def test_hidden_windows_of_unseen_spectra_are_restored_better(stars, name):
    """The target survey: the same stars with every line half as deep, which the encoder has never seen."""
    shallow = sk.SpectraSet(**{**vars(stars), "flux": 1 - 0.5 * (1 - stars.flux), "ivar": 4 * stars.ivar})
    model = sk.load_model(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    new = adapt_unlabelled(model, shallow[:64], seed=0, steps=40, lr=3e-3)
    assert type(new) is type(model) and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    moved = {k.replace("alignment.lrs", "encoder") for k, v in new.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"encoder.blocks.{i}.attention.{part}.weight" for i in range(2) for part in ("q", "kv", "out")}
    encoder = (lambda m: m.alignment.lrs) if name == "tiny_aligned" else (lambda m: m.encoder)
    assert restored(encoder(new), shallow[64:], model) < 0.97 * restored(encoder(model), shallow[64:], model)
    assert new.card.training["unlabelled"] == [{"spectra": 64, "kind": "SpectraSet", "placement": ["lora1"], "steps": 40, "seed": 0}]
    assert np.isfinite(new.predict(shallow[64:], "feh")[0]).all()


@pytest.mark.parametrize(("placement", "moved"), [(("lora3",), 3), (("lora1", "lora3"), 9)])
def test_pairs_that_were_not_seen_are_told_apart_better(pairs, placement, moved):
    model = sk.load_model("tiny_aligned")
    shifted = sk.Pairs(sk.SpectraSet(**{**vars(pairs.lrs), "flux": 1 - 0.5 * (1 - pairs.lrs.flux)}), pairs.xp)

    def loss(m):
        return float(info_nce(*(torch.as_tensor(m.embed(getattr(shifted[64:], side))) for side in ("lrs", "xp")), float(m.alignment.scale)))
    new = adapt_unlabelled(model, shifted[:64], placement=placement, seed=0, steps=25, batch=48, lr=1e-2)
    assert loss(new) < loss(model) - 0.05
    changed = [k for k, v in new.state_dict().items() if not torch.equal(v, model.state_dict()[k])]
    assert len(changed) == moved and all(k.startswith(("alignment.shared.lrs", "alignment.lrs")) for k in changed)


def test_same_seed_same_model_and_it_can_be_adapted_with_labels_next(stars):
    a, b = (adapt_unlabelled(sk.load_model("tiny"), stars[:20], seed=1, steps=5) for _ in range(2))
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    fit = sk.adapt(a, stars[:20], label="feh", placement=("lora2",), seed=0, steps=15)
    assert np.array_equal(fit.predict(stars[60:70], on=())[0], a.predict(stars[60:70], "feh")[0])


def test_windows_that_the_data_mask_are_not_asked_for(stars):
    mask = stars[:20].mask.copy()
    mask[:, 200:700] = True
    flux = np.where(mask, 1 + 50 * np.random.default_rng(0).normal(size=mask.shape), stars[:20].flux)
    sets = (sk.SpectraSet(**{**vars(stars[:20]), "mask": mask, "flux": f}) for f in (flux, stars[:20].flux))
    a, b = (adapt_unlabelled(sk.load_model("tiny"), s, seed=1, steps=3) for s in sets)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_what_cannot_be_learned_that_way(stars, pairs):
    tiny, aligned = sk.load_model("tiny"), sk.load_model("tiny_aligned")
    with pytest.raises(MismatchError, match=r"Without labels SpectraSet teach encoder only; this placement would train .*head.linears.0.*Use lora1\."):
        adapt_unlabelled(tiny, stars, placement=("lora1", "lora2"), seed=0)
    with pytest.raises(MismatchError, match="teach encoder only; this placement would train .*projection"):
        adapt_unlabelled(aligned, stars, placement=("lora3",), seed=0)
    with pytest.raises(MismatchError, match=r"Without labels Pairs teach encoder and projection only.*Use lora1 and lora3\."):
        adapt_unlabelled(aligned, pairs, placement=("lora4",), seed=0)
    with pytest.raises(MismatchError, match="would train"):
        adapt_unlabelled(tiny, stars, placement=("full",), seed=0)
    with pytest.raises(MismatchError, match="Pairs of spectra adapt an aligned model"):
        adapt_unlabelled(tiny, pairs, seed=0)
    with pytest.raises(MismatchError, match="These are Gaia XP spectra"):
        adapt_unlabelled(aligned, pairs.xp, seed=0)
    with pytest.raises(SpectrumError, match="1 spectra; at least 2"):
        adapt_unlabelled(tiny, stars[:1], seed=0)
    with pytest.raises(MismatchError, match="matches no Linear"):
        adapt_unlabelled(tiny, stars, placement=(Placement("x", ("decoder.*",), 2, 4, ""),), seed=0)
