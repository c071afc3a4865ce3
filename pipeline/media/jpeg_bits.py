"""Where each block of a sequential JPEG scan lies, and the coefficients of chosen blocks.

Huffman codes can only be followed one after the other, so finding the blocks is a loop in Python, kept to one
look-up a step: the next 16 bits say how far to go, over several symbols where they fit. Reading the
coefficients then works on all chosen blocks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.media.jpeg_huffman import BLOCK, LONGEST, ZERO_RUN, HuffmanTable, Ints, ScanError

Steps = list[int]

_WINDOWS = 1 << LONGEST
_MASK = _WINDOWS - 1
# A step packs the bits to go forward (5 bits) with the coefficients passed; ending a block counts 128 more.
_ADVANCE, _PASSED, _END, _INVALID = 31, 5, 128, 512
_CHUNK_BYTES = 1 << 18
_LARGEST_UNIT_BYTES = 4096
"""More than ten blocks (the most in a unit) of 64 symbols of 31 bits."""
_WORTH_JOINING_BYTES = 1 << 17


@lru_cache(maxsize=8)
def _look_ups(table: HuffmanTable) -> tuple[Ints, Ints]:
    """[65536] symbol and [65536] code length for the next 16 bits; length 0 where no code begins so."""
    symbols, lengths = np.zeros((2, _WINDOWS), np.int64)
    bits = np.frombuffer(table.lengths, np.uint8).astype(np.int64)
    repeats = 1 << (LONGEST - bits)
    taken = int(repeats.sum())
    symbols[:taken] = np.repeat(np.frombuffer(table.symbols, np.uint8), repeats)
    lengths[:taken] = np.repeat(bits, repeats)
    return symbols, lengths


@lru_cache(maxsize=4)
def _steps(dc: HuffmanTable, ac: HuffmanTable, joining: bool) -> tuple[Steps, Steps, Steps]:
    """[65536] steps from the start of a block, from within it, and one symbol at a time.

    Args:
        dc: table of the first coefficient.
        ac: table of the others.
        joining: take several symbols in a step; pays for itself in large files.
    """
    symbols, lengths = _look_ups(dc)
    first = np.where((lengths > 0) & (symbols < LONGEST), (lengths + symbols) | 1 << _PASSED, _INVALID << _PASSED)
    symbols, lengths = _look_ups(ac)
    size, run = symbols & 15, symbols >> 4
    passed = np.where(symbols == 0, _END, run + 1)
    known = (lengths > 0) & ((size > 0) | (symbols == 0) | (symbols == ZERO_RUN))
    single = np.where(known, (lengths + size) | passed << _PASSED, _INVALID << _PASSED)
    several = single
    if joining:
        pairs = _joined(single, single)
        several = _joined(_joined(pairs, pairs), single)
        first = _joined(_joined(first, several), single)
    return first.tolist(), several.tolist(), single.tolist()


def _joined(first: Ints, then: Ints) -> Ints:
    """Steps with the ones that follow, where those lie within the same 16 bits and the same block."""
    advance = first & _ADVANCE
    following = then[(np.arange(_WINDOWS) << advance) & _MASK]
    passed = (first >> _PASSED) + (following >> _PASSED)
    within = advance + (following & _ADVANCE) <= LONGEST
    whole = (passed <= BLOCK) | ((passed > _END) & (passed < _END + BLOCK))
    return np.where(within & whole & (first >> _PASSED < BLOCK), first + following, first)


class BitStream:
    """The bits between restarts of one scan, without the bytes stuffed between them.

    Attributes:
        parts: the bytes of each restart interval.
        bounds: first and last bit of each.
    """

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        ends = np.cumsum([0, *map(len, parts)]) * 8
        self.bounds: list[tuple[int, int]] = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        padded = b"".join([*parts, bytes(_LARGEST_UNIT_BYTES + 2)])
        data = np.frombuffer(padded, np.uint8).astype(np.uint32)
        self._words = data[:-2] << 16 | data[1:-1] << 8 | data[2:]

    def windows(self, at: Ints) -> Ints:
        """[N] the 16 bits from each bit position."""
        words = self._words[at >> 3].astype(np.int64)
        windows: Ints = (words >> (8 - (at & 7))) & _MASK
        return windows

    def find_blocks(
        self, units: Sequence[int], tables: Sequence[tuple[HuffmanTable, HuffmanTable]]
    ) -> tuple[Ints, Ints]:
        """Follows the code from the first to the last block.

        Args:
            units: minimum coded units in each restart interval.
            tables: DC and AC table of each block in a unit.

        Returns:
            The bit positions where each block starts, and where each interval's last block ends.

        Raises:
            ScanError: not a valid code, or the bits run out.
        """
        joining = len(self._words) > _WORTH_JOINING_BYTES
        steps = [_steps(*pair, joining) for pair in tables]
        starts: list[int] = []
        stops: list[int] = []
        base = limit = 0
        words: list[int] = []
        for (at, end), left in zip(self.bounds, units, strict=True):
            while left and at <= end:
                if at >= limit:
                    base, limit = at & ~7, (at & ~7) + 8 * _CHUNK_BYTES
                    words = self._words[at >> 3 : (limit >> 3) + _LARGEST_UNIT_BYTES].tolist()
                at, left = _walk(words, base, at, min(limit, end + 1), left, steps, starts)
            if at > end:
                raise ScanError("a JPEG scan that ends too early")
            stops.append(at)
        return np.array(starts, np.int64), np.array(stops, np.int64)

    def differences(self, at: Ints, table: HuffmanTable) -> tuple[Ints, Ints]:
        """[N] the DC differences at the starts of blocks, and [N] how many bits each takes."""
        symbols, lengths = _look_ups(table)
        windows = self.windows(at)
        return self._values(at + lengths[windows], symbols[windows]), lengths[windows] + symbols[windows]

    def coefficients(self, at: Ints, table: HuffmanTable) -> NDArray[np.int16]:
        """[N, 64] the coefficients of valid blocks, without their DC.

        Args:
            at: [N] bit position of each block's first AC code.
            table: of those codes.
        """
        symbols, lengths = _look_ups(table)
        blocks = np.zeros((len(at), BLOCK), np.int16)
        rows, index = np.arange(len(at)), np.zeros(len(at), np.int64)
        while len(at):
            windows = self.windows(at)
            symbol, at = symbols[windows], at + lengths[windows]
            size = symbol & 15
            index = index + (symbol >> 4) + 1
            valued = size > 0
            blocks[rows[valued], index[valued]] = self._values(at[valued], size[valued])
            going = (valued | (symbol == ZERO_RUN)) & (index < BLOCK - 1)
            at, rows, index = (at + size)[going], rows[going], index[going]
        return blocks

    def _values(self, at: Ints, sizes: Ints) -> Ints:
        """[N] signed values of `sizes` bits each."""
        values = self.windows(at) >> (LONGEST - sizes)
        return np.where(values < (1 << sizes) >> 1, values - (1 << sizes) + 1, values)


def _walk(
    words: list[int],
    base: int,
    at: int,
    limit: int,
    units: int,
    steps: Sequence[tuple[Steps, Steps, Steps]],
    starts: list[int],
) -> tuple[int, int]:
    """Follows the code to `limit`, or over the given number of units; (position, units left).

    Args:
        words: 24 bits from each byte on.
        base: bit position of the first word.
        at: bit position to start from.
        limit: bit position after which no further unit is begun.
        units: to go over.
        steps: of each block in a unit.
        starts: where the starts of the blocks are added.
    """
    at -= base
    while units and at < limit - base:
        for first, then, single in steps:
            starts.append(base + at)
            step = first[words[at >> 3] >> (8 - (at & 7)) & _MASK]
            at += step & _ADVANCE
            passed = step >> _PASSED
            while passed < BLOCK:
                step = then[words[at >> 3] >> (8 - (at & 7)) & _MASK]
                at += step & _ADVANCE
                passed += step >> _PASSED
            if passed != BLOCK and not _END < passed < _END + BLOCK:
                at = _stepped_singly(words, at - (step & _ADVANCE), passed - (step >> _PASSED), single)
        units -= 1
    return base + at, units


def _stepped_singly(words: list[int], at: int, passed: int, single: Steps) -> int:
    """The end of a block, from a place where several symbols at once lead beyond it."""
    while 0 < passed < BLOCK:
        step = single[words[at >> 3] >> (8 - (at & 7)) & _MASK]
        at += step & _ADVANCE
        passed += step >> _PASSED
    if passed != BLOCK and not _END < passed < _END + BLOCK:
        raise ScanError("a JPEG scan with an unknown code")
    return at
