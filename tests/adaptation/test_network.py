"""Encoder, projection and head in a row: the models' own numbers, from whichever stage one enters."""

import copy

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.adaptation.frozen import Frozen, prepared
from spectrakit.adaptation.network import first_stage
from spectrakit.errors import LabelError, MismatchError


@pytest.mark.parametrize("name", ["tiny", "tiny_aligned"])
def test_it_gives_what_the_model_predicts_also_with_masked_windows(name, stars):
    model = sk.load_model(name)
    flux, mask = prepared(model, stars[:20])
    mask[:, 300:340] = True
    masked = sk.SpectraSet(**{**vars(stars[:20]), "mask": mask.numpy()})
    with torch.no_grad():
        value = model.network("feh").eval()(*prepared(model, masked))
    np.testing.assert_allclose(value, model.predict(masked, "feh")[0], atol=2e-6)


@pytest.mark.parametrize("name", ["tiny", "tiny_aligned"])
def test_every_stage_goes_on_where_the_one_before_stopped(name, flux):
    network = sk.load_model(name).network("feh").eval()
    with torch.no_grad():
        for stage in (1, 2):
            assert torch.equal(network.run(*network.run(*flux, last=stage), first=stage)[0], network(*flux))


def test_it_is_a_copy(flux):
    for name in ("tiny", "tiny_aligned"):
        model = sk.load_model(name)
        before = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for weight in model.network("feh").parameters():
                weight.add_(1.0)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        with pytest.raises(LabelError, match="No head for 'age'; this model has: teff"):
            model.network("age")


def test_first_stage_is_that_of_the_first_part_named():
    assert first_stage(["base_model.model.encoder.blocks.0.attention.q.lora_A.lora1.weight", "head.linears.0"]) == 0
    assert first_stage(["projection.mlp.up.weight", "head.linears.0"]) == 1
    assert first_stage(["residual.0.weight"]) == first_stage([]) == 2


def test_frozen_parts_are_computed_once_and_known_by_their_content(stars, monkeypatch):
    model = sk.load_model("tiny_aligned")
    network, frozen, inputs = model.network("feh").eval(), Frozen(model), prepared(model, stars[:30])
    tokens, embedding = frozen(network, 1, *inputs), frozen(network, 2, *inputs)
    assert tokens[0].shape == (30, 147, 32) and tokens[1].shape == (30, 147)
    np.testing.assert_allclose(embedding[0], model.embed(stars[:30]), atol=1e-6)
    rows = [7, 3, 3, 29]
    part = frozen(network, 2, *(t[rows] for t in inputs))
    assert torch.equal(part[0], embedding[0][rows])
    more = frozen(network, 2, *prepared(model, stars[20:40]))[0]                 # ten of them are known
    np.testing.assert_allclose(more, model.embed(stars[20:40]), atol=1e-6)
    monkeypatch.setattr("spectrakit.adaptation.frozen._compute", lambda *a: pytest.fail("computed again"))
    assert torch.equal(frozen(network, 2, *prepared(model, stars[20:40]))[0], more)


def test_no_more_is_kept_than_there_is_room_for(stars):
    model = sk.load_model("tiny")
    network, frozen, inputs = model.network("feh").eval(), Frozen(model, max_bytes=100), prepared(model, stars[:5])
    assert torch.equal(frozen(network, 2, *inputs)[0], frozen(network, 2, *inputs)[0]) and not frozen._known
    with pytest.raises(MismatchError, match="computed by another model"):
        frozen.require(sk.load_model("tiny"))
