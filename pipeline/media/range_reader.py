"""A file read piece by piece from anywhere."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

from pipeline.errors import StoreError


class RangeReader(io.RawIOBase):
    """A file whose pieces something else fetches.

    Args:
        piece: offset and size to the bytes there.
        size_bytes: of the whole file.

    Raises:
        StoreError: reads raise it where a piece is shorter than the file says: it has changed.
    """

    def __init__(self, piece: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._piece, self._size, self._at = piece, size_bytes, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere."""
        self._at = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence], 0)
        return self._at

    def readall(self) -> bytes:
        """What is left."""
        return self._take(self._size - self._at)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As much as fits."""
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _take(self, size: int) -> bytes:
        size = max(min(size, self._size - self._at), 0)
        data = self._piece(self._at, size) if size else b""
        if len(data) != size:
            raise StoreError("a stored file", "has changed while it was read", "Run again")
        self._at += size
        return data
