"""Many spectra on disk in one memory-mapped Arrow file: written in blocks, opened at once, read in random batches, every row checked.

>>> write("lamost.arrow", (sk.read(path) for path in paths))          # sets on one grid, for instance after normalising
>>> store = Store("lamost.arrow")
>>> store[[7, 3, 99]]                                                   # a SpectraSet
>>> stream = Stream(store.examples(prepare), batch=128, seed=0)         # what the training loop reads

Arrow IPC, uncompressed. One record batch a block; columns flux, ivar (float32) and mask (uint8), a row's pixels side by side, the labels, and ``crc32`` of a row's
pixels. What holds for all rows (grid, frame, units of labels, provenance) is JSON in the schema. Why Arrow and how fast: docs/store.md, benchmarks/store.py.
"""

from __future__ import annotations

import mmap
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import numpy as np
from astropy.table import Column, Table
from jaxtyping import Bool, Float

from .errors import DataFileError, MismatchError, SpectrumError
from .spectra import SpectraSet, same_scale

BLOCK = 1024                                                        # rows of a record batch
ANEW = "Write or copy the file anew."


def write(path: str | os.PathLike, sets: Iterable[SpectraSet]) -> Path:
    """All spectra of ``sets``, one set after the other, in one file; in memory is one set and one block of 1024 rows.

    Flux and ivar become float32; what is under the mask becomes 0. The file appears under its name when it is whole.

    Raises
    ------
    MismatchError
        A set differs from the first in grid, medium, frame, resolution, normalisation, noise, label columns or label scale.
    SpectrumError
        No spectra at all; or numbers that float32 cannot hold (flux in W / m2 / nm): scale them first.
    LabelError
        A label that is neither numbers, booleans nor text, one a star.
    DataFileError
        The folder cannot be written to, or the provenance is not JSON-able.
    """
    path, sets = Path(path), iter(sets)
    first = next(sets, None)
    if first is None:
        raise SpectrumError(f"There are no spectra to write to {path.name}; expected at least one SpectraSet.")
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            _write(file, first, sets)
        os.replace(temporary, path)
    except OSError as error:
        raise DataFileError(f"Cannot write {path}: {error.strerror}. Choose a folder that exists, can be written to, and has room.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


class Store:
    """The spectra of a file that ``write`` made; opening reads its schema alone.

    Attributes
    ----------
    wave, resolution : (n_pix,), as of ``SpectraSet``. about : survey, medium, frame, normalization, noise, provenance of all spectra.

    Raises
    ------
    DataFileError
        Missing, truncated or corrupted file, or one of another kind.
    """

    def __init__(self, path: str | os.PathLike):
        import pyarrow as pa

        from . import arrow_blocks
        self.path = Path(path)
        if not self.path.is_file():
            raise DataFileError(f"There is no file {self.path}; expected one that spectrakit.store.write made. Check the path.")
        self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._fd)
        try:
            self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
            self._file = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
            content = arrow_blocks.described(self._file.schema)
        except Exception as error:
            raise DataFileError(f"{self.path} is truncated or corrupted, or no Arrow file ({_line(error)}). {ANEW}") from error
        if content.get("format") != arrow_blocks.FORMAT:
            raise DataFileError(f"{self.path} is corrupted, or an Arrow file of another kind: its schema has no {arrow_blocks.FORMAT} with a right SHA-256. {ANEW}")
        self.about, self._labels = content["about"], content["labels"]
        self.wave, self.resolution = (np.array(content[name]) for name in ("wave", "resolution"))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows) -> SpectraSet:
        """The chosen rows (slice, integer array or boolean array), in this order, as a SpectraSet; one integer gives a set of one."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        flux, ivar, mask = self.arrays(rows)
        return SpectraSet(wave=self.wave, flux=flux, ivar=ivar, mask=mask, labels=self.labels[rows], resolution=self.resolution, **self.about)

    def __repr__(self) -> str:
        return (f"Store({len(self)} x {self.wave.size} pixels, {self.wave[0]:.1f}-{self.wave[-1]:.1f} A {self.about['medium']}, {self.about['survey']}, "
                f"labels: {', '.join(entry['name'] for entry in self._labels) or 'none'})")

    @cached_property
    def labels(self) -> Table:
        """The labels of all spectra, read when first asked for.

        Raises
        ------
        DataFileError
            They are not what was written.
        """
        from . import arrow_blocks

        def read(block, beside):
            chosen = block.select([entry["name"] for entry in self._labels])
            chosen.validate(full=True)
            return beside.get("crc32"), arrow_blocks.crc_labels(chosen, self._labels), [arrow_blocks.values(chosen, entry) for entry in self._labels]

        blocks = [self._from_block(i, read) for i in range(self._file.num_record_batches)]
        wrong = [i for i, (said, found, _) in enumerate(blocks) if said != found]
        if wrong:
            raise self._corrupted(f"the label columns of block {wrong[0]}")
        return Table([Column(np.concatenate(parts), name=entry["name"], unit=entry["unit"], description=entry["description"])
                      for entry, *parts in zip(self._labels, *(columns for *_, columns in blocks), strict=True)])

    def arrays(self, rows: np.ndarray) -> tuple[Float[np.ndarray, "n n_pix"], Float[np.ndarray, "n n_pix"], Bool[np.ndarray, "n n_pix"]]:
        """Flux and ivar (float32) and mask of these rows, in this order, each row checked by its CRC-32.

        Raises
        ------
        IndexError
            A row that is not there.
        DataFileError
            A row is not what was written.
        """
        rows = np.asarray(rows, int)
        if rows.size and not (0 <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} asked of a store of {len(self)}.")
        n_pix = self.wave.size
        found = np.empty((len(rows), n_pix), "f4"), np.empty((len(rows), n_pix), "f4"), np.empty((len(rows), n_pix), "u1")
        blocks = np.searchsorted(self._starts, rows, "right") - 1
        fill = self._read if hasattr(os, "preadv") else self._copy
        for out, (block, at) in enumerate(zip(blocks.tolist(), (rows - self._starts[blocks]).tolist(), strict=True)):
            *places, said = self._blocks[block]
            crc = 0
            for array, place in zip(found, places, strict=True):
                target = array[out]
                fill(target, place + at * target.nbytes)
                crc = zlib.crc32(target, crc)
            if crc != said[at]:
                raise self._corrupted(f"row {rows[out]}")
        return found[0], found[1], found[2].view(bool)

    def sets(self, size: int = BLOCK) -> Iterator[SpectraSet]:
        """All spectra in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start:start + size]

    def examples(self, prepare: Callable[[SpectraSet], tuple]) -> Callable[[int, int], tuple]:
        """``make(n, seed)`` for ``spectrakit.pretraining.Stream``: ``prepare`` of ``n`` random spectra, none twice as long as there are enough.

        >>> stream = Stream(store.examples(lambda stars: (torch.as_tensor(fill_masked(stars)).float(),)), batch=128, seed=0)
        """
        def make(n: int, seed: int) -> tuple:
            return prepare(self[np.random.default_rng(seed).choice(len(self), n, replace=n > len(self))])
        return make

    @cached_property
    def _starts(self):
        """(n_blocks + 1,) number of the first row of each block, and of all rows."""
        return np.cumsum([0, *(len(said) for *_, said in self._blocks)])

    @cached_property
    def _blocks(self):
        """Per block where its flux, ivar and mask begin in the file, and the CRC-32 of its rows."""
        import pyarrow as pa

        from .arrow_blocks import PIXELS
        base = pa.py_buffer(self._map).address

        def read(block, _):
            block.select([*PIXELS, "crc32"]).validate()
            if any(block.column(name).flatten().nbytes != block.num_rows * self.wave.size * size for name, size in zip(PIXELS, (4, 4, 1), strict=True)):
                raise ValueError("its pixels are not those of the schema")
            return *(block.column(name).flatten().buffers()[1].address - base for name in PIXELS), block.column("crc32").to_numpy()

        return [self._from_block(i, read) for i in range(self._file.num_record_batches)]

    def _read(self, target, start):
        """Fill an array with what stands in the file from byte ``start`` on. Not through the map: mapped pages count as this process's memory, and systems map
        far more around a row than the row, 2 MiB on Linux 6.18."""
        os.preadv(self._fd, [target], start)

    def _copy(self, target, start):
        """The same through the map, for systems without ``preadv``."""
        target[:] = np.frombuffer(self._map, target.dtype, target.size, start)

    def _from_block(self, i, read):
        try:
            return read(*self._file.get_batch_with_custom_metadata(i))
        except Exception as error:  # of damaged bytes Arrow makes nearly every kind there is
            raise DataFileError(f"{self.path} is truncated or corrupted in block {i} ({_line(error)}). {ANEW}") from error

    def _corrupted(self, what):
        return DataFileError(f"{self.path} is corrupted: {what} does not have the CRC-32 written with it. {ANEW}")


def _write(file, first, sets):
    import pyarrow as pa

    from . import arrow_blocks
    kind = arrow_blocks.schema(first)
    labels = arrow_blocks.described(kind)["labels"]
    with pa.ipc.new_file(file, kind) as writer:
        waiting = kind.empty_table()
        for number, stars in enumerate(_same(first, sets)):
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([arrow_blocks.batch(stars, kind, number)])])
            while len(waiting) >= BLOCK:
                _write_block(writer, waiting.slice(0, BLOCK), labels)
                waiting = waiting.slice(BLOCK)
        _write_block(writer, waiting, labels)


def _write_block(writer, rows, labels):
    from . import arrow_blocks
    for block in rows.combine_chunks().to_batches():  # one, or none without rows
        writer.write_batch(block, custom_metadata={"crc32": arrow_blocks.crc_labels(block, labels)})


def _same(first, sets):
    """``first`` and then ``sets``, each found to go with it."""
    from .arrow_blocks import entry
    yield first
    for number, stars in enumerate(sets, 1):
        for name in ("survey", "medium", "frame", "normalization", "noise"):
            if getattr(stars, name) != getattr(first, name):
                raise MismatchError(f"{name} is {getattr(first, name)!r} in the first set and {getattr(stars, name)!r} in set {number}; bring them to the same.")
        for name, tolerance in (("wave", 1e-9), ("resolution", 1e-3)):
            here, there = getattr(stars, name), getattr(first, name)
            if here.shape != there.shape or not np.allclose(here, there, rtol=tolerance, atol=0):
                raise MismatchError(f"Set {number} has another {name} than the first; normalise them onto one grid first.")
        if [entry(stars.labels[name]) for name in stars.labels.colnames] != [entry(first.labels[name]) for name in first.labels.colnames]:
            raise MismatchError(f"The labels of set {number} are {_columns(stars)}; those of the first are {_columns(first)}. Give all sets the same columns, "
                                "of the same types, units and descriptions, in one order.")
        same_scale(first, stars)
        yield stars


def _columns(stars):
    return ", ".join(f"{name} ({column.dtype}, {column.unit})" for name, column in stars.labels.columns.items()) or "none"


def _line(error):
    return str(error).strip().split("\n")[0]
