"""From a file of the wrong kind to a model: an SDSS galaxy, a sky fibre of a DESI coadd, a LAMOST galaxy, the surveys' own and built ones."""

import numpy as np
import pytest

import spectrakit as sk
from spectrakit.errors import SpectrumError
from spectrakit.readers import read

N = 2000  # pixels, so that the model's window is covered and nothing but the class can stop the spectrum


@pytest.fixture(scope="module")
def model():
    return sk.load_model("tiny")


def rest(spectra):
    return spectra if spectra.frame == "rest" else spectra.to_rest(np.nan_to_num(np.asarray(spectra.labels["z"])) if "z" in spectra.labels.colnames else 0.0)


def files(build):
    rng = np.random.default_rng(0)
    long = lambda n: rng.normal(20, 1, n)                                                                               # noqa: E731
    arms = {"B": (3600.0, 2751)}
    fibres = {"fluxes": {"B": 20 + rng.normal(0, 1, (4, 2751))}, "ivars": {"B": np.ones((4, 2751))}}
    lamost = {"rows": {"FLUX": long(N + 300), "IVAR": np.ones(N + 300)}, "n": N + 300}
    return {"sdss galaxy": (build.sdss(n=N, **{"class": "GALAXY"}), "galaxy: 1"), "sdss quasar": (build.sdss(n=N, **{"class": "QSO"}), "qso: 1"),
            "lamost galaxy": (build.lamost(CLASS="GALAXY", **lamost), "galaxy: 1"), "lamost sky": (build.lamost(FIBERTYP="SKY", **lamost), "sky: 1"),
            "desi": (build.desi(arms=arms, **fibres), "galaxy: 1, qso: 1, sky: 1")}


@pytest.mark.parametrize("name", ["sdss galaxy", "sdss quasar", "lamost galaxy", "lamost sky", "desi"])
def test_no_label_for_what_is_no_star(build, put, model, name):
    content, kinds = files(build)[name]
    path = put(content)
    with pytest.raises(SpectrumError, match=rf"are no stars \({kinds}"):
        read(path)
    spectra = rest(read(path, objects="all"))
    for asked in (spectra, sk.normalize(spectra)):
        with pytest.raises(SpectrumError, match=rf"spectra are of no stars \({kinds}"):
            model.predict(asked, "feh")
    star = spectra[sk.objects.is_star(spectra)]
    assert len(model.predict(star, "feh")[0]) == len(star) == (1 if name == "desi" else 0)


def test_the_surveys_own_galaxies(raw, model):
    galaxy = read(raw("coadd-4-80613-thru20210324.fits"), objects="all").to_rest(0.0)
    with pytest.raises(SpectrumError, match=r"1 of 1 spectra are of no stars \(galaxy: 1; first in row 0\)"):
        model.predict(galaxy, "teff")


@pytest.mark.requires_data("lamost_lrs")
def test_the_galaxies_among_lamosts_stars(model):
    spectra = read("lamost_lrs")
    with pytest.raises(SpectrumError, match=r"11 of 420 spectra are of no stars \(galaxy: 6, unknown: 5"):
        model.predict(spectra.to_rest(0.0), "feh")
