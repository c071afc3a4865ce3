"""The segments of a sequential JPEG: what they set for the scans that follow, and the bytes of those."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

from pipeline.media.jpeg_huffman import BLOCK, HuffmanTable, Ints, ScanError

SOS, EOI = 0xDA, 0xD9
_DQT, _DHT, _DRI = 0xDB, 0xC4, 0xDD
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PLAIN = frozenset({*range(0xE0, 0xF0), 0xFE})
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_STUFFED = re.compile(rb"\xff+\0")


@dataclass(frozen=True, slots=True)
class Component:
    """One plane.

    Attributes:
        plane: its index in the picture.
        factors: vertical and horizontal sampling factor.
        table: number of its quantisation table.
    """

    plane: int
    factors: tuple[int, int]
    table: int


@dataclass(slots=True)
class State:
    """What the segments read so far have set; `written` are the Huffman tables that the new file has set."""

    size: tuple[int, int] = (0, 0)
    components: dict[int, Component] = field(default_factory=dict)
    quantisation: dict[int, Ints] = field(default_factory=dict)
    tables: dict[int, HuffmanTable] = field(default_factory=dict)
    written: dict[int, HuffmanTable] = field(default_factory=dict)
    interval: int = 0

    def read(self, marker: int, body: bytes) -> None:
        """Takes in one segment, `body` without marker and length."""
        if marker in _SEQUENTIAL and not self.components:
            self._read_frame(body)
        elif marker == _DQT:
            self._read_quantisation(body)
        elif marker == _DHT:
            self._read_tables(body)
        elif marker == _DRI:
            self.interval = int.from_bytes(body, "big")
        elif marker not in _PLAIN:
            raise ScanError(f"a JPEG with a segment of the kind {marker:#x}")

    def _read_frame(self, body: bytes) -> None:
        precision, height, width, number = struct.unpack_from(">BHHB", body)
        if precision != 8 or not height or not width:
            raise ScanError("a JPEG that has not 8 bits a sample, or no size")
        self.size = height, width
        for plane in range(number):
            name, factors, table = body[6 + 3 * plane : 9 + 3 * plane]
            self.components[name] = Component(plane, (factors & 15, factors >> 4), table)
        if any(
            0 in one.factors or self.factors[k] % one.factors[k] for one in self.components.values() for k in (0, 1)
        ):
            raise ScanError("a JPEG with planes that do not divide each other")

    def _read_quantisation(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            deep = body[at] >> 4
            table = np.frombuffer(body, ">u2" if deep else np.uint8, BLOCK, at + 1).astype(np.int64)
            if not table.all():
                raise ScanError("a JPEG with a quantisation step of 0")
            self.quantisation[body[at] & 15] = table
            at += 1 + (BLOCK << (deep > 0))

    def _read_tables(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            counts = body[at + 1 : at + 17]
            lengths = bytes(length for length, count in enumerate(counts, 1) for _ in range(count))
            self.tables[body[at]] = HuffmanTable(lengths, body[at + 17 : at + 17 + len(lengths)])
            self.written[body[at]] = self.tables[body[at]]
            at += 17 + len(lengths)

    @property
    def factors(self) -> tuple[int, int]:
        """The largest sampling factors, vertical and horizontal."""
        down, across = zip(*(component.factors for component in self.components.values()), strict=True)
        return max(down), max(across)

    def shrinking(self, component: Component) -> tuple[int, int]:
        """How many rows and columns of the picture one sample of a plane covers."""
        return self.factors[0] // component.factors[0], self.factors[1] // component.factors[1]


def next_segment(data: bytes, at: int) -> tuple[int, int, int]:
    """(marker, start of the body, end) of the segment at a position; the end-of-image marker has no body."""
    while data[at] == data[at + 1] == 0xFF:
        at += 1
    if data[at] != 0xFF or not data[at + 1]:
        raise ScanError("a JPEG segment without its marker")
    if data[at + 1] == EOI:
        return EOI, at + 2, at + 2
    return data[at + 1], at + 4, at + 2 + int(struct.unpack_from(">H", data, at + 2)[0])


def read_scan(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The coded bytes from a position on, between the restart markers of a scan, unstuffed, and where the scan ends."""
    parts: list[bytes] = []
    for found in _MARKER.finditer(data, at):
        parts.append(_STUFFED.sub(b"\xff", data[at : found.start()]))
        if found[1][0] != 0xD0 + (len(parts) - 1) % 8:
            return parts, found.start()
        at = found.end()
    raise ScanError("a JPEG without its end")
