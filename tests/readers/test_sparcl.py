"""SPARCL results as the client gives them: mappings with attribute names of the service's field catalogue."""

from types import SimpleNamespace

import numpy as np
import pytest

from spectrakit.errors import DataFileError, SpectrumError
from spectrakit.readers import read


class Record(dict):
    """As in the client: a dict whose items are attributes too."""

    __getattr__ = dict.__getitem__


def record(i=0, release="DESI-DR1", n=50, start=3600.0, **changes):
    rng = np.random.default_rng(i)
    wave = start + 0.8 * np.arange(n) if release.startswith("DESI") else 10 ** (np.log10(start) + 1e-4 * np.arange(n))
    return Record({"sparcl_id": f"uuid-{i}", "specid": 100 + i, "targetid": 39627000 + i, "data_release": release, "wavelength": wave, "spectype": "STAR",
                   "flux": rng.normal(3, 0.1, n), "ivar": np.full(n, 100.0), "mask": np.zeros(n, int), "ra": 10.0 + i, "dec": -5.0, "redshift": 1e-4,
                   "redshift_err": None, "wave_sigma": np.full(n, 0.72 if release.startswith("DESI") else 1.1), **changes})


def results(*records):
    return SimpleNamespace(records=list(records))


def test_desi_records_become_rows():
    records = [record(0), record(1)]
    records[1]["mask"][3] = 4
    stars = read(results(*records))
    assert len(stars) == 2 and (stars.survey, stars.medium, stars.frame) == ("desi", "vacuum", "heliocentric")
    good = ~stars.mask
    np.testing.assert_array_equal(stars.flux[good], np.stack([r.flux for r in records])[good])
    np.testing.assert_array_equal(stars.wave, records[0].wavelength)
    assert np.argwhere(~good).tolist() == [[1, 3]] and stars.provenance["masked"] == {"COSMIC": 1}
    np.testing.assert_allclose(stars.resolution, stars.wave / (2.354820 * 0.72), rtol=1e-6)
    assert list(stars.labels["star"]) == ["39627000", "39627001"] and stars.labels["ra"].unit == "deg" and stars.labels["z"][0] == 1e-4
    assert stars.provenance["origin"].startswith("SPARCL, DESI-DR1") and np.array_equal(read(records).flux, stars.flux)


def test_sdss_records_of_different_ranges_share_a_grid():
    start = 10**3.58
    a, b = record(0, "SDSS-DR16", 60, start), record(1, "SDSS-DR16", 50, start * 10 ** (7e-4))
    stars = read(results(a, b))
    assert stars.wave.size == 60 and stars.survey == "sdss"
    np.testing.assert_allclose(stars.wave, a.wavelength, rtol=1e-12)
    np.testing.assert_array_equal(stars.flux[1, 7:57], b.flux)
    assert stars.mask[1].sum() == 10 and not stars.mask[0].any() and stars.provenance["masked"]["no pixel in this record"] == 10
    np.testing.assert_allclose(stars.resolution, 1 / (2.354820 * 1.1 * 1e-4 * np.log(10)), rtol=1e-6)


def test_what_is_no_star_is_refused_or_marked():
    found = results(record(0), record(1, spectype="GALAXY"))
    with pytest.raises(SpectrumError, match=r"1 of 2 objects in SimpleNamespace are no stars \(galaxy: 1; first in row 1\)"):
        read(found)
    assert list(read(found, objects="all").labels["object_class"]) == ["star", "galaxy"]


WRONG = {"field": ([record(0, ivar=None)], r"records lack ivar; ask for it: client.retrieve\(..., include=\[..., 'ivar'\]\)"),
         "length": ([record(0, flux=np.ones(3))], r"record 0 has arrays of different lengths: wavelength \(50,\), flux \(3,\)"),
         "surveys": ([record(0), record(1, "BOSS-DR16")], "records are of desi, sdss; expected one of desi, sdss. Read them survey by survey"),
         "survey": ([record(0, "XYZ-DR1")], "records are of XYZ-DR1; expected one of desi, sdss"),
         "grid": ([record(0), record(1, start=3600.3)], "wavelengths on no common grid of 0.0001"),
         "width": ([record(0, wave_sigma=np.zeros(50))], "wave_sigma of the SPARCL records is nowhere positive"),
         "name": ([record(0, sparcl_id=None, specid=None, targetid=None)], "neither targetid nor specid nor sparcl_id")}


@pytest.mark.parametrize("case", WRONG)
def test_records_that_cannot_be_one_set_are_refused(case):
    records, message = WRONG[case]
    with pytest.raises(DataFileError, match=message):
        read(results(*records))


def test_nothing_can_be_stated():
    with pytest.raises(DataFileError, match="a SPARCL result states units, medium and frame itself; leave out medium"):
        read(results(record()), medium="air")
