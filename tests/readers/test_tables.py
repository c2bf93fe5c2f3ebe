"""Plain CSV and npz files: what is stated is what is read, and what is not stated is asked for; and any specutils Spectrum."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from spectrakit.errors import DataFileError, LabelError, MismatchError, SpectrumError
from spectrakit.readers import read, tables
from spectrakit.readers.container import Source


def change(stated, **columns):
    return {**stated, "columns": {**stated["columns"], **columns}}


def test_a_csv_is_one_spectrum_in_stated_units(build, put):
    star = read(put(build.plain_csv(), "mine.csv"), **build.CSV)
    np.testing.assert_allclose(star.wave, 5000 + np.arange(30))
    np.testing.assert_allclose(star.flux, 1 + 0.01 * np.arange(30)[None])
    np.testing.assert_allclose(star.ivar, 400)
    assert (star.survey, star.medium, star.frame, star.normalization, star.noise) == ("mine", "air", "heliocentric", "none", "measured")
    assert (star.resolution == 2000).all() and star.labels["spectrum"][0] == "mine" and star.provenance["units"]["flux"].startswith("1e-17 erg")


def test_flux_is_converted_and_its_errors_with_it(build, put):
    unit = "W / (m2 nm)"
    star = read(put(build.plain_csv(), "x.csv"), **change(build.CSV, flux=("f", unit), sigma=("err", unit)))
    factor = (1 * u.Unit(unit)).to_value("1e-17 erg / (s cm2 Angstrom)")
    np.testing.assert_allclose(star.flux[0, 0], factor)
    np.testing.assert_allclose(star.ivar[0, 0], (0.05 * factor) ** -2)
    mixed = read(put(build.plain_csv(), "x.csv"), **change(build.CSV, sigma=("err", "2e-17 erg / (s cm2 Angstrom)")))
    np.testing.assert_allclose(mixed.ivar[0, 0], 100)


def test_an_npz_is_many_spectra_with_labels(build, put):
    stars = read(put(build.plain_npz(), "set.npz"), **build.NPZ)
    assert stars.flux.shape == (3, 20) and list(stars.labels["star"]) == ["a", "b", "a"] and list(stars.labels["spectrum"]) == ["set[0]", "set[1]", "set[2]"]
    np.testing.assert_array_equal(stars.labels["teff"], [5000, 5500, np.nan])
    assert stars.labels["teff"].unit == "K" and stars.provenance["units"]["flux"] == "dimensionless"
    ivar = {k: v for k, v in build.NPZ["columns"].items() if k != "sigma"} | {"ivar": ("i", ""), "mask": ("m", None)}
    mask = np.zeros((3, 20), int)
    mask[2, 5] = 7
    masked = read(put(build.plain_npz(i=np.full((3, 20), 9.0), m=mask), "set.npz"), **{**build.NPZ, "columns": ivar})
    assert np.argwhere(masked.mask).tolist() == [[2, 5]] and masked.ivar[0, 0] == 9


def test_nothing_is_guessed(build, put):
    path = put(build.plain_csv(), "x.csv")
    with pytest.raises(DataFileError, match="x.csv is a plain table, which does not say what its numbers mean; state columns, survey, medium, frame, resolution, "
                                            "normalization. Example: read"):
        read(path)
    with pytest.raises(DataFileError, match="; state medium, resolution. Example"):
        read(path, **{k: v for k, v in build.CSV.items() if k not in ("medium", "resolution")})
    with pytest.raises(DataFileError, match="; redshift is no keyword here"):
        read(path, **build.CSV, redshift=0)


WRONG = {
    "wave unit": (dict(wave=("lambda", "Hz")), MismatchError, "The unit of \"wave\" is 'Hz'; expected a length"),
    "no unit": (dict(wave=("lambda", None)), MismatchError, 'The unit of "wave" is None; expected one that astropy knows'),
    "unknown unit": (dict(flux=("f", "fluxons")), MismatchError, "The unit of \"flux\" is 'fluxons'; expected one that astropy knows"),
    "per frequency": (dict(flux=("f", "Jy"), sigma=("err", "Jy")), MismatchError, "\"flux\" is 'Jy', per frequency; expected flux per wavelength"),
    "sigma's unit": (dict(sigma=("err", "K")), MismatchError, "The unit of \"sigma\" is 'K'; expected 1e-17 erg"),
    "both errors": (dict(ivar=("err", "")), DataFileError, "columns names wave, flux, sigma, ivar; expected wave, flux, one of sigma and ivar"),
    "a bare name": (dict(flux="f"), DataFileError, r"'flux' is 'f'; expected \(column, unit\)"),
    "no such column": (dict(flux=("g", "1e-17 erg / (s cm2 Angstrom)")), DataFileError, "x.csv has no column 'g'; it has: lambda, f, err"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_stated_wrongly_is_named(build, put, case):
    columns, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        read(put(build.plain_csv(), "x.csv"), **change(build.CSV, **columns))


def test_a_table_without_errors_is_refused(build, put):
    columns = {k: v for k, v in build.CSV["columns"].items() if k != "sigma"}
    with pytest.raises(DataFileError, match="Without errors a spectrum cannot be weighted: state one, the kit does not invent it"):
        read(put(build.plain_csv(), "x.csv"), **{**build.CSV, "columns": columns})


def test_labels_are_checked(build, put):
    path = put(build.plain_npz(), "x.npz")
    with pytest.raises(MismatchError, match="Label 'teff' is stated in 'degC'; expected K"):
        read(path, **{**build.NPZ, "labels": {"teff": ("t", "degC")}})
    with pytest.raises(DataFileError, match=r"x.npz: label 'teff' has shape \(20,\); expected \(3,\)"):
        read(path, **{**build.NPZ, "labels": {"teff": ("w", "K")}})
    with pytest.raises(DataFileError, match="x.npz has no column 'q'; it has: w, f, e, t, id"):
        read(path, **{**build.NPZ, "labels": {"star": ("q", None)}})
    classes = read(put(build.plain_npz(id=np.array(["star", "star", "star"])), "y.npz"), **{**build.NPZ, "labels": {"object_class": ("id", None)}})
    assert list(classes.labels["object_class"]) == ["star"] * 3


def test_medium_and_frame_are_checked(build, put):
    with pytest.raises(MismatchError, match="frame is 'topocentric'; expected one of 'rest', 'heliocentric'"):
        read(put(build.plain_csv(), "x.csv"), **{**build.CSV, "frame": "topocentric"})


def test_text_where_numbers_should_be_is_named(build, put):
    with pytest.raises(DataFileError, match="x.csv: column 'f' is not numbers"):
        read(put(build.plain_csv().replace(b"1.0500", b"high"), "x.csv"), **build.CSV)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=20), st.floats(0.1, 10))
def test_a_table_comes_back_as_it_was(values, sigma):
    content = {"w": 500 + 0.1 * np.arange(len(values)), "f": np.array(values), "e": np.full(len(values), sigma)}
    stated = {"columns": {"wave": ("w", "nm"), "flux": ("f", "ct"), "sigma": ("e", "ct")}, "survey": "x", "medium": "air", "frame": "rest",
              "resolution": 10.0, "normalization": "none"}
    star = tables.read(Source(Path("x.csv"), "", b""), content, stated)
    np.testing.assert_array_equal(star.flux[0], values)
    np.testing.assert_allclose(star.ivar, sigma**-2.0)


@pytest.fixture
def spectrum():
    from astropy.nddata import StdDevUncertainty
    specutils = pytest.importorskip("specutils")
    return specutils.Spectrum(flux=np.linspace(1, 2, 30) * u.Unit("erg / (s cm2 AA)"), spectral_axis=np.linspace(500, 503, 30) * u.nm,
                              uncertainty=StdDevUncertainty(np.full(30, 0.1)))


ABOUT = {"survey": "x", "medium": "air", "frame": "rest", "resolution": 1000.0, "normalization": "none"}


def test_any_specutils_spectrum(spectrum):
    star = read(spectrum, labels=Table({"star": ["a"]}), **ABOUT)
    np.testing.assert_allclose(star.wave, np.linspace(5000, 5030, 30))
    np.testing.assert_allclose(star.ivar, 100)
    assert star.survey == "x" and list(star.labels["star"]) == ["a"]


def test_a_spectrum_needs_what_it_does_not_know(spectrum):
    with pytest.raises(DataFileError, match="A Spectrum needs the keywords labels, survey, medium, frame, resolution, normalization, .*; given: survey"):
        read(spectrum, survey="x")
    with pytest.raises(SpectrumError, match=r"are no stars \(galaxy: 1"):
        read(spectrum, labels=Table({"object_class": ["galaxy"]}), **ABOUT)
    with pytest.raises(LabelError, match="2 rows of labels for 1 spectra"):
        read(spectrum, labels=Table({"star": ["a", "b"]}), **ABOUT)
