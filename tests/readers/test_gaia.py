"""Gaia XP: the raw files in all four formats, against GaiaXPy and the archive's own sampling."""

import contextlib
import io
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from spectrakit.errors import DataFileError
from spectrakit.readers import container, gaia, read

FORMATS = ["XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW.ecsv", "XP_CONTINUOUS_RAW.fits", "XP_CONTINUOUS_RAW.xml"]
MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP.csv"
NOWHERE = container.Source(Path("x.csv"), "", b"")


@pytest.fixture(scope="module")
def calibrated():
    """GaiaXPy's own answer for a file: flux and error (n, 343), W / (m2 nm)."""
    with matplotlib.rc_context():                                            # which the import changes
        gaiaxpy = pytest.importorskip("gaiaxpy", reason="needs gaiaxpy")

    def answer(path):
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spectra, grid = gaiaxpy.calibrate(str(path), sampling=np.arange(336, 1021, 2.0), save_file=False)
        assert grid.size == 343
        return np.stack(spectra["flux"]), np.stack(spectra["flux_error"])

    return answer


@pytest.mark.parametrize("name", [*FORMATS, MISSING_BP])
def test_continuous_spectra_are_those_of_gaiaxpy(raw, calibrated, name):
    path = raw(name)
    stars, (flux, error) = read(path), calibrated(path)
    good = ~stars.mask
    np.testing.assert_array_equal(good, np.isfinite(flux))
    np.testing.assert_allclose(stars.flux[good], flux[good], rtol=1e-9, atol=1e-9 * np.nanmax(flux))
    np.testing.assert_allclose(stars.ivar[good] ** -0.5, error[good], rtol=2e-6)  # errors and correlations are float32 in some formats


@pytest.mark.parametrize("name", FORMATS)
def test_four_figures_of_gaiaxpy(raw, name):
    """What GaiaXPy 2.1.5 gives for these sources at 336 and 550 nm; and without GaiaXPy too."""
    stars = read(raw(name))
    np.testing.assert_allclose(stars.flux[:, [0, 107]], [[3.30736274e-16, 1.24392106e-15], [7.09594044e-16, 1.98248254e-16]], rtol=2e-8)
    np.testing.assert_allclose(stars.ivar[:, 107] ** -0.5, [1.44226504e-17, 1.20196415e-18], rtol=2e-7)
    assert list(stars.labels["star"]) == [5853498713190525696, 5762406957886626816] and (stars.wave[0], stars.wave[-1]) == (3360, 10200)
    assert stars.survey == "gaia_xp" and stars.provenance["units"]["flux"] == "W / (nm m2)" and list(stars.labels["object_class"]) == ["", ""]


def test_coefficients_and_their_errors_are_kept(raw):
    stars = read(raw("XP_CONTINUOUS_RAW.fits"))
    with fits.open(raw("XP_CONTINUOUS_RAW.fits")) as hdus:
        for band, half in (("bp", slice(0, 55)), ("rp", slice(55, 110))):
            for name, column in (("coeff", "coefficients"), ("coeff_err", "coefficient_errors")):
                np.testing.assert_allclose(stars.labels[name][:, half], np.stack([hdus[1].data[f"{band}_{column}"][i] for i in range(2)]), rtol=1e-12)
    assert stars.labels["g"].unit == "mag" and stars.labels["bp_rp"][0] > 1 > stars.labels["bp_rp"][1]


def test_the_source_without_bp_is_masked_where_rp_does_not_reach(raw):
    stars = read(raw(MISSING_BP))
    assert list(stars.labels["star"]) == [5853498713190525696, 5405570973190252288, 5762406957886626816]
    np.testing.assert_array_equal(stars.mask[1], stars.wave <= 6350)
    assert stars.mask.sum() == 150 and stars.provenance["history"] == ["1 of 3 sources without BP: masked where the other has no data"]
    assert np.isnan(stars.labels["coeff"][1, :55]).all() and np.isfinite(stars.labels["coeff"][1, 55:]).all() and np.isnan(stars.labels["bp_rp"][1])


@pytest.mark.parametrize("name", ["XP_SAMPLED_RAW_dr3int6.csv", "XP_SAMPLED_RAW_dr3int6.fits"])
def test_sampled_spectra_are_the_numbers_of_the_file(raw, name):
    stars = read(raw(name))
    with fits.open(raw("XP_SAMPLED_RAW_dr3int6.fits")) as hdus:
        rows = hdus[1].data
        np.testing.assert_allclose(stars.flux, np.stack([rows["flux"][i] for i in range(2)]), rtol=1e-6)
        np.testing.assert_allclose(stars.ivar**-0.5, np.stack([rows["flux_error"][i] for i in range(2)]), rtol=1e-6)
        np.testing.assert_array_equal(stars.labels["star"], rows["source_id"])
        np.testing.assert_allclose(stars.labels["ra"], rows["ra"])
    assert stars.medium == "vacuum" and stars.labels["ra"].unit == "deg"


def test_upper_case_columns_are_the_same(build, put):
    content = build.xp_sampled()
    head, _, rest = content.partition(b"\n")
    np.testing.assert_array_equal(read(put(head.upper() + b"\n" + rest, "up.csv")).flux, read(put(content, "low.csv")).flux)


def test_missing_values_in_an_array_are_masked(build, put):
    head, _, rest = build.xp_sampled(n=1).decode().partition('"(')
    stars = read(put((head + '"(NaN' + rest[rest.index(",") :]).encode(), "x.csv"))
    assert np.flatnonzero(stars.mask[0]).tolist() == [0]


WRONG = {"too few": (dict(size=342), "flux, row 0: 342 numbers; expected 343"), "no list": (dict(flux="(1.0, x)"), "flux, row 0: not a list of numbers")}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_not_the_data_models_are_refused(build, put, case):
    changes, message = WRONG[case]
    with pytest.raises(DataFileError, match=f"x.csv, {message}"):
        read(put(build.xp_sampled(**changes), "x.csv"))


def test_another_unit_is_refused(put, every_format):
    with fits.open(io.BytesIO(every_format["xp fits"][0])) as hdus:
        hdus[1].columns["flux"].unit = "Jy"
        hdus.writeto(path := put(b"", "jy.fits"), overwrite=True)
    with pytest.raises(DataFileError, match=r"jy.fits: flux has the unit Jy; expected W / \(nm m2\), the archive's"):
        read(path)


def test_a_product_without_errors_or_bands_is_refused(put):
    with pytest.raises(DataFileError, match="x.csv lacks the column bp_coefficient_errors; it has: source_id, bp_coefficients, rp_coefficients"):
        read(put(b'source_id,bp_coefficients,rp_coefficients\n1,"(1,2)","(3,4)"\n', "x.csv"))
    with pytest.raises(DataFileError, match="x.csv, row 0: neither BP nor RP coefficients"):
        read(put((",".join(["source_id", *gaia.CONTINUOUS]) + '\n7,,,,,,\n').encode(), "x.csv"))


@given(st.text(max_size=60), st.integers(1, 5))
def test_any_text_is_numbers_or_refused(text, size):
    try:
        assert gaia._numbers(text, size, "flux", NOWHERE).shape == (size,)
    except DataFileError as error:
        assert str(error).startswith("x.csv, flux: ")


@given(st.lists(st.floats(width=64), min_size=1, max_size=20))
def test_numbers_survive_as_text(values):
    np.testing.assert_array_equal(gaia._numbers("(" + ", ".join(map(repr, values)) + ")", len(values), "flux", NOWHERE), values)
