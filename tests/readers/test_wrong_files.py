"""Files that are not what they should be: web pages, bombs, traps, other formats; and two processes at once."""

import gzip
import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from astropy.io import fits

from spectrakit.errors import DataFileError
from spectrakit.readers import container, read


@pytest.mark.parametrize("page", [b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", b"\n<HTML>\n<head><title>Sign in</title>",
                                  b"<?xml version='1.0'?><html xmlns='x'><body>moved</body></html>"])
@pytest.mark.parametrize("name", ["spec.fits", "spec.fits.gz", "xp.csv", "xp.xml", "set.npz"])
def test_a_web_page_is_called_one(put, page, name):
    with pytest.raises(DataFileError, match=rf"{name} is a web page \(HTML\), not data: .*download the file anew"):
        read(put(page, name))
    with pytest.raises(DataFileError, match="is a web page"):
        read(put(gzip.compress(page), name))


@pytest.mark.parametrize("content", [b"\x00" * 100, b"\x89HDF\r\n\x1a\n" + b"\0" * 50, b"\x93NUMPY\x01\x00", bytes(range(256))])
def test_what_the_kit_does_not_know_is_named(put, content):
    with pytest.raises(DataFileError, match="x.fits starts with b'.*which is none of FITS, npz, safetensors, VOTable, ECSV or CSV text"):
        read(put(content, "x.fits"))


def test_empty_missing_and_folders(put, tmp_path):
    with pytest.raises(DataFileError, match="x.fits is empty. Copy or download it anew"):
        read(put(b"", "x.fits"))
    with pytest.raises(DataFileError, match="x.gz is empty"):
        read(put(gzip.compress(b""), "x.gz"))
    with pytest.raises(DataFileError, match="There is no file .*none.fits. Check the path"):
        read(tmp_path / "none.fits")
    with pytest.raises(DataFileError, match="There is no file .*which is a folder: name one file in it"):
        read(tmp_path)


def test_a_gzip_bomb_is_not_unpacked(put, monkeypatch):
    monkeypatch.setattr(container, "LIMIT", 2**20)
    bomb = gzip.compress(bytes(2**26))
    assert len(bomb) < 2**17
    with pytest.raises(DataFileError, match="bomb.fits.gz takes more than 1 MiB once unpacked, more than is read at once. If the file is right, cut out the rows"):
        read(put(bomb, "bomb.fits.gz"))


def test_other_bombs(put, monkeypatch, build):
    monkeypatch.setattr(container, "LIMIT", 2**20)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("f.npy", bytes(2**22))
    for content, stated in ((file.getvalue(), build.NPZ), (compressed_image(), {}), (bytes(2**21), {})):
        with pytest.raises(DataFileError, match="takes more than 1 MiB once unpacked"):
            read(put(content, "bomb"), **stated)
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    laughs = f'<?xml version="1.0"?><!DOCTYPE VOTABLE [<!ENTITY l0 "ha">{entities}]><VOTABLE><RESOURCE><TABLE name="&l11;"/></RESOURCE></VOTABLE>'
    with pytest.raises(DataFileError, match="laughs.xml is truncated or damaged, or no VOTable"):
        read(put(laughs.encode(), "laughs.xml"))


def compressed_image():
    """A tiled image of 4 MiB that takes a few kB."""
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((1024, 1024), "f4"), compression_type="GZIP_1")]).writeto(file)
    return file.getvalue()


def test_a_pickle_is_never_loaded(put, tmp_path, build):
    """An npz whose object array would make a file when unpickled."""
    witness = tmp_path / "witness"

    class Trap:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    file = io.BytesIO()
    np.savez(file, w=np.array([Trap()], dtype=object))
    with pytest.raises(DataFileError, match="trap.npz is truncated or damaged, or no npz file .*allow_pickle=False"):
        read(put(file.getvalue(), "trap.npz"), **build.NPZ)
    assert not witness.exists()


def test_a_wrong_checksum_is_named(put, every_format):
    content = bytearray(every_format["desi"][0])
    with fits.open(io.BytesIO(content)) as hdus:
        content[hdus["R_FLUX"].fileinfo()["datLoc"] + 50] ^= 1
    with pytest.raises(DataFileError, match=r"d.fits is truncated or damaged, or no FITS file \(.*verification failed for HDU.*Nothing was read from it"):
        read(put(bytes(content), "d.fits"))
    broken = bytearray(gzip.compress(every_format["lamost image"][0]))
    broken[-8] ^= 1
    with pytest.raises(DataFileError, match="l.fits.gz is truncated or damaged: its gzip stream breaks off or fails its check"):
        read(put(bytes(broken), "l.fits.gz"))


def test_other_fits_files_list_what_is_read(put):
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.zeros((5, 5)))]).writeto(file)
    with pytest.raises(DataFileError, match="picture.fits is a FITS file that is none of LAMOST LRS, DESI coadd or spectra, SDSS spec, MaStar goodspec, APOGEE .*"
                                            "its units: PRIMARY. Other spectra become a SpectraSet through specutils"):
        read(put(file.getvalue(), "picture.fits"))


def test_survey_files_cannot_be_told_otherwise(put, every_format):
    with pytest.raises(DataFileError, match="l.fits is LAMOST LRS, which states units, medium and frame itself; leave out medium"):
        read(put(every_format["lamost image"][0], "l.fits"), medium="air")
    with pytest.raises(DataFileError, match="objects is 'galaxies'; expected \"stars\" or \"all\""):
        read(put(every_format["lamost image"][0], "l.fits"), objects="galaxies")
    with pytest.raises(DataFileError, match="the data set 'miles' states units"):
        read("miles", medium="air")
    with pytest.raises(DataFileError, match="Cannot read a int; expected a name, a path, SPARCL results, or a specutils.Spectrum"):
        read(5)


def test_reading_leaves_the_folder_as_it_was(put, every_format, tmp_path):
    for i, (content, stated) in enumerate(every_format.values()):
        read(put(content, f"f{i}"), **stated)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for i, (_, stated) in enumerate(every_format.values()):
        read(tmp_path / f"f{i}", **stated)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


WRITER = """
import sys, numpy as np
from astropy.table import Table
from spectrakit.errors import DataFileError
from spectrakit.readers import read
from spectrakit.spectra import SpectraSet
value, path = float(sys.argv[1]), sys.argv[2]
n = 2000
stars = SpectraSet(wave=4000 + np.arange(n * 1.0), flux=np.full((20, n), value), ivar=np.ones((20, n)), mask=np.zeros((20, n), bool),
                   labels=Table({"star": range(20)}), survey="x", noise="simulated", medium="air", frame="rest", resolution=np.full(n, 1e3), normalization="none",
                   provenance={"history": []})
for _ in range(40):
    stars.write(path)
    found = read(path)
    assert len(np.unique(found.flux)) == 1, "half of one set, half of another"
"""


def test_two_processes_that_write_one_file_never_mix_it(tmp_path):
    path = tmp_path / "shared.safetensors"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, value, str(path)], stderr=subprocess.PIPE) for value in ("1", "2")]
    for writer in writers:
        _, problem = writer.communicate(timeout=60)
        assert writer.returncode == 0, problem.decode()
    assert list(tmp_path.iterdir()) == [path] and len(np.unique(read(path).flux)) == 1
