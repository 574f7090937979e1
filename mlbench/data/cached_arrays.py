"""Arrays on disk with checksummed rows; bad rows are recomputed.

A file holds N records: the bytes of a row, and a CRC-32 of the array's identity, the row's position
and its bytes. A row that is missing, damaged, moved, or of another array does not match its
checksum, and is computed when it is read. Files need no lock: all processes that compute an array
write the same records, and the rows of an interrupted process are kept.
"""

from __future__ import annotations

import errno
import logging
import os
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlbench.files import source_digest

Rows = NDArray[Any]
Positions = NDArray[np.int64]

_FORMAT = "mlbench rows 1"
_MARK = 4
"""Bytes of a checksum; one follows each row, and one ends a finished file."""
_SAMPLE = 16
"""Number of rows that are checked when a file is opened."""

_LOG = logging.getLogger(__name__)


def pixel_code() -> str:
    """Digest of the code that turns an image file into the pixels that a model sees.

    It covers all of ``mlbench.data``, so that no change is missed; after a change that affects no
    pixel, caches are merely recomputed.
    """
    return source_digest("mlbench.data")


class CachedArray:
    """An array [N, ...] on disk. Several threads and processes may use one file.

    Args:
        file: created if it does not exist; it takes space on disk as rows are written.
        what: names the array in the log, in the plural: "feature maps of train".
        shape: [N, ...].
        dtype: type of the elements.
        make: ascending positions [B] -> rows [B, ...]; deterministic. Any thread that reads may
            call it.
        chunk: number of rows that are computed together, if results depend on that; chunks start
            at its multiples. None computes any rows together.

    Raises:
        OSError: the file can be neither opened nor created.
    """

    def __init__(
        self,
        file: Path,
        what: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        make: Callable[[Positions], Rows],
        chunk: int | None = None,
    ) -> None:
        self.what, self.shape, self.dtype = what, shape, np.dtype(dtype)
        self.make, self.chunk = make, chunk
        text = f"{_FORMAT} {file.parent.name}/{file.name} {shape} {self.dtype.str}"
        self._seed = zlib.crc32(text.encode())
        self._record = int(np.prod(shape[1:])) * self.dtype.itemsize + _MARK
        self._end = shape[0] * self._record
        self._checked = np.zeros(shape[0], np.bool_)
        self._reported = False
        try:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.finished = False
        self.finished = self._open()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def bytes_missing(self) -> int:
        """Bytes of disk space that the unwritten rows will take."""
        return max(self._end - os.fstat(self._descriptor).st_blocks * 512, 0)

    def read(self, positions: Positions) -> Rows:
        """The rows at these positions [B], checked at their first read; bad rows are recomputed.

        Raises:
            Exception: what ``make`` raises.
        """
        rows = np.empty((len(positions), *self.shape[1:]), self.dtype)
        pairs = zip(rows, positions.tolist(), strict=True)
        good = np.array([self._read_row(row, position) for row, position in pairs], np.bool_)
        if not good.all():
            rows[~good] = self._make_again(positions[~good])
        return rows

    def valid(self, positions: Positions) -> bool:
        """True if the rows at these positions match their checksums, each checked anew."""
        row = np.empty(self.shape[1:], self.dtype)
        self._checked[positions] = False
        return all(self._read_row(row, position) for position in positions.tolist())

    def write(self, positions: Positions, rows: Rows) -> None:
        """Write rows [B, ...] with their checksums.

        Raises:
            OSError: the disk is full, or the file is read-only.
        """
        for row, position in zip(rows, positions.tolist(), strict=True):
            content = np.ascontiguousarray(row, self.dtype)
            mark = self._checksum(content, position).to_bytes(_MARK, "little")
            start = position * self._record
            if os.pwritev(self._descriptor, [content.data, mark], start) != self._record:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self) -> None:
        """Mark the file as complete after all rows are written; from now on a bad row is damage.

        Raises:
            OSError: the file cannot be written.
        """
        os.pwrite(self._descriptor, self._seed.to_bytes(_MARK, "little"), self._end)
        self.finished = True

    def _open(self) -> bool:
        """Give the file its size; True if it was finished and some of its rows match."""
        size = os.fstat(self._descriptor).st_size
        if os.pread(self._descriptor, _MARK + 1, self._end) == self._seed.to_bytes(_MARK, "little"):
            self.finished = True
            some = np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(np.int64)
            sound = self.valid(some)
            self._checked[:] = False  # the file may change before its rows are used
            return sound
        if size not in (0, self._end):
            self._report("its length or its end is wrong")
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._end)
        return False

    def _checksum(self, row: Rows, position: int) -> int:
        """Checksum of a row; never 0, which marks a row that was not written."""
        return zlib.crc32(row.data, zlib.crc32(position.to_bytes(8, "little"), self._seed)) or 1

    def _read_row(self, row: Rows, position: int) -> bool:
        """Read a row into ``row``; False if it does not match its checksum."""
        mark, start = bytearray(_MARK), position * self._record
        try:
            whole = os.preadv(self._descriptor, [row.data, mark], start) == self._record
        except OSError:  # a fault of the disk
            whole = False
        if whole and self._checked[position]:
            return True
        found = int.from_bytes(mark, "little")
        good = whole and found == self._checksum(row, position)
        self._checked[position] = good
        if not good and (found or self.finished):
            self._report(f"row {position + 1:,} of {len(self):,}")
        return good

    def _make_again(self, wanted: Positions) -> Rows:
        """Compute and write the rows at these positions, with the rest of their chunks."""
        rows = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        groups = [np.unique(wanted)]
        if self.chunk is not None:
            starts = np.unique(wanted // self.chunk) * self.chunk
            groups = [np.arange(i, min(i + self.chunk, len(self))) for i in starts]
        for group in groups:
            made = self.make(group)
            with suppress(OSError):  # then every read computes them again
                self.write(group, made)
            here = np.isin(wanted, group)
            rows[here] = made[np.searchsorted(group, wanted[here])]
        return rows

    def _report(self, where: str) -> None:
        """Log one warning, however much is damaged."""
        if not self._reported:
            _LOG.warning("%s are damaged (%s); making them again", self.what, where)
        self._reported = True
