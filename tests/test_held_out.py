"""Held-out models: computed spectra, in no emulator, used as the truth."""

import numpy as np
import pytest
import torch

import spectrakit as sk
from spectrakit.errors import LabelError, MismatchError
from spectrakit.held_out import load_held_out
from spectrakit.library import SCALE, coordinates, load_library

EACH = pytest.mark.parametrize("name", ["optical", "xp", "hband"])


@EACH
def test_no_held_out_model_is_a_node_of_the_emulator(name):
    """And the emulator, which passes through its nodes exactly, therefore does not pass through these."""
    models, library = load_held_out(name), load_library(name)
    assert models.library_sha256 == library.sha256
    assert models.opacity.shape == (len(models.labels), len(library.wave))
    distance = torch.cdist(coordinates(torch.as_tensor(models.labels)), library.tensors["nodes"])
    assert distance.min() > 1e-3 / max(SCALE)
    error = (library.flux_unchecked(torch.as_tensor(models.labels)) - torch.exp(-models.opacity)).abs()
    assert (error.amax(1) > 1e-4).all()
    assert error.median() < 0.01


@EACH
def test_they_are_a_tenth_in_number(name):
    n_held, n_nodes = len(load_held_out(name).labels), len(load_library(name).tensors["nodes"])
    assert n_held == len(range(3, n_held + n_nodes, 10))


def test_surveys_see_them_equally_often_and_by_name():
    models = load_held_out("optical")
    n = 2 * len(models.labels)
    stars = sk.simulate("desi", n, seed=0, models="held_out")
    names, count = np.unique(np.asarray(stars.labels["star"]), return_counts=True)
    assert len(names) == len(models.labels)
    assert (count == 2).all()
    row = {f"model{i:04d}": labels for i, labels in zip(models.index, models.labels, strict=True)}
    for star, teff, feh in zip(stars.labels["star"], stars.label("teff"), stars.label("feh"), strict=True):
        assert (teff, feh) == pytest.approx(tuple(row[str(star)][[0, 2]]))
    assert stars.provenance["origin"] == "simulated from held-out models"


def test_splits_keep_spectra_of_one_model_together():
    stars = sk.simulate("desi", 3 * len(load_held_out("optical").labels), seed=0, models="held_out")
    star = np.asarray(stars.labels["star"])
    for part in sk.experiments.splits(star, n_train=8, n_valid=3, n_splits=3, seed=0):
        assert not set(star[part.train]) & set(star[part.test])


def test_perfect_instrument_shows_the_model_itself():
    """Without systematics the spectrum is the stored one, broadened: far from the emulator's only where the emulator errs."""
    kind = dict(strength=0.0, seed=3)
    truth = sk.simulate("miles", 10, models="held_out", **kind)
    labels = np.stack([truth.label(k) for k in ("teff", "logg", "feh", "alpha_fe", "c_fe")], 1)
    library = load_library()
    inside = library.contains(torch.as_tensor(labels)).numpy()
    twin = sk.simulate("miles", int(inside.sum()), labels=labels[inside], **kind)
    assert np.median(np.abs(truth.flux[inside] - twin.flux)) < 0.03


def test_wrong_requests_are_refused():
    with pytest.raises(MismatchError, match="models='true'; expected 'emulator' or 'held_out'."):
        sk.simulate("desi", 3, seed=0, models="true")
    with pytest.raises(LabelError, match="Held-out models have labels of their own"):
        sk.simulate("desi", 1, seed=0, models="held_out", labels=np.array([[5777.0, 4.4, 0, 0, 0]]))
