"""Every format, damaged: misnamed, cut off, bits flipped, headers overwritten. A clear error or the same numbers, and nothing else."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrakit.errors import DataFileError, SpectrakitError
from spectrakit.readers import read
from spectrakit.spectra import SpectraSet

FORMATS = ["lamost image", "lamost image, gzipped", "lamost table", "lamost pilot", "desi", "sdss", "mastar", "apStar", "aspcapStar", "xp csv", "xp votable",
           "xp ecsv", "xp fits", "xp continuous csv", "xp continuous votable", "xp continuous ecsv", "xp continuous fits", "csv", "npz"]
CHECKED = ["lamost image, gzipped", "desi", "npz"]  # checksums in the file: no flipped bit in data can pass


def same(a: SpectraSet, b: SpectraSet) -> None:
    for name in ("wave", "flux", "ivar", "mask", "resolution"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    names = [name for name in a.labels.colnames if name != "spectrum"]  # the file's name
    assert a.labels[names].pformat() == b.labels[names].pformat()


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_decides_and_not_the_name(every_format, put, name):
    content, stated = every_format[name]
    reference = read(put(content, "as_it_should.fits"), **stated)
    for wrong in ("x.csv", "x.xml", "x.npz", "x", "x.pickle"):
        same(read(put(content, wrong), **stated), reference)
    if not content.startswith(b"\x1f\x8b"):
        same(read(put(gzip.compress(content), "x.gz"), **stated), reference)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_off_at_fifty_places(every_format, put, name):
    content, stated = every_format[name]
    reference = read(put(content, "whole"), **stated)
    for cut in np.linspace(0, len(content) - 1, 50).astype(int):
        path = put(content[:cut], "cut")
        try:
            found = read(path, **stated)
        except DataFileError as error:
            assert "cut" in str(error)
            continue
        if name in ("csv", "xp csv") and content[:cut].endswith(b"\n"):  # whole rows less: no reader can know
            assert len(found) * found.wave.size < len(reference) * reference.wave.size
        else:
            same(found, reference)  # only padding, or a unit behind all that is read, was lost


@pytest.mark.parametrize("name", FORMATS)
def test_flipped_bits(every_format, put, name):
    """Anything but a SpectraSet or an error of the kit fails the test; where the format has checksums, so do other numbers."""
    content, stated = every_format[name]
    reference = read(put(content, "whole"), **stated)

    @settings(max_examples=40)
    @given(st.integers(0, len(content) - 1), st.integers(0, 7))
    def flip(position, bit):
        broken = bytearray(content)
        broken[position] ^= 1 << bit
        try:
            found = read(put(bytes(broken), "flipped"), **stated)
        except SpectrakitError:
            return
        if name in CHECKED:
            same(found, reference)

    flip()


@pytest.mark.parametrize("name", ["lamost image", "desi", "sdss", "apStar", "xp fits", "mastar"])
def test_a_damaged_header_is_an_error_of_the_kit(every_format, put, name):
    """Whole cards overwritten, which single bits do not do."""
    content, stated = every_format[name]
    cards = [80 * i for i in range(len(content) // 80) if content[80 * i + 8 : 80 * i + 10] == b"= "]

    @settings(max_examples=60)
    @given(st.sampled_from(cards), st.sampled_from([b"9" * 20, b"-1".rjust(20), b"'text'".ljust(20), b"T".rjust(20), b"\xff" * 20, b"1E999".rjust(20), b" " * 20]))
    def damage(at, value):
        broken = content[: at + 10] + value + content[at + 30 :]
        try:
            read(put(broken, "damaged"), **stated)
        except SpectrakitError:
            pass

    damage()
