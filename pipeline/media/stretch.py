"""A file inside another one, such as a member of a tar, by an address of its own."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, cast

from pipeline.media.store import open_address

_MARK = "\0"


def stretch_address(address: str, offset: int, size_bytes: int) -> str:
    """The address of a stretch of a file.

    Args:
        address: of the whole file.
        offset: of its first byte.
        size_bytes: of the stretch.
    """
    return f"{address}{_MARK}{offset}{_MARK}{size_bytes}"


def is_stretch(address: str) -> bool:
    """Whether an address names a stretch of a file."""
    return _MARK in address


def open_anywhere(address: str) -> BinaryIO:
    """A file, or a stretch of one, to read in.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: the store does not answer, or refuses.
    """
    if not is_stretch(address):
        return open_address(address)
    whole, offset, size = address.split(_MARK)
    return cast("BinaryIO", io.BufferedReader(_Stretch(open_address(whole), int(offset), int(size)), 1 << 20))


def digest_of(address: str) -> str:
    """sha256 of a file, or of a stretch of one, hex.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: the store does not answer, or refuses.
    """
    found = hashlib.sha256()
    with open_anywhere(address) as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


class _Stretch(io.RawIOBase):
    def __init__(self, file: Any, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence], 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(self._size - self._at, 0))
        data = self._file.read_at(wanted, self._offset + self._at) if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
