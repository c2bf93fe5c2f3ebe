"""Cross-matching: against a brute-force search, with every reason for dropping a spectrum, and the recipe on made catalogues."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit import crossmatch, manifests
from spectrakit.errors import LabelError, MismatchError
from spectrakit.spectra import SpectraSet

ARCSEC = 1 / 3600
FEH = {"feh": ("fe_h", "dex")}


def spectra(ra, dec, star=None, kind="star", snr=100.0, **labels):
    """Flat spectra in the common window at these positions."""
    n, n_pix = len(ra), 50
    labels = Table({"star": np.arange(n) if star is None else star, "ra": np.asarray(ra, float), "dec": np.asarray(dec, float),
                    "object_class": np.broadcast_to(kind, n).astype(str), **labels})
    ivar = np.broadcast_to(np.asarray(snr, float).reshape(-1, 1) ** 2, (n, n_pix)).copy()
    return SpectraSet(wave=np.linspace(3700.0, 5600, n_pix), flux=np.ones((n, n_pix)), ivar=ivar, mask=np.zeros((n, n_pix), bool), labels=labels, survey="desi",
                      medium="vacuum", frame="heliocentric", resolution=np.full(n_pix, 2e3), normalization="none", noise="measured",
                      provenance={"origin": "made", "history": ["read"]})


def catalogue(ra, dec, **columns):
    return Table({"ra": np.asarray(ra, float), "dec": np.asarray(dec, float), "fe_h": -0.1 * np.arange(len(ra)), **columns})


def test_labels_come_to_their_spectra_with_unit_origin_and_scale():
    rows = catalogue([10.0, 20, 30], [0, 45, -89.9], teff=MaskedColumn([5000.0, 0, 6000], mask=[0, 1, 0]), name=["a", "b", "c"])
    stars = spectra([30.0, 10 + 0.4 * ARCSEC, 77], [-89.9, 0, 0])
    match = crossmatch.by_position(stars, rows, {**FEH, "t": ("teff", "K"), "apogee": ("name", None)}, radius=1, scale="ASPCAP")
    np.testing.assert_array_equal(match.rows, [2, 0])
    np.testing.assert_allclose(match.separation, [0, 0.4], atol=1e-6)
    assert (match.dropped, match.unused) == ({"no row within 1 arcsec": 1}, {"no spectrum": 1})
    labels = match.stars.labels
    np.testing.assert_allclose(labels["feh"], [-0.2, 0.0])
    assert list(labels["apogee"]) == ["c", "a"] and labels["feh"].unit == u.dex and labels["feh"].description == "catalogue column fe_h"
    assert match.stars.provenance["label_scale"] == "ASPCAP"
    assert match.stars.provenance["history"] == ["read", "labels feh, t, apogee by position within 1 arcsec: 2 of 3 spectra"]
    missing = crossmatch.by_position(spectra([20.0], [45]), rows, {"t": ("teff", "K")}, radius=1, scale="x")
    assert np.isnan(missing.stars.labels["t"]).all()


def test_every_reason_is_counted_once_and_nothing_is_guessed():
    rows = catalogue([10, 20, 20 + 0.8 * ARCSEC, 30, np.nan, 50], [0, 0, 0, 0, 0, 95])
    ra = [10, 20 + 0.4 * ARCSEC, 30, 30 + 0.7 * ARCSEC, np.nan, 60, 10]
    stars = spectra(ra, np.zeros(7), kind=["star", "", "star", "star", "star", "star", "galaxy"])
    match = crossmatch.by_position(stars, rows, FEH, radius=1.0, scale="x")
    assert match.dropped == {"no star: galaxy": 1, "no position": 1, "no row within 1 arcsec": 1, "several rows within 1 arcsec": 1,
                             "its row is claimed by another star": 2}
    assert list(match.stars.labels["star"]) == [0] and match.unused == {"no position": 2, "no spectrum": 3}
    assert sum(match.dropped.values()) + len(match.stars) == len(stars)


def test_repeated_spectra_of_one_star_share_a_row():
    match = crossmatch.by_position(spectra([10.0, 10.0, 10.0], [0, 0, 0], star=["a", "a", "b"]), catalogue([10], [0]), FEH, radius=1, scale="x")
    assert len(match.stars) == 0 and match.dropped == {"its row is claimed by another star": 3}
    match = crossmatch.by_position(spectra([10.0, 10.0], [0, 0], star=["a", "a"]), catalogue([10], [0]), FEH, radius=1, scale="x")
    assert len(match.stars) == 2 and not match.dropped


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 12), st.floats(0.2, 3))
def test_the_same_as_looking_at_every_pair(seed, n, m, radius):
    rng = np.random.default_rng(seed)
    centre = rng.choice([0.0, 359.9999, 180]), rng.choice([-90.0, -40, 0, 89.9999])
    at = [SkyCoord(*centre, unit="deg").spherical_offsets_by(*(rng.uniform(-3, 3, (2, k)) * u.arcsec)) for k in (n, m)]
    stars, rows = spectra(at[0].ra.deg, at[0].dec.deg), catalogue(at[1].ra.deg, at[1].dec.deg)
    match = crossmatch.by_position(stars, rows, FEH, radius=radius, scale="x")
    near = np.array([[here.separation(there).arcsec <= radius for there in at[1]] for here in at[0]]).reshape(n, m)
    one = near.sum(1) == 1
    claimed = near[one].sum(0)
    expected = [i for i in range(n) if one[i] and claimed[near[i].argmax()] == 1]
    assert list(match.stars.labels["star"]) == expected and list(match.rows) == [near[i].argmax() for i in expected]
    assert sum(match.dropped.values()) + len(expected) == n


def test_by_name():
    stars = spectra(np.zeros(6), np.zeros(6), star=np.arange(6), gaia=["11 ", "22", "", "33", "44", "22"], kind=["star", "star", "star", "star", "sky", "star"])
    rows = Table({"source_id": [11, 22, 33, 33, 44, 55], "fe_h": np.arange(6.0)})
    match = crossmatch.by_name(stars, rows, FEH, names=("gaia", "source_id"), scale="x")
    assert match.dropped == {"no star: sky": 1, "no name": 1, "several rows of that name": 1, "its row is claimed by another star": 2}
    assert list(match.stars.labels["feh"]) == [0] and np.isnan(match.separation).all() and match.unused == {"no spectrum": 5}
    none = crossmatch.by_name(stars, rows[:0], FEH, names=("gaia", "source_id"), scale="x")
    assert len(none.stars) == 0 and none.dropped == {"no star: sky": 1, "no name": 1, "no row of that name": 4}
    empty = crossmatch.by_position(stars, catalogue([], []), FEH, radius=1, scale="x")
    assert len(empty.stars) == 0 and empty.dropped == {"no star: sky": 1, "no row within 1 arcsec": 5}


def test_what_is_missing_or_does_not_fit_is_named():
    stars, rows = spectra([1.0], [1]), catalogue([1], [1])
    with pytest.raises(LabelError, match="The catalogue has no column 'FE_H'; there are: ra, dec, fe_h."):
        crossmatch.by_position(stars, rows, {"feh": ("FE_H", "dex")}, radius=1, scale="x")
    with pytest.raises(LabelError, match="The stars have no column 'gaia'; there are: star, ra"):
        crossmatch.by_name(stars, rows, FEH, names=("gaia", "fe_h"), scale="x")
    with pytest.raises(LabelError, match="Label 'teff' is stated in 'dex'; expected K"):
        crossmatch.by_position(stars, rows, {"teff": ("fe_h", "dex")}, radius=1, scale="x")
    with pytest.raises(LabelError, match="The stars have a label 'ra' already, which would be overwritten"):
        crossmatch.by_position(stars, rows, {"ra": ("fe_h", None)}, radius=1, scale="x")


def test_fast_stars_are_moved_to_the_other_epoch():
    barnard = Table({"ra": [269.448502525], "dec": [4.739420051], "pmra": [-802.803], "pmdec": [10362.542]})  # Gaia DR3, epoch 2016.0
    there = crossmatch.moved(barnard, -16.0)
    sky = SkyCoord(17 + 57 / 60 + 48.49803 / 3600, 4 + 41 / 60 + 36.2072 / 3600, unit=("hourangle", "deg"))  # its position at J2000, SIMBAD
    assert SkyCoord(there["ra"], there["dec"], unit="deg").separation(sky)[0].arcsec < 0.2
    assert SkyCoord(barnard["ra"], barnard["dec"], unit="deg").separation(sky)[0].arcsec > 100
    still = crossmatch.moved(Table({"ra": [10.0, 20], "dec": [0.0, 0], "pmra": MaskedColumn([1.0, 0], mask=[0, 1]), "pmdec": [np.nan, 5.0]}), 1000)
    np.testing.assert_allclose(still["ra"], [10 + 1 * ARCSEC, 20], atol=1e-9)
    np.testing.assert_allclose(still["dec"], [0, 5 * ARCSEC], atol=1e-9)


def test_cuts_are_those_of_the_manifest_in_order():
    rows = Table({"starflag": [0, 1, 0, 0, 0, 0], "aspcapflag": [0, 0, 1 << 23, 1 << 19, 1 << 4, 0], "fe_h": [0.1, 0, 0, 0, 0, np.nan]})
    kept, dropped = crossmatch.cut(rows, manifests.load("apogee_dr17").query["cuts"])
    np.testing.assert_array_equal(kept["aspcapflag"], [0, 1 << 4])
    assert dropped == {"starflag equal 0": 1, "aspcapflag without bits [19, 23]": 2, "fe_h finite": 1}
    with pytest.raises(LabelError, match="The catalogue has no column 'starflag', which a cut needs .no problem known; .*; it has: fe_h."):
        crossmatch.cut(rows["fe_h",], manifests.load("apogee_dr17").query["cuts"])
    masked = Table({"snr": MaskedColumn([60.0, 40, 99], mask=[0, 0, 1])})
    assert len(crossmatch.cut(masked, [{"column": "snr", "keep": "at least", "value": 50, "why": ""}])[0]) == 1
    assert len(crossmatch.cut(masked, [{"column": "snr", "keep": "at most", "value": 50, "why": ""}])[0]) == 1


def test_one_row_a_star_the_best():
    rows = Table({"id": ["a", "b", "a", "c", "b"], "snr": [1.0, 9, 5, np.nan, 2]})
    kept, dropped = crossmatch.one_per_star(rows, "id", "snr")
    assert list(kept["id"]) == ["b", "a", "c"] and list(kept["snr"][:2]) == [9, 5] and dropped == {"another row of the star has a larger snr": 2}


@pytest.fixture(scope="module")
def surveys():
    """500 stars with labels and 300 without in DESI, some twice; APOGEE has others besides, repeats and flags."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 900), rng.uniform(-30, 80, 900)
    kind = np.where(np.arange(900) >= 880, "galaxy", "star")
    desi = spectra(np.r_[ra, ra[:40]], np.r_[dec, dec[:40]], star=[f"T{i}" for i in (*range(900), *range(40))], kind=np.r_[kind, kind[:40]],
                   snr=np.r_[rng.uniform(20, 120, 900), np.full(40, 200.0)])
    rows = Table({"ra": np.r_[ra[:560] + 0.2 * ARCSEC, ra[:30], rng.uniform(0, 360, 100)], "dec": np.r_[dec[:560], dec[:30], rng.uniform(-80, -40, 100)]})
    rows["apogee_id"] = [f"2M{i}" for i in (*range(560), *range(30), *range(9000, 9100))]
    rows["snr"], rows["starflag"], rows["aspcapflag"] = rng.uniform(50, 300, 690), np.where(np.arange(690) % 56 == 55, 4, 0), np.zeros(690, int)
    rows["fe_h"], rows["teff"], rows["logg"] = rng.normal(-0.5, 0.4, 690), rng.uniform(4000, 6500, 690), rng.uniform(1, 5, 690)
    rows["teff"][5] = np.nan
    return desi, rows


def test_the_recipe_has_the_published_numbers(surveys):
    found = crossmatch.desi_apogee(*surveys, seed=0)
    stars, split = found.labelled, found.split
    assert len(stars) == 550 and len(set(stars.labels["star"])) == 550  # 560, of which 10 are flagged
    assert (len(split.train), len(split.valid), len(split.test)) == (89, 9, 550 - 98)
    assert not set(split.train) & set(split.test) and len(found.unlabelled) == 164
    assert (crossmatch._snr(found.unlabelled) >= 50).all() and not set(found.unlabelled.labels["star"]) & set(stars.labels["star"])
    assert set(found.unlabelled.labels["object_class"]) == {"star"} and "feh" not in found.unlabelled.labels.colnames
    again = crossmatch.desi_apogee(*surveys, seed=0)
    assert list(again.unlabelled.labels["star"]) == list(found.unlabelled.labels["star"]) and (again.split.train == split.train).all()
    other = crossmatch.desi_apogee(*surveys, seed=1)
    assert list(other.unlabelled.labels["star"]) != list(found.unlabelled.labels["star"])
    dropped = found.dropped
    assert dropped["APOGEE, repeats"] == {"another row of the star has a larger snr": 30 - sum(i % 56 == 55 for i in range(560, 590))}
    assert dropped["DESI, no labels"]["no star: galaxy"] == 20 and dropped["DESI, repeats"] == {"another row of the star has a larger S/N": 40}
    assert (crossmatch._snr(stars)[np.isin(stars.labels["star"], [f"T{i}" for i in range(40)])] > 199).all()  # the better of two spectra


def test_labels_of_the_recipe_are_those_of_the_same_star(surveys):
    desi, rows = surveys
    stars = crossmatch.desi_apogee(desi, rows, seed=0).labelled
    usable = {name: row for name, row in zip(rows["apogee_id"], rows, strict=True) if row["starflag"] == 0}
    best = {}
    for row in rows:
        name = row["apogee_id"]
        if row["starflag"] == 0 and (name not in best or row["snr"] > best[name]["snr"]):
            best[name] = row
    assert len(usable) >= 550
    for star, feh in zip(stars.labels["star"], stars.labels["feh"], strict=True):
        assert feh == best["2M" + star[1:]]["fe_h"]


def test_too_few_stars_are_said(surveys):
    desi, rows = surveys
    with pytest.raises(MismatchError, match="550 stars with labels and 2.. without and S/N >= 50; expected more than 98 and at least 900. Ask for fewer"):
        crossmatch.desi_apogee(desi, rows, seed=0, n_unlabelled=900)


@pytest.fixture(scope="module")
def hats():
    """``hats(table, name, margin)``: a HATS catalogue of several partitions, in this process; numba's compiling makes the first calls slow."""
    lsdb = pytest.importorskip("lsdb", reason="needs lsdb, the extra 'hats'")
    import dask

    def make(table, name, margin=None):
        return lsdb.from_dataframe(table.to_pandas(), ra_column="ra", dec_column="dec", catalog_name=name, lowest_order=0, highest_order=2, partition_rows=400,
                                   margin_threshold=margin)

    with dask.config.set(scheduler="synchronous"):
        yield make


@pytest.mark.filterwarnings("ignore")  # of Dask and pandas, not of ours
def test_partition_by_partition_is_the_same_as_at_once(hats):
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(40, 50, 700), rng.uniform(-5, 5, 700)  # HEALPix pixels of order 0 meet at 45 degrees on the equator
    border = 45 + np.array([-0.1, 0.1, -0.1, 0.1]) * ARCSEC
    ra[:4], dec[:4] = border, [0, 0, 1, 1]
    stars = spectra(np.r_[ra, ra[10:20] + 0.5 * ARCSEC], np.r_[dec, dec[10:20]])
    rows = catalogue(np.r_[ra[:600] + 0.3 * ARCSEC, ra[20:30] - 0.3 * ARCSEC], np.r_[dec[:600], dec[20:30]])
    rows["row"] = np.arange(len(rows))
    match = crossmatch.by_position(stars, rows, FEH, radius=1, scale="x")
    left, right = hats(stars.labels["star", "ra", "dec"], "spectra"), hats(rows, "rows", margin=5.0)
    assert len(left.get_healpix_pixels()) >= 2 and len(right.get_healpix_pixels()) >= 2
    found, dropped = crossmatch.by_position_hats(left, right, star="star", row="row", radius=1)
    found.sort("star")
    np.testing.assert_array_equal(found["star"], match.stars.labels["star"])
    np.testing.assert_array_equal(found["row"], match.rows)
    np.testing.assert_allclose(found["separation"], match.separation, atol=1e-5)
    assert dropped == match.dropped and len(found) > 500
    with pytest.raises(MismatchError, match="The catalogue has no margin of 10 arcsec: pairs across"):
        crossmatch.by_position_hats(left, right, star="star", row="row", radius=10)
    with pytest.raises(MismatchError, match="The catalogue has no margin of 1 arcsec: pairs across the borders of its partitions would be missed"):
        crossmatch.by_position_hats(right, left, star="row", row="star", radius=1)
