"""Random batches of LAMOST-size spectra from disk: the store (Arrow), and what HDF5 and zarr would give.

    python benchmarks/store.py [--n 100000] [--folder /tmp] [arrow hdf5 zarr]

Every form holds flux and ivar (float32) and a mask (one byte) of n x 3909 pixels, uncompressed, 35 kB a spectrum, just written and so in the system's cache. Batches
of 1024 random rows are read for five seconds; rows in a random order, none left out. Rates are given by the clock and by CPU second, because only the second
means something on a busy machine. Memory is what the process holds at its largest after reading began: its own, and mapped pages of files. HDF5 and zarr need
h5py and zarr, which the kit does not; zarr is measured on a tenth of the rows, its rate does not depend on them.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.table import Table

from spectrakit import store
from spectrakit.spectra import SpectraSet

N_PIX, BATCH, ROWS = 3909, 1024, 1024
NAMES, KINDS = ("flux", "ivar", "mask"), ("f4", "f4", "?")


def blocks(n):
    """(flux, ivar, mask) of 1024 spectra at a time, each block other numbers."""
    base = np.random.default_rng(0).normal(1, 0.1, (ROWS, N_PIX)).astype("f4")
    for start in range(0, n, ROWS):
        flux = np.roll(base, start // ROWS, axis=1)[:n - start]
        yield flux, flux + 100, flux > 1.3


def as_set(flux, ivar, mask):
    labels = Table({"star": np.arange(len(flux)).astype("U8"), "teff": np.full(len(flux), 5000.0)}, units={"teff": "K"})
    return SpectraSet(wave=10 ** (3.5682 + 1e-4 * np.arange(N_PIX)), flux=flux, ivar=ivar, mask=mask, labels=labels, survey="lamost_lrs", medium="vacuum",
                      frame="rest", resolution=np.full(N_PIX, 1800.0), normalization="none", noise="measured", provenance={})


def memory():
    """MB that the process holds: its own, and of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(status[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")]


def report(name, n, write, size, read):
    rng, count, highest = np.random.default_rng(1), 0, [0, 0]
    read(rng.integers(0, n, BATCH))
    began, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < 5:
        flux, ivar, mask = read(rng.integers(0, n, BATCH))
        assert flux.shape == ivar.shape == mask.shape == (BATCH, N_PIX)
        count, highest = count + BATCH, [max(pair) for pair in zip(highest, memory(), strict=True)]
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    print(f"{name:34s}{n:8d}{size / 1e9:7.2f}{write[0]:9.0f}{write[1]:8.0f}{count / wall:11.0f}{count / cpu:11.0f}{highest[0]:8d}{highest[1]:8d}", flush=True)


def timed(work):
    """Seconds by the clock and of the processor until it is on disk; what waits to be written would slow the reading."""
    began, used = time.perf_counter(), time.process_time()
    work()
    os.sync()
    return time.perf_counter() - began, time.process_time() - used


def arrow(folder, n):
    path = folder / "spectra.arrow"
    took = timed(lambda: store.write(path, (as_set(*block) for block in blocks(n))))
    opened = store.Store(path)
    report("Arrow, the store, checked", n, took, path.stat().st_size, opened.arrays)
    opened._read = opened._copy
    report("Arrow, through the map, checked", n, took, path.stat().st_size, opened.arrays)


def hdf5(folder, n):
    import h5py
    path = folder / "spectra.h5"

    def fill():
        with h5py.File(path, "w") as file:
            sets = [file.create_dataset(name, (n, N_PIX), kind) for name, kind in zip(NAMES, KINDS, strict=True)]
            for start, block in zip(range(0, n, ROWS), blocks(n), strict=True):
                for data, values in zip(sets, block, strict=True):
                    data[start:start + len(values)] = values

    took = timed(fill)
    with h5py.File(path) as file:
        sets = [file[name] for name in NAMES]

        def select(rows):
            rows, back = np.unique(rows, return_inverse=True)  # h5py takes rows in increasing order alone
            return [data[rows][back] for data in sets]

        report("HDF5, contiguous, h5py", n, took, path.stat().st_size, select)
        mapped = [np.memmap(path, data.dtype, "r", data.id.get_offset(), data.shape) for data in sets]
    report("HDF5, contiguous, numpy map", n, took, path.stat().st_size, lambda rows: [array[rows] for array in mapped])


def zarr(folder, n):
    import zarr
    n = max(n // 10, ROWS)
    root = zarr.open_group(folder / "spectra.zarr", mode="w")

    def fill():
        for name, kind in zip(NAMES, KINDS, strict=True):
            root.create_array(name, shape=(n, N_PIX), dtype=bool if kind == "?" else kind, chunks=(16, N_PIX), shards=(ROWS, N_PIX), compressors=None)
        for start, block in zip(range(0, n, ROWS), blocks(n), strict=True):
            for name, values in zip(NAMES, block, strict=True):
                root[name][start:start + len(values)] = values

    took = timed(fill)
    size = sum(path.stat().st_size for path in (folder / "spectra.zarr").rglob("*") if path.is_file())
    report("zarr 3, chunks of 16 rows", n, took, size, lambda rows: [root[name].oindex[rows] for name in NAMES])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("forms", nargs="*", default=["arrow"], help="arrow, hdf5, zarr")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--folder", default=None)
    args = parser.parse_args()
    print(f"{'form':34s}{'n':>8s}{'GB':>7s}{'write s':>9s}{'CPU s':>8s}{'rows/s':>11s}{'rows/CPU s':>11s}{'own MB':>8s}{'map MB':>8s}")
    for form in args.forms:
        place = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            {"arrow": arrow, "hdf5": hdf5, "zarr": zarr}[form](place, args.n)
        finally:
            shutil.rmtree(place)
