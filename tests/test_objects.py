"""What is no star is never given stellar labels by any of the kit's ways to predict them, whatever file it came in."""

from dataclasses import replace

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.adaptation.fit import Fit
from spectrakit.errors import SpectrumError
from spectrakit.models.baselines import RidgePCA
from spectrakit.models.physical import PhysicalFit
from spectrakit.models.spectra_fm import PRESETS, SpectraFM, SpectraFMCard
from spectrakit.surveys import COMMON

KINDS = ("star", "", "galaxy", "sky", "unknown", "no object", "qso", "ambiguous")


@pytest.fixture(scope="module")
def mixed():
    """Sound stellar spectra, eight of them, that a survey calls all sorts of things: only the name can give them away."""
    stars = sk.normalize(sk.simulate("lamost_lrs", len(KINDS), seed=0))
    stars.labels["object_class"] = np.array(KINDS)
    return stars


def test_what_counts_as_a_star(mixed):
    assert sk.objects.is_star(mixed).tolist() == [True, True] + 6 * [False]
    plain = replace(mixed, labels=mixed.labels["star", "feh"])
    assert sk.objects.is_star(plain).all()
    sk.objects.require_stars(plain)
    sk.objects.require_stars(mixed[:2])
    with pytest.raises(SpectrumError, match=r"6 of 8 spectra are of no stars \(ambiguous: 1, galaxy: 1, no object: 1, qso: 1, sky: 1, unknown: 1; first in row 2\); "
                                            r"stellar labels of them would mean nothing. Choose the stars: stars\[sk.objects.is_star\(stars\)\]. If you know"):
        sk.objects.require_stars(mixed)


def ways():
    train = sk.normalize(sk.simulate("lamost_lrs", 12, seed=1))
    small, aligned, flux = (sk.load_model(name) for name in ("tiny", "tiny_aligned", "small_flux"))
    fit = sk.adapt(small, train, label="feh", placement=("lora2",), seed=0, steps=15)
    assert isinstance(fit, Fit)
    pixels = SpectraFM(SpectraFMCard(PRESETS["tiny"], "robust", (COMMON,), {}, {}, {"steps": 0}))
    ridge, physical = RidgePCA(n_components=3).fit(train, "feh"), PhysicalFit(n_starts=1).fit(train, "feh")
    return {"model": lambda s: small.predict(s, "feh"), "flux model": lambda s: flux.predict(s, "feh"), "aligned": lambda s: aligned.predict(s, "feh"),
            "adapted": fit.predict, "pixels as tokens": lambda s: pixels.predict(s, "feh"),
            "members": lambda s: (fit.members(s)[0], None), "baseline": ridge.predict, "physical": physical.predict,
            "fit_labels": lambda s: (PhysicalFit(n_starts=1).fit_labels(s)["feh"], None)}


def test_every_way_to_a_label_refuses_what_is_no_star(mixed):
    for name, predict in ways().items():
        assert len(predict(mixed[:2])[0]) == 2, name
        for row in range(2, len(KINDS)):
            with pytest.raises(SpectrumError, match=f"1 of 1 spectra are of no stars .{KINDS[row]}: 1"):
                predict(mixed[row])
        with pytest.raises(SpectrumError, match="6 of 8 spectra are of no stars"):
            predict(mixed)


def test_an_embedding_is_no_label(mixed):
    """How far a galaxy lies from all stars may be asked."""
    assert np.isfinite(sk.load_model("tiny").embed(mixed)).all()
