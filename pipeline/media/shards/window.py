"""Reading a large file in few pieces: small reads near each other come out of one large read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import BinaryIO

_LEAST_BYTES, _MOST_BYTES = 256 << 10, 4 << 20


class Window:
    """A stretch of a file in memory that follows what is read.

    While reads stay close to each other the stretch doubles, up to 4 MiB: on an object store, reading over a small
    gap is quicker than asking again. A read far ahead starts over with 256 KiB.

    Args:
        file: can seek; its `read(n)` gives n bytes unless the file ends.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start, self._data, self._next_bytes = 0, b"", _LEAST_BYTES
        self.size_bytes = file.seek(0, 2)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """The bytes from `offset` on; fewer where the file ends."""
        begin = offset - self._start
        if begin >= 0 and begin + size_bytes <= len(self._data):
            return self._data[begin : begin + size_bytes]
        return b"".join(self.pieces(offset, size_bytes))

    def pieces(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """The same a piece of at most 4 MiB at a time.

        Raises:
            OSError: the file is shorter than it was.
        """
        end = min(offset + size_bytes, self.size_bytes)
        while offset < end:
            if not self._start <= offset < self._start + len(self._data):
                self._move(offset)
            begin = offset - self._start
            piece = self._data[begin : begin + end - offset]
            if not piece:
                raise OSError(errno.EIO, "shorter than it was")
            yield piece
            offset += len(piece)

    def _move(self, offset: int) -> None:
        gap = offset - self._start - len(self._data)
        near = 0 <= gap <= self._next_bytes
        self._next_bytes = min(2 * self._next_bytes, _MOST_BYTES) if near else _LEAST_BYTES
        self._file.seek(offset)
        self._start, self._data = offset, self._file.read(self._next_bytes)
