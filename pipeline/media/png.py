"""PNG files as chunks: another picture under the same metadata."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from pipeline.media.exif import without_thumbnail

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_BOUND_TO_SAMPLES = frozenset({b"tRNS", b"bKGD", b"sBIT", b"hIST"})
_PALETTE_COLOR = 3
DEEP_COLORS = {2: 3, 4: 2, 6: 4}
"""Samples a pixel of the colour types that Pillow would cut from 16 to 8 bits."""


def check_chunks(data: bytes) -> None:
    """Walks over the whole file; Pillow looks neither at the checksums of the pixels nor for the end.

    Raises:
        ValueError: a chunk is cut off or damaged, or the end or a needed palette is missing.
    """
    names = {name for name, _ in _chunks(data)}
    if data[25] == _PALETTE_COLOR and b"PLTE" not in names:
        raise ValueError("a palette picture without its palette")


def is_deep(data: bytes) -> bool:
    """16 bits a sample and more than one sample a pixel."""
    return data[24] == 16 and data[25] in DEEP_COLORS


def with_metadata_of(original: bytes, encoded: bytes) -> bytes:
    """The picture of `encoded` with every other chunk of `original`, where it stood.

    What describes single samples (transparent colour, background, significant bits) stays only where the
    samples stay of the same kind.
    """
    same = original[24:26] == encoded[24:26]
    dropped = _PICTURE if same else _PICTURE | _BOUND_TO_SAMPLES
    before: list[bytes] = []
    after: list[bytes] = []
    side = before
    for name, chunk in _chunks(original):
        if name == b"IDAT":
            side = after
        elif name == b"eXIf":
            side.append(_chunk(name, without_thumbnail(chunk[8:-4])))
        elif name not in dropped:
            side.append(chunk)
    own = [(name, chunk) for name, chunk in _chunks(encoded)]
    header = [chunk for name, chunk in own if name == b"IHDR"]
    pixels = [chunk for name, chunk in own if name == b"IDAT"]
    return b"".join([_SIGNATURE, *header, *before, *pixels, *after, _chunk(b"IEND", b"")])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, whole chunk) of each chunk up to the end."""
    at = len(_SIGNATURE)
    name = b""
    while name != b"IEND":
        if at + 12 > len(data):
            raise ValueError("a PNG without its end")
        length = int(struct.unpack_from(">I", data, at)[0])
        end = at + 12 + length
        name = data[at + 4 : at + 8]
        if end > len(data) or struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(data[at + 4 : end - 4]):
            raise ValueError(f"the chunk {name!r} is cut off or damaged")
        yield name, data[at:end]
        at = end
