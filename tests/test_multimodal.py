"""To and from the schema of the Multimodal Universe: against tables written by hand as its data sets have them."""

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit import store
from spectrakit.errors import DataFileError, MismatchError
from spectrakit.multimodal import from_multimodal, to_multimodal
from spectrakit.spectra import SpectraSet

STATED = dict(survey="desi", medium="vacuum", frame="heliocentric", normalization="none", lsf_unit="pixel", object_class="star")
SPECTRUM = pa.struct([(name, pa.list_(pa.float32())) for name in ("flux", "ivar", "lsf_sigma", "lambda")] + [("mask", pa.list_(pa.bool_()))])


def written(n=3, n_pix=20, **fields):
    """As the DESI set of the Multimodal Universe has it: a struct of lists, ``object_id`` as text, catalogue columns in float32."""
    rng = np.random.default_rng(0)
    row = lambda: {"flux": rng.normal(1, 0.1, n_pix).tolist(), "ivar": rng.uniform(1, 2, n_pix).tolist(), "lsf_sigma": [0.75] * n_pix,  # noqa: E731
                   "lambda": (3600 + 0.8 * np.arange(n_pix)).tolist(), "mask": [False] * n_pix}
    rows = [{**row(), **{name: value[i] for name, value in fields.items()}} for i in range(n)]
    return pa.table({"spectrum": pa.array(rows, SPECTRUM), "object_id": pa.array([f"{3960 + i}" for i in range(n)]),
                     "teff": pa.array([5000.0, np.nan, 6000.0][:n], pa.float32()), "ebv": pa.array([0.1] * n, pa.float32()), "ZWARN": pa.array([False] * n)})


def stars(n=4, n_pix=30, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n_pix)) < 0.2
    flux, ivar = rng.normal(1, 0.1, (n, n_pix)), rng.uniform(50, 150, (n, n_pix))
    flux[mask] = np.nan
    wave = 10 ** (3.6 + 1e-4 * np.arange(n_pix))
    labels = Table({"star": np.array([f"s{i}" for i in range(n)]), "object_class": ["star"] * n, "teff": rng.uniform(4000, 7000, n), "rv": rng.normal(0, 50, n),
                    "coeff": rng.normal(0, 1, (n, 5))})
    labels["teff"].unit = u.K
    return SpectraSet(wave=wave, flux=flux, ivar=ivar, mask=mask, labels=labels, survey="desi", medium="vacuum", frame="heliocentric",
                      resolution=np.linspace(1700, 1900, n_pix), normalization="none", noise="measured", provenance={"origin": "made"})


def test_a_table_as_the_data_sets_have_it_is_read():
    table = written()
    found = from_multimodal(table, **STATED)
    np.testing.assert_allclose(found.wave, 3600 + 0.8 * np.arange(20), rtol=1e-7)
    np.testing.assert_array_equal(found.flux[1], np.array(table["spectrum"][1].as_py()["flux"], "f4"))
    np.testing.assert_allclose(found.resolution, found.wave / (2.354820045 * 0.75 * 0.8), rtol=1e-4)
    assert list(found.labels["star"]) == ["3960", "3961", "3962"] and found.labels["teff"].unit == u.K and np.isnan(found.labels["teff"][1])
    assert set(found.labels["object_class"]) == {"star"} and found.labels["ebv"].description == "Multimodal Universe column ebv"
    angstrom = from_multimodal(table, **{**STATED, "lsf_unit": "Angstrom"})
    np.testing.assert_allclose(angstrom.resolution / found.resolution, 0.8, rtol=1e-4)


def test_lists_of_fixed_length_are_the_same():
    """``datasets`` writes a ``Sequence(..., length=n)`` as lists of fixed size."""
    table = written()
    fixed = pa.struct([(name, pa.list_(field.value_type, 20)) for name, field in ((f.name, f.type) for f in SPECTRUM)])
    other = table.set_column(0, "spectrum", pa.array(table["spectrum"].to_pylist(), fixed))
    np.testing.assert_array_equal(from_multimodal(other, **STATED).flux, from_multimodal(table, **STATED).flux)
    np.testing.assert_array_equal(from_multimodal(other.slice(1, 1), **STATED).ivar, from_multimodal(table, **STATED).ivar[1:2])


def test_what_cannot_be_used_is_masked():
    flux, ivar, mask = np.ones((3, 20)), np.ones((3, 20)), np.zeros((3, 20), bool)
    flux[0, 3], ivar[1, 4:6], mask[2, 7] = np.nan, [0, -1], True
    found = from_multimodal(written(flux=flux.tolist(), ivar=ivar.tolist(), mask=mask.tolist()), **STATED)
    assert [np.flatnonzero(row).tolist() for row in found.mask] == [[3], [4, 5], [7]]


def test_galaxies_get_no_stellar_labels():
    found = from_multimodal(written(), **{**STATED, "object_class": "galaxy"})
    assert np.isnan(found.labels["teff"]).all() and not np.isnan(found.labels["ebv"]).any() and set(found.labels["object_class"]) == {"galaxy"}


def test_a_slice_of_a_longer_table():
    table = written()
    part = from_multimodal(table.slice(1, 2), **STATED)
    whole = from_multimodal(pa.concat_tables([table.slice(0, 1), table.slice(1, 2)]), **STATED)
    np.testing.assert_array_equal(part.flux, whole.flux[1:])
    assert list(part.labels["star"]) == ["3961", "3962"]


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 99))
def test_there_and_back(n, n_pix, seed):
    before = stars(n, n_pix, seed)
    table = to_multimodal(before)
    assert table.schema.field("spectrum").type == SPECTRUM and table.schema.field("object_id").type == pa.string()
    assert table.column_names == ["spectrum", "object_id", "teff", "rv"]  # neither text nor rows of numbers
    after = from_multimodal(table, **STATED)
    np.testing.assert_array_equal(after.mask, before.mask)
    for name in ("flux", "ivar"):
        np.testing.assert_array_equal(getattr(after, name), np.where(before.mask, 0, getattr(before, name)).astype("f4"))
    np.testing.assert_allclose(after.wave, before.wave, rtol=1e-7)
    np.testing.assert_allclose(after.resolution, before.resolution, rtol=2e-3)  # float32 wavelengths a pixel apart
    np.testing.assert_allclose(after.labels["teff"], before.labels["teff"], rtol=1e-6)


def test_through_the_store(tmp_path):
    path = store.write(tmp_path / "x.arrow", (from_multimodal(written(), **STATED) for _ in range(2)))
    opened = store.Store(path)
    back = pa.concat_tables([to_multimodal(part) for part in opened.sets(4)])
    assert back["object_id"].to_pylist() == [f"{3960 + i}" for i in range(3)] * 2
    np.testing.assert_array_equal(np.array(back["spectrum"].combine_chunks().field("flux").to_pylist(), "f4")[:3],
                                  np.array(written()["spectrum"].combine_chunks().field("flux").to_pylist(), "f4"))


WRONG = {
    "no spectrum": (lambda t: t.drop_columns("spectrum"), DataFileError, "The table lacks spectrum; expected the schema of the Multimodal Universe"),
    "no id": (lambda t: t.drop_columns("object_id"), DataFileError, "The table lacks object_id"),
    "no rows": (lambda t: t.slice(0, 0), DataFileError, "The table has no rows"),
    "no lsf": (lambda t: t.set_column(0, "spectrum", pa.array([{"flux": [1.0, 2]}] * 3)), DataFileError, "The table lacks spectrum.ivar"),
    "grids": (lambda t: pa.concat_tables([t, written(**{"lambda": (4000 + np.arange(60.0)).reshape(3, 20).tolist()})]), MismatchError, "on different grids"),
    "lengths": (lambda t: pa.concat_tables([t, written(n_pix=10)]), DataFileError, "The lists spectrum.flux have 10 to 20 values; expected the same number in"),
    "fields": (lambda t: written(ivar=np.ones((3, 19)).tolist()), DataFileError, "The lists of spectrum have different lengths: flux 20, ivar 19"),
    "lsf": (lambda t: written(lsf_sigma=np.zeros((3, 20)).tolist()), DataFileError, "lsf_sigma is not positive everywhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_tables_are_named(case):
    change, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        from_multimodal(change(written()), **STATED)


def test_the_unit_of_the_line_spread_has_to_be_one_of_two():
    with pytest.raises(MismatchError, match="lsf_unit is 'nm'; expected \"pixel\" or \"Angstrom\""):
        from_multimodal(written(), **{**STATED, "lsf_unit": "nm"})
