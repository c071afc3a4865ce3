"""A file inside another one, such as a member of a tar, by an address of its own."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO, cast

from pipeline.media.addresses import split_address
from pipeline.media.range_reader import RangeReader
from pipeline.media.store import open_address, store_at

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
    folder, name = split_address(whole)
    piece, _ = store_at(folder).pieces(name)
    begin = int(offset)
    stretch = RangeReader(lambda at, count: piece(begin + at, count), int(size))
    return cast("BinaryIO", io.BufferedReader(stretch, 1 << 20))


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
