"""DESI: the raw coadd against its units read by hand and by specutils; arms merged as weighted means; masks, targets, resolution."""

import io

import numpy as np
import pytest
from astropy.io import fits
from scipy.optimize import curve_fit

from spectrakit.errors import DataFileError, SpectrumError
from spectrakit.readers import read

COADD = "coadd-4-80613-thru20210324.fits"


@pytest.fixture(scope="module")
def coadd(raw):
    path = raw(COADD)
    with fits.open(path, memmap=False) as hdus:
        units = {hdu.name: None if hdu.data is None else np.array(hdu.data) for hdu in hdus}
    return read(path, objects="all"), units


def pixels(stars, wave):
    return np.round((wave - stars.wave[0]) / 0.8).astype(int)


def test_single_arms_are_kept_exactly(coadd):
    stars, units = coadd
    assert stars.wave.size == 7781 and np.allclose(np.diff(stars.wave), 0.8) and stars.wave[0] == 3600 and abs(stars.wave[-1] - 9824) < 1e-6
    for arm, inside in (("B", (0, 5755)), ("R", (5805, 7515)), ("Z", (7625, 9900))):
        wave = units[f"{arm}_WAVELENGTH"]
        own = (wave > inside[0]) & (wave < inside[1])
        np.testing.assert_allclose(stars.wave[pixels(stars, wave[own])], wave[own], rtol=1e-12)
        np.testing.assert_allclose(stars.flux[0, pixels(stars, wave[own])], units[f"{arm}_FLUX"][0, own], rtol=1e-12)  # divided and multiplied by ivar once
        np.testing.assert_array_equal(stars.ivar[0, pixels(stars, wave[own])], units[f"{arm}_IVAR"][0, own])


def test_overlaps_are_weighted_means(coadd):
    stars, units = coadd
    for blue, red in (("B", "R"), ("R", "Z")):
        common, i, j = np.intersect1d(np.round(units[f"{blue}_WAVELENGTH"], 3), np.round(units[f"{red}_WAVELENGTH"], 3), return_indices=True)
        assert len(common) in (51, 126)
        f = np.stack([units[f"{blue}_FLUX"][0, i], units[f"{red}_FLUX"][0, j]]).astype("f8")
        w = np.stack([units[f"{blue}_IVAR"][0, i], units[f"{red}_IVAR"][0, j]]).astype("f8")
        at = pixels(stars, common)
        np.testing.assert_allclose(stars.flux[0, at], (w * f).sum(0) / w.sum(0), rtol=1e-10)
        np.testing.assert_allclose(stars.ivar[0, at], w.sum(0), rtol=1e-10)


def test_specutils_reads_the_same(raw, coadd):
    specutils = pytest.importorskip("specutils")
    arms = specutils.SpectrumList.read(str(raw(COADD)), format="DESI coadd")
    stars, _ = coadd
    red = next(arm for arm in arms if arm.meta["band"] == "r")
    wave = red.spectral_axis.to_value("Angstrom")
    own = (wave > 5805) & (wave < 7515)
    np.testing.assert_allclose(stars.flux[0, pixels(stars, wave[own])], red.flux.to_value("1e-17 erg / (s cm2 Angstrom)")[0, own], rtol=1e-6)


def test_resolution_is_that_of_gaussians_fitted_to_the_matrix(coadd):
    """A Gaussian fitted to the matrix's column, freely, at pixels of all arms: within 4 %; R grows from 2000 to above 4500 as published."""
    stars, units = coadd
    gauss = lambda x, a, m, s: a * np.exp(-0.5 * ((x - m) / s) ** 2)                                                   # noqa: E731
    for arm in "BRZ":
        for pixel in (300, 1000, 1800):
            column, wave = units[f"{arm}_RESOLUTION"][0, :, pixel], units[f"{arm}_WAVELENGTH"][pixel]
            (_, _, sigma), _ = curve_fit(gauss, np.arange(11) - 5, column, (0.4, 0, 1))
            assert abs(stars.resolution[pixels(stars, wave)] * 2.35482 * abs(sigma) * 0.8 / wave - 1) < 0.04
    assert 2000 < stars.resolution[300] < 2600 and stars.resolution[-500] > 4500


def test_the_fibre_is_a_galaxy_and_says_so(raw, coadd):
    stars, _ = coadd
    row = stars.labels[0]
    assert (row["star"], row["object_class"], row["fiberstatus"], row["tileid"]) == (39633345008634465, "galaxy", 0, 80613)
    np.testing.assert_allclose([row["ra"], row["dec"], row["snr_b"]], [105.48977452498902, 56.669300058331935, 3.9446366], rtol=1e-7)
    assert "targeted as" in stars.labels["object_class"].description and stars.medium == "vacuum" and stars.frame == "heliocentric"
    with pytest.raises(SpectrumError, match=r"1 of 1 objects in coadd.* are no stars \(galaxy: 1"):
        read(raw(COADD))


def test_classes_are_what_the_fibres_were_targeted_as(build, put):
    path = put(build.desi(n=6, objtype=("TGT", "TGT", "TGT", "SKY", "NON", "TGT"), targets=(1 << 61, 1 << 60, 1 << 2, 1 << 32, 0, (1 << 61) | 1)))
    with pytest.raises(SpectrumError, match=r"5 of 6 .*ambiguous: 1, galaxy: 1, no object: 1, qso: 1, sky: 1; first in row 1"):
        read(path)
    assert list(read(path, objects="all").labels["object_class"]) == ["star", "galaxy", "qso", "sky", "no object", "ambiguous"]
    standards = read(put(build.desi(n=2, objtype=("TGT", "TGT"), targets=(1 << 33, 0))))
    assert list(standards.labels["object_class"]) == ["star", ""]


def test_any_flag_takes_a_pixel_of_an_arm_and_the_other_arm_fills_in(build, put):
    n, masks = 4, {arm: np.zeros((4, m)) for arm, (_, m) in build.ARMS.items()}
    masks["B"][0, 5], masks["B"][0, 55], masks["R"][0, 5], masks["R"][1, 5] = 4, 2, 1 << 8, 1 << 14  # B 55 and R 5 are the same wavelength, 3644 A
    file = {arm: np.full((n, m), 1.0 + i) for i, (arm, (_, m)) in enumerate(build.ARMS.items())}
    stars = read(put(build.desi(masks=masks, fluxes=file, ivars={arm: np.full((n, m), 2.0) for arm, (_, m) in build.ARMS.items()})), objects="all")
    assert stars.mask[0, 5] and stars.mask[0, 55] and stars.mask.sum() == 2
    assert stars.flux[1, 55] == 1 and stars.ivar[1, 55] == 2  # B alone, since R is flagged
    assert stars.flux[2, 55] == 1.5 and stars.ivar[2, 55] == 4
    assert stars.provenance["masked"] == {"ALLBADPIX": 1, "COSMIC": 1, "NODATA": 1, "ivar <= 0": 2}


def test_spectra_files_and_compressed_masks_are_read(build, put):
    stars = read(put(build.desi(coadd=False, compressed=True)), objects="all")
    assert list(stars.labels["expid"]) == [0, 1, 2, 3] and stars.wave.size == 140
    np.testing.assert_allclose(stars.resolution, stars.wave / (2.35482 * 0.9 * 0.8), rtol=2e-3)


def test_a_gap_between_arms_is_masked(build, put):
    arms = {"B": (3600.0, 20), "Z": (3640.0, 20)}
    stars = read(put(build.desi(arms=arms)), objects="all")
    gap = (stars.wave > 3615.3) & (stars.wave < 3639.9)
    assert gap.sum() == 30 and stars.mask[:, gap].all() and not stars.mask[:, ~gap].any() and (stars.resolution > 1000).all()


def test_arms_off_the_lattice_and_missing_units_are_refused(build, put):
    with pytest.raises(DataFileError, match="an arm's wavelengths 3640.30-.* are not on one lattice of 0.800 A with the others"):
        read(put(build.desi(arms={"B": (3600.0, 60), "R": (3640.3, 60)})))
    with fits.open(io.BytesIO(build.desi())) as hdus:
        del hdus["R_RESOLUTION"]
        hdus.writeto(path := put(b"", "cut.fits"), overwrite=True)
    with pytest.raises(DataFileError, match="cut.fits has no unit R_RESOLUTION with data; it has: PRIMARY, FIBERMAP, B_WAVELENGTH"):
        read(path)
