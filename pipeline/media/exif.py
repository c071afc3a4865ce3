"""EXIF bytes without the thumbnail: it would still show the face that was replaced."""

from __future__ import annotations

import struct

_PREFIX = b"Exif\0\0"
_OFFSET_TAG, _LENGTH_TAG = 0x0201, 0x0202


def without_thumbnail(exif: bytes) -> bytes:
    """Blanks the thumbnail and cuts the link to the directory that describes it.

    Args:
        exif: a TIFF structure, with or without the `Exif` prefix; may be damaged.

    Returns:
        The same number of bytes, all others as they were; `exif` itself where no thumbnail can be found.
    """
    start = len(_PREFIX) if exif.startswith(_PREFIX) else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return exif
    try:
        link = _link_at(exif, start, order)
        second = int(struct.unpack_from(order + "I", exif, link)[0])
        if not second:
            return exif
        found = _thumbnail(exif, start + second, order)
    except struct.error:
        return exif
    blank = bytearray(exif)
    blank[link : link + 4] = bytes(4)
    offset, length = found.get(_OFFSET_TAG, 0), found.get(_LENGTH_TAG, 0)
    end = min(start + offset + length, len(blank))
    if offset and end > start + offset:
        blank[start + offset : end] = bytes(end - start - offset)
    return bytes(blank)


def _link_at(exif: bytes, start: int, order: str) -> int:
    """Position of the offset of the second directory."""
    first = start + int(struct.unpack_from(order + "I", exif, start + 4)[0])
    return first + 2 + 12 * int(struct.unpack_from(order + "H", exif, first)[0])


def _thumbnail(exif: bytes, directory: int, order: str) -> dict[int, int]:
    """Tag to value of a directory's entries that hold one 32-bit number."""
    count = int(struct.unpack_from(order + "H", exif, directory)[0])
    entries = (struct.unpack_from(order + "HHII", exif, directory + 2 + 12 * row) for row in range(count))
    return {int(tag): int(value) for tag, kind, _, value in entries if kind == 4}
