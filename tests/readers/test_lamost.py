"""LAMOST LRS: every raw file against its header and rows read by hand; both layouts; what is refused."""

import numpy as np
import pytest
from astropy.io import fits

from spectrakit.errors import DataFileError, SpectrumError
from spectrakit.readers import read

RAW = {"spec-55862-B6212_sp06-003.fits": ("F9", -7.138e-05, 71.41), "spec-55862-B6212_sp06-005.fits": ("M0", -2.856e-04, 6.19),
       "spec-55859-F5902_sp03-232.fits.gz": ("F4", 3.402e-05, 94.11), "spec-55859-F5902_sp01-001_dr7.fits.gz": ("G7", -1.387e-04, 12.22),
       "spec-55859-F5902_sp05-172.fits.gz": ("G3", -9.073e-05, 44.69)}


@pytest.mark.parametrize("name", RAW)
def test_raw_files_hold_what_their_header_and_rows_say(raw, name):
    path = raw(name)
    star = read(path)
    with fits.open(path) as hdus:
        header, (flux, ivar, third, andmask, _) = hdus[0].header, hdus[0].data.astype("f8")
    np.testing.assert_allclose(star.wave, 10 ** (header["CRVAL1"] + header["CD1_1"] * np.arange(flux.size)), rtol=1e-12)
    if "Subcontinuum" not in header["EXTEN0"]:
        np.testing.assert_allclose(star.wave, third, rtol=5e-7)  # made of log10 in float32: 0.1 km/s
    bad = (andmask != 0) | (ivar <= 0) | (flux == 0)
    np.testing.assert_array_equal(star.mask[0], bad)
    np.testing.assert_array_equal(star.flux[0][~bad], flux[~bad])
    np.testing.assert_array_equal(star.ivar[0][~bad], ivar[~bad])
    subclass, z, snr_g = RAW[name]
    row = star.labels[0]
    assert (row["subclass"], row["object_class"]) == (subclass, "star") and "LAMOST " + row["star"] == header["DESIG"]
    np.testing.assert_allclose([row["z"], row["snr_g"], row["ra"], row["dec"]], [z, snr_g, header["RA"], header["DEC"]], rtol=1e-12)
    assert (star.medium, star.frame, star.survey, star.noise, star.normalization) == ("vacuum", "heliocentric", "lamost_lrs", "measured", "none")
    assert (star.resolution == 1800).all() and star.provenance["units"]["flux"] == "relative"


def test_the_velocity_is_still_in(raw):
    """Balmer lines of the F4 star of radial velocity 10 km/s: within 30 km/s of the rest wavelengths in vacuum, 80 km/s from those in air."""
    star = read(raw("spec-55859-F5902_sp03-232.fits.gz"))
    for line in (4862.69, 6564.61):
        near = np.abs(star.wave - line) < 8
        depth = np.percentile(star.flux[0][near], 90) - star.flux[0][near]
        depth[depth < depth.max() / 2] = 0
        assert abs((depth * star.wave[near]).sum() / depth.sum() / line - 1) * 299792 < 30


def test_both_layouts_give_the_same(build, put):
    image, table = read(put(build.lamost(), "a.fits")), read(put(build.lamost("table"), "b.fits"))
    for name in ("wave", "flux", "ivar", "mask", "resolution"):
        np.testing.assert_array_equal(getattr(image, name), getattr(table, name))
    assert image.labels.pformat(show_unit=True) == table.labels.pformat(show_unit=True)
    assert image.labels["z"].unit == "" and image.labels["ra"].unit == "deg" and image.labels["z"].description == "LAMOST header Z, LAMOST pipeline"
    assert image.provenance["origin"].startswith("LAMOST DR8, low resolution; http://www.lamost.org")


def test_flags_are_honoured_and_counted_by_name(build, put):
    andmask, ormask, flux = np.zeros(40), np.zeros(40), np.full(40, 5.0)
    andmask[:4], ormask[10:20], flux[30] = [1, 2, 8 | 4, 1 << 7], 63, 0
    star = read(put(build.lamost(rows={"ANDMASK": andmask, "ORMASK": ormask, "FLUX": flux})))
    assert np.flatnonzero(star.mask[0]).tolist() == [0, 1, 2, 3, 30]
    assert star.provenance["masked"] == {"BADCCD": 1, "BADPROFILE": 1, "NOSKY": 1, "BRIGHTSKY": 1, "a bit without a name": 1, "flux is 0 (no data)": 1}
    pilot = read(put(build.lamost("pilot", rows={"ANDMASK": andmask})))
    assert pilot.provenance["masked"] == {"ANDMASK": 4} and pilot.labels["snr_g"][0] == 71.41 and pilot.labels["obsid"][0] == 0


def test_nan_and_negative_ivar_are_masked_and_negative_flux_is_not(build, put):
    flux, ivar = np.full(40, 5.0), np.full(40, 1.0)
    flux[:3], ivar[5:7] = [np.nan, np.inf, -3], [-1, np.nan]
    star = read(put(build.lamost(rows={"FLUX": flux, "IVAR": ivar})))
    assert np.flatnonzero(star.mask[0]).tolist() == [0, 1, 5, 6] and star.flux[0, 2] == -3


def test_medium_and_slit_are_taken_from_the_header(build, put):
    assert read(put(build.lamost(VACUUM=False))).medium == "air"
    assert (read(put(build.lamost(SLIT_MOD="x1"))).resolution == 1000).all()
    assert np.isnan(read(put(build.lamost(Z=-9999.0))).labels["z"][0])


WRONG = {"VACUUM": ("T", "header keyword VACUUM is 'T'; expected T or F"), "HELIO": (False, "HELIO = F, the wavelengths are not heliocentric"),
         "COEFF0": ("x", "header keywords COEFF0, COEFF1 are 'x', 0.0001; expected log10"), "COEFF1": (0.0002, "its wavelengths .* and its header .* disagree"),
         "SLIT_MOD": ("x1/2", "SLIT_MOD is 'x1/2'; resolving powers are known for x2/3, x1")}


@pytest.mark.parametrize("key", WRONG)
def test_a_header_that_cannot_be_trusted_is_refused(build, put, key):
    value, message = WRONG[key]
    with pytest.raises(DataFileError, match=f"file.fits: {message}"):
        read(put(build.lamost(**{key: value})))


def test_medium_resolution_files_are_refused(put):
    hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header([("TELESCOP", "LAMOST")])),
                         fits.BinTableHDU.from_columns([fits.Column("FLUX", "4E", array=np.ones((1, 4)))], name="COADD_B")])
    path = put(b"")
    hdus.writeto(path, overwrite=True)
    with pytest.raises(DataFileError, match="is a LAMOST file, but has neither a 5 x n_pix image .*COADD_B. Medium-resolution spectra are not read"):
        read(path)


@pytest.mark.parametrize("cards, found", [({"CLASS": "GALAXY"}, "galaxy"), ({"CLASS": "QSO"}, "qso"), ({"CLASS": "UNKNOWN"}, "unknown"),
                                          ({"FIBERTYP": "Sky"}, "sky"), ({"FIBERTYP": "PosErr"}, "no object"), ({"OBS_TYPE": "FLAT"}, "no object")])
def test_what_is_no_star_is_refused_or_marked(build, put, cards, found):
    path = put(build.lamost(**cards))
    with pytest.raises(SpectrumError, match=rf'1 of 1 objects in file.fits are no stars \({found}: 1; first in row 0\).*objects="all"'):
        read(path)
    assert read(path, objects="all").labels["object_class"][0] == found
