"""The report: the labels are the models' own, planted faults are flagged, what is written comes back, and nothing is overwritten."""

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

import spectrakit as sk
from spectrakit.errors import DataFileError, MismatchError
from spectrakit.models.physical import PhysicalFit
from spectrakit.novelty import Pretrained, digest
from spectrakit.witnesses import library_spectra

PLANTED = ["sound", "sound", "galaxy", "sound", "gap", "faint", "nothing but noise", "other lines"]


@pytest.fixture(scope="module")
def models():
    return {"tiny": sk.load_model("tiny"), "flux": sk.load_model("small_flux")}


@pytest.fixture(scope="module")
def planted():
    """Raw simulated spectra of S/N 60, some spoiled in one way each."""
    declared = replace(sk.surveys.get_survey("lamost_lrs"), snr=(60.0, 60.0))
    labels = np.tile([5500.0, 4.2, -0.4, 0.1, 0.0], (len(PLANTED), 1))
    stars, rng = sk.simulate(declared, len(labels), seed=3, labels=labels), np.random.default_rng(0)
    stars.labels["object_class"] = np.array(["galaxy" if fault == "galaxy" else "star" for fault in PLANTED])
    flux, ivar, mask = stars.flux.astype("f8"), stars.ivar.astype("f8"), stars.mask.copy()
    mask[4, :600] = True
    noise = np.where(np.array(PLANTED) == "faint", 1 / 6, 0)[:, None] * rng.standard_normal(flux.shape)
    ivar[5] = 36
    flux[6] = 1 + ivar[6] ** -0.5 * rng.standard_normal(flux.shape[1])
    flux[7] *= 1 - 0.7 * np.exp(-0.5 * ((stars.wave[:, None] - np.arange(4050, 5600, 60)) / 4) ** 2).sum(1)
    return replace(stars, flux=flux + noise, ivar=ivar, mask=mask)


@pytest.fixture(scope="module")
def report(planted, models):
    return sk.report(planted, models)


def test_each_fault_is_flagged_and_sound_stars_are_not(report):
    flags = dict(zip(range(len(PLANTED)), report.table["flags"], strict=True))
    assert [flags[i] for i, fault in enumerate(PLANTED) if fault == "sound"] == ["", "", ""]
    assert flags[2] == "no star" and flags[4] == "too few usable pixels" and "S/N below 15" in flags[5]
    assert "far from pretraining" in flags[6] and "at the edge of the library" in flags[6]
    assert "library does not fit" in flags[7] and "far from pretraining" in flags[7]
    assert report.rows.tolist() == [0, 1, 3, 5, 6, 7]
    assert abs(report.table["snr"][0] - 60) < 3 and 5 < report.table["snr"][5] < 7


def test_labels_are_those_of_the_models_and_nothing_has_any_that_was_not_measured(report, planted, models):
    spectra = sk.normalize(planted[report.rows])
    for label in ("teff", "feh"):
        for name, model in models.items():
            value, sigma = model.predict(spectra, label)
            np.testing.assert_array_equal(report.table[f"{label}_{name}"][report.rows], value)
            np.testing.assert_array_equal(report.table[f"{label}_{name}_sigma"][report.rows], sigma)
    physical = PhysicalFit().fit_labels(spectra)
    np.testing.assert_allclose(report.table["c_fe_physical"][report.rows], physical["c_fe"])
    np.testing.assert_allclose(report.table["chi2"][report.rows], physical["chi2"])
    assert report.table["teff_tiny"].unit == "K"
    for row in (2, 4):
        assert all(np.isnan(report.table[name][row]) for name in report.table.colnames if name not in ("star", "flags"))
    worst = [max(abs(report.table[f"{x}_tiny"][i] - report.table[f"{x}_flux"][i]) / np.hypot(report.table[f"{x}_tiny_sigma"][i], report.table[f"{x}_flux_sigma"][i])
                 for x in ("teff", "logg", "feh", "alpha_fe")) for i in report.rows]
    assert (np.asarray(report.table["apart"])[report.rows] >= np.array(worst) - 1e-12).all()


def test_what_is_written_comes_back(report, tmp_path):
    folder = report.write(tmp_path / "mine" / "report")
    back = Table.read(folder / "labels.ecsv")
    assert back.colnames == report.table.colnames and back["logg_physical"].unit == "dex" and list(back["flags"].filled("")) == list(report.table["flags"])
    np.testing.assert_array_equal(back["feh_tiny"], report.table["feh_tiny"])
    assert (folder / "spectra.png").read_bytes()[:4] == b"\x89PNG" and (folder / "spectra.pdf").read_bytes()[:4] == b"%PDF"
    said = json.loads((folder / "provenance.json").read_text())
    assert said == report.provenance and said["spectra"]["origin"] == "simulated" and said["library"]["optical"] == sk.load_library().sha256
    assert said["models"]["tiny"]["sha256"] == digest(sk.load_model("tiny")) and said["software"]["numpy"] == np.__version__
    text = (folder / "report.md").read_text()
    assert text.startswith("# Labels of 8 spectra, 5 flagged") and "| galaxy" not in text and "| nan | no star | - , - , -".replace(" ,", ",") in text
    with pytest.raises(DataFileError, match="holds labels.ecsv, provenance.json, .* already, perhaps of other stars; nothing is overwritten. Choose another folder"):
        report.write(folder)


def test_citations_are_those_of_the_set(planted, models):
    measured = replace(planted[:1], noise="measured")
    assert sk.report(measured, models).provenance["cite"] == sk.cite("lamost_lrs")
    assert sk.report(planted[:1], models).provenance["cite"].startswith("% No manifest describes this set")


def test_no_star_among_them(planted, models, tmp_path):
    report = sk.report(planted[[2, 4]], models)
    assert len(report.rows) == 0 and list(report.table["flags"]) == ["no star", "too few usable pixels"] and "feh_tiny" in report.table.colnames
    with pytest.raises(DataFileError, match="None of the 2 spectra was measured, there is nothing to draw"):
        report.figure()
    assert not (report.write(tmp_path / "none") / "spectra.png").exists()


def test_spectra_of_another_frame_are_refused(planted, models):
    with pytest.raises(MismatchError, match="heliocentric frame, this model reads rest-frame ones"):
        sk.report(replace(planted[:1], frame="heliocentric"), models)


def test_the_limit_holds_for_fresh_pretraining_spectra_and_the_distance_is_mahalanobis(models):
    model = models["tiny"]
    known = Pretrained.of(model)
    fresh = sk.simulate("pretraining", 300, seed=77)
    far, limit = sk.novelty.distance(model, fresh)
    assert limit == known.limit and 0.95 < (far < limit).mean() <= 1.0
    z = model.embed(fresh[:5]).astype("f8") - known.mean
    np.testing.assert_allclose(far[:5] ** 2, [sum(x[i] * known.precision[i, j] * x[j] for i in range(len(x)) for j in range(len(x))) for x in z], rtol=1e-8)
    np.testing.assert_allclose(np.mean(far**2), len(known.mean), rtol=0.25)  # chi-square with as many degrees of freedom as dimensions, were they Gaussian


def test_the_reference_is_kept_for_the_same_weights_alone(models):
    model = models["tiny"]
    assert Pretrained.of(model) is Pretrained.of(sk.load_model("tiny"))
    other = sk.load_model("tiny")
    next(iter(other.parameters())).data[0] += 1e-3
    assert digest(other) != digest(model)


def test_the_library_is_laid_over_as_sharp_as_the_spectra():
    """Against a simulated MILES star without noise or errors at the same labels: another grid, medium and line spread on the way."""
    truth = np.array([[5800.0, 4.4, -0.5, 0.2, 0.0]])
    seen = sk.normalize(sk.simulate(replace(sk.surveys.get_survey("miles"), snr=(1e5, 1e5)), 1, seed=0, labels=truth, strength=0.0))
    over = library_spectra(truth, seen)
    assert np.std(over.flux - seen.flux) < 0.004 and np.std(library_spectra(truth, replace(seen, resolution=seen.resolution * 0.7)).flux - seen.flux) > 0.008
