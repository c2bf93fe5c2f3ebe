"""The container: conversions are exact, masked pixels never leak, labels stay with their spectra, and each error says what to do."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectrakit.errors import DataFileError, LabelError, MismatchError, SpectrumError
from spectrakit.readers import read
from spectrakit.resample import resample
from spectrakit.simulation import simulate
from spectrakit.spectra import SpectraSet, concatenate, label_table

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def make(n=3, n_pix=8, seed=0, **changes):
    rng = np.random.default_rng(seed)
    fields = dict(
        wave=np.linspace(4000.0, 4000 + n_pix - 1, n_pix), flux=rng.normal(1, 0.1, (n, n_pix)), ivar=rng.uniform(1, 9, (n, n_pix)),
        mask=rng.random((n, n_pix)) < 0.3, survey="test", medium="air", frame="heliocentric", resolution=np.full(n_pix, 1800.0),
        labels=label_table(star=np.arange(n), teff=np.linspace(4000, 6000, n), feh=np.linspace(-1, 0, n), name=[f"s{i}" for i in range(n)]),
        normalization="none", noise="measured", provenance={"origin": "a test", "history": ["made"]})
    return SpectraSet(**{**fields, **changes})


@st.composite
def sets(draw):
    """Any valid set: masked pixels may hold NaN and infinity, labels may be missing."""
    n, n_pix = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    mask = draw(arrays(bool, (n, n_pix)))
    junk = draw(st.sampled_from([0.0, np.nan, np.inf, -np.inf]))
    flux = np.where(mask, junk, draw(arrays("f8", (n, n_pix), elements=FINITE)))
    ivar = np.where(mask, junk, draw(arrays("f8", (n, n_pix), elements=st.floats(0, 1e6, allow_subnormal=False))))
    wave = 4000 + np.cumsum(draw(arrays("f8", n_pix, elements=st.floats(0.5, 5))))
    labels = label_table(teff=draw(arrays("f8", n, elements=st.floats(3000, 8000) | st.just(np.nan))), star=np.arange(n),
                         name=draw(st.lists(st.text(max_size=5).map(lambda s: s.replace("\0", "")), min_size=n, max_size=n)))
    return make(n, n_pix, wave=wave, flux=flux, ivar=ivar, mask=mask, labels=labels)


def same(a, b):
    for name in ("wave", "flux", "ivar", "mask", "resolution"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)
    for name in ("survey", "medium", "frame", "normalization", "noise", "provenance"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.labels.colnames == b.labels.colnames
    for name in a.labels.colnames:
        np.testing.assert_array_equal(np.asarray(a.labels[name]), np.asarray(b.labels[name]), strict=True)
        assert a.labels[name].unit == b.labels[name].unit


def test_snr_is_the_median_of_usable_pixels():
    mask = np.zeros((2, 8), bool)
    mask[1, 4:] = True
    stars = make(2, flux=np.full((2, 8), 2.0), ivar=np.array([[9.0] * 8, [4.0] * 4 + [1e9] * 4]), mask=mask)
    np.testing.assert_allclose(stars.snr, [6, 4])


@given(sets())
def test_table_round_trip_is_exact(stars):
    same(stars, SpectraSet.from_table(stars.to_table()))


@given(sets())
def test_specutils_round_trip_keeps_flux_errors_and_where_they_come_from(stars):
    stars = replace(stars, noise="estimated")
    back = SpectraSet.from_specutils(stars.to_specutils(), labels=stars.labels, survey=stars.survey, medium=stars.medium, frame=stars.frame,
                                     resolution=stars.resolution, normalization=stars.normalization)
    same(stars, back)


@given(sets())
def test_native_file_round_trip_is_exact(tmp_path_factory, stars):
    path = tmp_path_factory.mktemp("native") / "stars.safetensors"
    same(stars, read(stars.write(path)))


@given(sets())
def test_torch_sees_zeros_under_the_mask_and_the_values_elsewhere(stars):
    flux, ivar, mask = (t.numpy() for t in stars.to_torch())
    np.testing.assert_array_equal(mask, stars.mask)
    assert not flux[mask].any() and not ivar[mask].any()
    np.testing.assert_array_equal(flux[~mask], stars.flux[~stars.mask].astype("f4"))
    np.testing.assert_array_equal(ivar[~mask], stars.ivar[~stars.mask].astype("f4"))


@given(st.data())
def test_rows_keep_their_labels(data):
    n = 5
    stars = make(n, flux=np.repeat(np.arange(n, dtype=float)[:, None], 8, axis=1))
    index = st.integers(-n, n - 1)
    rows = data.draw(index | st.slices(n) | st.lists(index) | arrays(bool, n))
    chosen = stars[rows]
    expected = np.atleast_1d(np.arange(n)[rows])
    np.testing.assert_array_equal(chosen.flux[:, 0], expected)
    np.testing.assert_array_equal(np.asarray(chosen.labels["star"]), expected)


def test_air_to_vacuum_agrees_with_an_independent_formula():
    air = np.linspace(3500, 9500, 601)
    vacuum = make(1, 601, wave=air).to_vacuum()
    # Birch & Downs 1994 as tabulated by the VALD database; an independent fit to the refractive index, good to 1e-8.
    s2 = (1e4 / air) ** 2
    vald = air * (1 + 0.00008336624212083 + 0.02408926869968 / (130.1065924522 - s2) + 0.0001599740894897 / (38.92568793293 - s2))
    np.testing.assert_allclose(vacuum.wave, vald, rtol=3e-8)
    assert vacuum.medium == "vacuum" and vacuum.provenance["history"][-1] == "air -> vacuum (Ciddor 1996)"
    assert vacuum.to_vacuum() is vacuum


def test_air_to_vacuum_and_back_is_the_identity():
    from specutils.utils.wcs_utils import vac_to_air
    air = np.linspace(3500, 9500, 601)
    back = vac_to_air(make(1, 601, wave=air).to_vacuum().wave * u.AA, method="Ciddor1996").to_value(u.AA)
    np.testing.assert_allclose(back, air, rtol=1e-10)


@given(sets(), st.floats(-300, 300), st.sampled_from([np.nan, 1e9, -np.inf]))
def test_rest_frame_ignores_what_lies_under_the_mask(stars, velocity, junk):
    z = velocity / 299792.458
    rest = stars.to_rest(z)
    same(rest, replace(stars, flux=np.where(stars.mask, junk, stars.flux), ivar=np.where(stars.mask, junk, stars.ivar)).to_rest(z))
    assert rest.frame == "rest" and np.isfinite(rest.flux).all() and np.isfinite(rest.ivar).all()


def test_rest_frame_brings_a_line_home():
    wave = 10 ** (3.6 + 1e-4 * np.arange(2000))
    z = np.array([-5e-4, 0.0, 8e-4])
    # The narrowest line there is: as wide as LAMOST's line spread, 2.4 pixels. Straight lines between the pixels err by 0.042.
    observed = 1 - 0.5 * np.exp(-0.5 * ((wave - 4861.3 * (1 + z[:, None])) / (4861.3 / 1800 / 2.3548)) ** 2)
    rest = make(3, 2000, wave=wave, flux=observed, ivar=np.ones((3, 2000)), mask=np.zeros((3, 2000), bool)).to_rest(z)
    np.testing.assert_allclose(np.where(rest.mask, 1, rest.flux), np.broadcast_to(observed[1], (3, 2000)), atol=0.016)
    assert rest.mask[0, 0] and rest.mask[2, -1] and not rest.mask[1].any()


@given(sets(), st.sampled_from([np.nan, 1e9]), st.data())
def test_resampling_never_reads_masked_pixels(stars, junk, data):
    new = data.draw(arrays("f8", data.draw(st.integers(1, 9)), elements=st.floats(3990, 4050)))
    first = resample(stars.wave, stars.flux, stars.ivar, stars.mask, new)
    second = resample(stars.wave, np.where(stars.mask, junk, stars.flux), np.where(stars.mask, -junk, stars.ivar), stars.mask, new)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    flux, ivar, mask = first
    assert np.isfinite(flux).all() and np.isfinite(ivar).all() and (ivar >= 0).all() and not flux[mask].any() and not ivar[mask].any()
    np.testing.assert_array_equal(mask | ((new >= stars.wave[0] - 1e-6) & (new <= stars.wave[-1] + 1e-6)), True)


@given(sets())
def test_resampling_on_the_same_grid_is_the_identity(stars):
    flux, ivar, mask = resample(stars.wave, stars.flux, stars.ivar, stars.mask, stars.wave)
    np.testing.assert_array_equal(mask, stars.mask)
    np.testing.assert_array_equal(flux[~mask], stars.flux[~mask])
    np.testing.assert_allclose(ivar[~mask], stars.ivar[~mask], rtol=1e-15)


@given(st.floats(-5, 5), st.floats(-100, 100), arrays("f8", (2, 5), elements=st.floats(0, 1)))
def test_resampling_reproduces_linear_functions(slope, offset, where):
    wave = np.array([4000, 4001, 4003, 4003.5, 4010])
    new = 4000 + 10 * where
    zero = np.zeros((2, 5), bool)
    flux, ivar, mask = resample(wave, np.tile(offset + slope * (wave - 4000), (2, 1)), np.ones((2, 5)), zero, new)
    np.testing.assert_allclose(flux, offset + slope * (new - 4000), atol=1e-9)
    assert not mask.any() and (ivar > 0).all()


@given(arrays("f8", 4, elements=st.floats(-5, 5)), arrays("f8", 6, elements=st.floats(0, 4)))
def test_resampling_reproduces_cubics_inside_and_lines_beside_a_masked_pixel(coefficients, where):
    wave = np.array([3996, 3998, 3999.5, 4000, 4001, 4003, 4003.5, 4004, 4005.5, 4006])
    x, new = wave - 4000, 4000 + where
    flux, mask = np.polyval(coefficients, x)[None], np.zeros((1, 10), bool)
    np.testing.assert_allclose(resample(wave, flux, np.ones((1, 10)), mask, new)[0][0], np.polyval(coefficients, where), atol=1e-8)
    mask[0, [2, 6]] = True  # the outer neighbours of 4000...4003
    inside = np.linspace(4001, 4003, 5)
    np.testing.assert_allclose(resample(wave, flux, np.ones((1, 10)), mask, inside)[0][0], np.interp(inside, wave, flux[0]), atol=1e-8)


def test_resampling_propagates_variances_with_the_weights():
    wave, flux = np.array([4000.0, 4001.0, 4002.0]), np.array([[1.0, 3.0, 5.0]])
    ivar, mask = np.array([[4.0, 1.0, 0.0]]), np.array([[False, False, False]])
    new_flux, new_ivar, new_mask = resample(wave, flux, ivar, mask, np.array([4000.25, 4001.0, 4001.5, 4002.1]))
    np.testing.assert_allclose(new_flux, [[1.5, 3.0, 4.0, 0.0]])
    np.testing.assert_allclose(new_ivar, [[1 / (0.75**2 / 4 + 0.25**2), 1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(new_mask, [[False, False, False, True]])
    rng = np.random.default_rng(1)
    new = np.array([4001.2, 4003.5, 4003.9])
    scattered = resample(4000 + np.arange(8.0), rng.normal(0, 2, (40000, 8)), np.full((40000, 8), 0.25), np.zeros((40000, 8), bool), new)
    np.testing.assert_allclose(scattered[0].var(0), 1 / scattered[1][0], rtol=0.03)


def test_label_table_converts_units_and_keeps_missing_values_missing():
    table = label_table(teff=[5.0, 6.0] * u.kK, feh=MaskedColumn([-1.0, 9.0], mask=[False, True]), note=["a", "b"])
    np.testing.assert_array_equal(table["teff"], [5000, 6000])
    assert (table["teff"].unit, table["feh"].unit) == (u.K, u.dex)
    np.testing.assert_array_equal(table["feh"], [-1, np.nan])


def test_labelled_and_label():
    stars = make(labels=label_table(teff=[5000, np.nan, 6000], feh=[0, 0, np.nan], name=["a", "b", "c"]))
    np.testing.assert_array_equal(stars.labelled("teff", "feh"), [True, False, False])
    np.testing.assert_array_equal(stars[stars.labelled("teff")].label("teff"), [5000, 6000])
    assert not stars.labelled("alpha_fe").any()


def broken(**changes):
    return lambda: make(**changes)


ONES = np.ones((3, 8))
NAN = np.where(np.arange(8) == 2, np.nan, ONES)
CLEAR = np.zeros((3, 8), bool)
BAD = {
    "shape": (broken(wave=np.linspace(4000, 4010, 9)), SpectrumError,
              r"wave has shape \(9,\) and flux \(3, 8\); expected \(n_pix,\) and \(n, n_pix\)"),
    "ivar shape": (broken(ivar=np.ones((3, 7))), SpectrumError, r"ivar has shape \(3, 7\), flux \(3, 8\); they must be the same"),
    "resolution": (broken(resolution=np.ones(7)), SpectrumError, "resolution has shape .* give one value a pixel"),
    "order": (broken(wave=np.linspace(4010, 4000, 8)), SpectrumError, "wave must be finite and increase .* sort the pixels"),
    "nanometre": (broken(wave=np.linspace(400.0, 700, 8)), SpectrumError, "wave runs from 400 to 700; expected Angstrom .* multiplied by 10"),
    "mask type": (broken(mask=CLEAR.astype(int)), SpectrumError, "mask has type int64; expected bool, True = unusable"),
    "NaN flux": (broken(flux=NAN, mask=CLEAR), SpectrumError, "flux is NaN or infinite at 3 unmasked pixels .first in spectrum 0.; set mask=True"),
    "NaN ivar": (broken(ivar=NAN, mask=CLEAR), SpectrumError, "ivar is NaN or infinite at 3 unmasked pixels"),
    "negative ivar": (broken(ivar=-ONES, mask=CLEAR), SpectrumError, "ivar is negative .* check whether these are errors or variances"),
    "label rows": (broken(labels=label_table(feh=[0.0])), LabelError, "1 rows of labels for 3 spectra"),
    "medium": (broken(medium="water"), MismatchError, "medium is 'water'; expected one of 'vacuum', 'air'"),
    "frame": (broken(frame="galactic"), MismatchError, "frame is 'galactic'; expected one of 'rest', 'heliocentric'"),
    "noise": (broken(noise="none"), MismatchError, "noise is 'none'; expected one of 'measured', 'estimated', 'simulated'"),
    "no such label": (lambda: make().label("c_fe"), LabelError, "No label 'c_fe' here; this set has: star, teff, feh, name"),
    "missing label": (lambda: make(labels=label_table(feh=[0, 1, np.nan])).label("feh"), LabelError,
                      r"1 of 3 stars have no 'feh'; .*stars\.labelled"),
    "text label": (lambda: make().label("name"), LabelError, "'name' is text, not a number"),
    "impossible unit": (lambda: label_table(teff=[1.0] * u.km), LabelError, "'teff' has unit km; expected K, or one that converts"),
    "rest twice": (lambda: make(frame="rest").to_rest(0.0), MismatchError, "in the rest frame already; to_rest expects frame='heliocentric'"),
    "no redshift": (lambda: make().to_rest([0.0, np.nan, 0.0]), SpectrumError,
                    "1 of 3 redshifts are missing or beyond .* .first in spectrum 1.; expected velocity / c. Choose"),
    "velocity for z": (lambda: make().to_rest(30.0), SpectrumError, "3 of 3 redshifts are missing or beyond .* expected velocity / c"),
    "new wave": (lambda: resample(make().wave, ONES, ONES, CLEAR, np.array([np.nan])), SpectrumError, "new_wave holds NaN .* check the velocity"),
    "new rows": (lambda: resample(make().wave, ONES, ONES, CLEAR, np.ones((2, 4))), SpectrumError, r"new_wave has shape \(2, 4\) for 3 spectra"),
    "suffix": (lambda: make().write("stars.fits"), DataFileError, "Cannot write 'stars.fits': a SpectraSet is written as .safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_say_what_was_wrong_and_what_to_do(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it: the shape checks of the tests would speak first
    action, error, message = BAD[case]
    with pytest.raises(error, match=message):
        action()


def test_a_label_in_the_wrong_unit_is_refused():
    labels = make().labels
    labels["teff"].unit = "deg_C"
    with pytest.raises(LabelError, match="Label 'teff' has unit deg_C; expected K. Build the table with spectrakit.spectra.label_table"):
        make(labels=labels)


def test_a_table_that_lacks_something_is_refused():
    table = make().to_table()
    table.remove_column("ivar")
    del table.meta["medium"]
    with pytest.raises(SpectrumError, match=r"This table lacks ivar, medium; make it with SpectraSet.to_table\(\)"):
        SpectraSet.from_table(table)


def test_a_spectrum_without_errors_or_per_frequency_is_refused():
    from astropy.nddata import InverseVariance
    from specutils import Spectrum
    about = dict(labels=label_table(feh=[0.0]), survey="x", medium="vacuum", frame="rest", resolution=2000, normalization="none")
    bare = Spectrum(flux=np.ones(4) * u.one, spectral_axis=np.arange(4000, 4004) * u.AA)
    with pytest.raises(SpectrumError, match="no uncertainty; set spectrum.uncertainty"):
        SpectraSet.from_specutils(bare, **about)
    jansky = Spectrum(flux=np.ones(4) * u.Jy, spectral_axis=np.arange(4000, 4004) * u.AA, uncertainty=InverseVariance(np.ones(4)))
    with pytest.raises(SpectrumError, match="per frequency .Jy.; expected flux per wavelength"):
        SpectraSet.from_specutils(jansky, **about)


def test_specutils_in_nanometres_arrives_in_angstrom():
    from astropy.nddata import StdDevUncertainty
    from specutils import Spectrum
    spectrum = Spectrum(flux=np.array([1, 2, np.nan, 4]) * u.one, spectral_axis=np.array([400, 401, 402, 403.0]) * u.nm,
                        uncertainty=StdDevUncertainty(np.full(4, 0.5)))
    stars = SpectraSet.from_specutils(spectrum, labels=label_table(feh=[0.0]), survey="x", medium="vacuum", frame="rest", resolution=2000,
                                      normalization="none")
    np.testing.assert_allclose(stars.wave, [4000, 4010, 4020, 4030])
    np.testing.assert_allclose(stars.ivar[0, [0, 1, 3]], 4)
    assert stars.mask.tolist() == [[False, False, True, False]] and stars.noise == "measured"


def test_repr_names_what_matters():
    assert "3 x 8 pixels, 4000.0-4007.0 A air, test, R~1800, heliocentric frame, normalization='none', noise measured" in repr(make())


def test_sets_of_one_kind_are_joined():
    one, two = simulate("miles", 3, seed=0), simulate("miles", 2, seed=1)
    two.labels.remove_column("c_fe")
    both = concatenate(one, two)
    np.testing.assert_array_equal(both.flux, np.concatenate([one.flux, two.flux]))
    np.testing.assert_array_equal(both.label("feh"), np.concatenate([one.label("feh"), two.label("feh")]))
    assert "c_fe" not in both.labels.colnames
    assert both.survey == "miles"
    assert [part["origin"] for part in both.provenance["parts"]] == ["simulated", "simulated"]


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: replace(s, provenance={**s.provenance, "label_scale": "MILES"}), "The labels are on different scales: MILES; library .Asplund et al. 2009"),
    (lambda s: replace(s, provenance={"origin": "mine"}), "The labels are on different scales: library .Asplund et al. 2009.; not stated"),
    (lambda s: replace(s, medium="vacuum"), "medium is 'air' in one set and 'vacuum' in another"),
    (lambda s: replace(s, noise="estimated"), "noise is 'simulated' in one set and 'estimated' in another"),
    (lambda s: replace(s, wave=s.wave + 0.1), "different pixels or resolutions"),
    (lambda s: replace(s, resolution=s.resolution * 1.2), "different pixels or resolutions"),
])
def test_sets_of_different_kinds_are_not_joined(change, says):
    stars = simulate("miles", 3, seed=0)
    with pytest.raises(MismatchError, match=says):
        concatenate(stars, change(stars))
