"""SDSS spec, MaStar and APOGEE files, built as their data models say: against specutils, closed forms, and seven real MaStar stars."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from spectrakit.errors import DataFileError, SpectrumError
from spectrakit.readers import read

C = 299792.458


def test_a_spec_file_is_read_as_specutils_reads_it(build, put):
    specutils = pytest.importorskip("specutils")
    path = put(build.sdss(), "spec-0266-51602-0003.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the survey's BUNIT is not the FITS standard's
        star, other = read(path), specutils.Spectrum.read(str(path), format="SDSS-III/IV spec")
    np.testing.assert_allclose(star.wave, other.spectral_axis.to_value("Angstrom"), rtol=6e-7)  # loglam is float32
    np.testing.assert_array_equal(star.flux[0], other.flux.value)
    np.testing.assert_array_equal(star.ivar[0], other.uncertainty.array)
    assert (star.survey, star.medium, star.frame, star.normalization) == ("sdss", "vacuum", "heliocentric", "none")
    np.testing.assert_allclose(np.diff(np.log10(star.wave)), 1e-4, rtol=1e-9)
    np.testing.assert_allclose(star.resolution, 1 / (2.354820 * 1.1 * 1e-4 * np.log(10)), rtol=1e-6)


def test_spec_labels_have_units_and_sources(build, put):
    row = read(put(build.sdss())).labels
    assert (row["star"][0], row["object_class"][0], row["subclass"][0], row["spectrum"][0]) == ("12345", "star", "F5 (10647)", "266-51602-3")
    assert (row["snr"][0], row["teff"][0], row["teff"].unit, row["ra"].unit) == (25, 6431, "K", "deg")
    assert "ELODIE_TEFF: of the best-fitting template, coarse" in row["teff"].description
    nameless = read(put(build.sdss(thing_id=-1, elodie_teff=0.0))).labels
    assert nameless["star"][0] == "266-51602-3" and "lacks THING_ID" in nameless["star"].description and np.isnan(nameless["teff"][0])


def test_spec_flags_by_name(build, put):
    mask = np.zeros(50, "i4")
    mask[:5] = [1 << 23, 1 << 22, 1 << 16, 1 << 24, 1 << 9]  # BRIGHTSKY and NOSKY are unusable; NEARBADPIXEL, NODATA (deprecated), WHOPPER are not
    star = read(put(build.sdss(mask=mask)))
    assert np.flatnonzero(star.mask[0]).tolist() == [0, 1] and star.provenance["masked"] == {"NOSKY": 1, "BRIGHTSKY": 1}


def test_a_galaxy_gets_no_stellar_labels(build, put):
    path = put(build.sdss(**{"class": "GALAXY"}))
    with pytest.raises(SpectrumError, match=r"are no stars \(galaxy: 1"):
        read(path)
    labels = read(path, objects="all").labels
    assert labels["object_class"][0] == "galaxy" and all(np.isnan(labels[name][0]) for name in ("teff", "logg", "feh")) and labels["snr"][0] == 25


def test_spec_files_that_lack_a_unit_or_a_grid_are_refused(build, put):
    with fits.open(io.BytesIO(build.sdss())) as hdus:
        del hdus["SPECOBJ"]
        hdus.writeto(path := put(b"", "cut.fits"), overwrite=True)
    with pytest.raises(DataFileError, match="cut.fits has no unit SPECOBJ or SPALL with class and z; units: PRIMARY, COADD"):
        read(path)
    with fits.open(io.BytesIO(build.sdss())) as hdus:
        hdus[1].data["loglam"][7] += 3e-5
        hdus.writeto(path := put(b"", "grid.fits"), overwrite=True)
    with pytest.raises(DataFileError, match="grid.fits: loglam is not a grid of 0.0001 from 3.5797 on"):
        read(path)


@pytest.fixture(scope="module")
def seven():
    path = Path(os.environ.get("SPECTRAKIT_DATA", ".")) / "real" / "mastar_examples.npz"
    with np.load(path) as content:
        return dict(content)


@pytest.mark.requires_data("mastar_examples")
def test_mastar_is_in_the_rest_frame(build, put, seven):
    """Real spectra: H alpha of A to G stars at its rest wavelength in vacuum within 6 km/s, whatever their velocity of 15 to 50 km/s is."""
    stars = read(put(build.mastar(**{k: seven[k] for k in ("wave", "flux", "ivar", "mask", "disp", "heliov")}, ids=seven["name"])))
    assert stars.frame == "rest" and stars.medium == "vacuum" and list(stars.labels["star"]) == list(seven["name"])
    near = np.abs(stars.wave - 6564.61) < 12
    for i in range(2, 5):
        assert abs(stars.labels["rv"][i]) > 15
        flux = stars.flux[i, near]
        depth = np.percentile(flux, 90) - flux
        depth[depth < depth.max() / 2] = 0
        assert abs((depth * stars.wave[near]).sum() / depth.sum() / 6564.61 - 1) * C < 6
    bad = seven["mask"] | (seven["ivar"] <= 0) | ~np.isfinite(seven["flux"])
    np.testing.assert_array_equal(stars.mask, bad)
    np.testing.assert_array_equal(stars.flux[~bad], seven["flux"][~bad])
    assert 1200 < stars.resolution[500] < 1800 and 1700 < stars.resolution[3500] < 2500  # Yan et al. 2019: R about 1800


def test_mastar_masks_labels_and_grids(build, put, every_format):
    n = 30
    wave, ones = 10 ** (3.56 + 1e-4 * np.arange(n)), np.ones((2, n))
    mask = np.zeros((2, n), "i4")
    mask[1, 4] = 1
    more = {"input_teff": [5000.0, -999.0], "input_logg": [4.5, -999.0], "input_fe_h": [-0.1, -999.0]}
    stars = read(put(build.mastar(wave, ones, ones, mask, 1.5 * ones, ["7-1", "7-1"], [1.0, 2.0], **more)))
    assert stars.mask.sum() == 1 and stars.provenance["masked"] == {"MASK": 1}
    np.testing.assert_array_equal(stars.labels["teff"], [5000, np.nan])
    np.testing.assert_allclose(stars.resolution, wave / (2.354820 * 1.5), rtol=1e-6)
    with fits.open(io.BytesIO(every_format["mastar"][0])) as hdus:
        hdus[1].data["WAVE"][1] *= 1.001
        hdus.writeto(path := put(b"", "two.fits"), overwrite=True)
    with pytest.raises(DataFileError, match="two.fits: its rows have different wavelengths; MaStar has one grid"):
        read(path)


def test_apstar_is_read_as_specutils_reads_it(build, put):
    specutils = pytest.importorskip("specutils")
    path = put(build.apogee(), "apStar-r12-2M00000002+7417074.fits")
    star, other = read(path), specutils.Spectrum.read(str(path), format="APOGEE apStar")
    np.testing.assert_allclose(star.wave, other.spectral_axis.to_value("Angstrom"), rtol=1e-12)
    good = ~star.mask[0]
    np.testing.assert_array_equal(star.flux[0][good], other.flux.value[good])
    np.testing.assert_allclose(star.ivar[0][good], other.uncertainty.array.astype("f8")[good] ** -2)
    assert 15100 < star.wave[0] < 15110 and (star.medium, star.frame, star.survey) == ("vacuum", "rest", "apogee")
    assert star.labels["star"][0] == "2M00000002+7417074" and star.labels["rv"][0] == -12.5 and star.labels["rv"].unit == "km/s"
    assert (~good).sum() == 200 + 250 + 150 + 175


def test_apogee_flags_by_name_and_single_visits(build, put):
    mask = np.zeros(8575, "i4")
    mask[1000:1005] = [1, 1 << 7, 1 << 14, 1 << 9, 1 << 12]  # BADPIX, NOSKY, NOT_ENOUGH_PSF; persistence and sky lines "may be affected"
    star = read(put(build.apogee(mask=mask, visits=1)))
    assert np.flatnonzero(star.mask[0, 990:1010]).tolist() == [10, 11, 12]
    assert {k: v for k, v in star.provenance["masked"].items() if v == 1} == {"BADPIX": 1, "NOSKY": 1, "NOT_ENOUGH_PSF": 1}


def test_aspcapstar_is_normalised_and_has_parameters(build, put):
    star = read(put(build.apogee("aspcapStar", fe_h=-0.41)))
    assert star.normalization == "aspcap" and star.provenance["label_scale"] == "ASPCAP" and star.provenance["units"]["flux"] == "flux over pseudo-continuum"
    values = {name: float(star.labels[name][0]) for name in ("teff", "logg", "m_h", "alpha_m", "feh")}
    np.testing.assert_allclose(list(values.values()), [4800, 2.5, -0.4, 0.15, -0.41], rtol=1e-6)
    missing = read(put(build.apogee("aspcapStar", param=(-9999.0,) * 9)))
    assert np.isnan(missing.labels["teff"][0]) and "feh" not in missing.labels.colnames


def test_an_apogee_file_without_mask_or_parameters_is_refused(build, put):
    with fits.open(io.BytesIO(build.apogee("aspcapStar"))) as hdus:
        del hdus[4]
        hdus.writeto(path := put(b"", "cut.fits"), overwrite=True)
    with pytest.raises(DataFileError, match="cut.fits: its third unit is no mask .*so it is no apStar file; and no table with PARAM follows"):
        read(path)
    with pytest.raises(DataFileError, match="PARAM has 3 values; expected 7 or more"):
        read(put(build.apogee("aspcapStar", param=(1.0, 2.0, 3.0))))
