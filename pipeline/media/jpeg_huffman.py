"""The Huffman tables of JPEG, and blocks of coefficients coded with them.

A block is 64 quantised coefficients in zigzag order; the first (DC) is coded as the difference to the block
before it. A symbol says how many zeros come before a value and how many bits it has; these follow the code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BLOCK = 64
ZERO_RUN = 0xF0
"""Sixteen zeros without a value after them."""
LONGEST = 16
"""Bits of the longest code."""
_BATCH = 4096


class ScanError(ValueError):
    """A scan of a kind that is not supported, or damaged."""


@dataclass(frozen=True, slots=True)
class HuffmanTable:
    """The code of each symbol.

    Attributes:
        lengths: bits of each code, 1..16, never falling.
        symbols: as many, in the order of their codes.
    """

    lengths: bytes
    symbols: bytes

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.symbols) or self.free_codes() < 0:
            raise ScanError("a Huffman table with more codes than its lengths leave room for")

    def free_codes(self) -> int:
        """How many codes of 16 bits are not taken."""
        return (1 << LONGEST) - sum(1 << (LONGEST - length) for length in self.lengths)

    def codes(self) -> tuple[Ints, Ints]:
        """[256] code and [256] length of every symbol; length 0 where it has none."""
        codes, lengths = np.zeros((2, 256), np.int64)
        symbols, bits = np.frombuffer(self.symbols, np.uint8), np.frombuffer(self.lengths, np.uint8).astype(np.int64)
        ends = np.cumsum(1 << (LONGEST - bits))
        codes[symbols] = (ends >> (LONGEST - bits)) - 1
        lengths[symbols] = bits
        return codes, lengths

    def extended(self, symbols: Sequence[int]) -> HuffmanTable:
        """With codes for further symbols; the codes already there stay if there is room behind them.

        The code of all ones is never given away. Without room the rarest symbols get longer codes.
        """
        missing = bytes(sorted(set(symbols) - set(self.symbols)))
        if not missing:
            return self
        lengths = list(self.lengths)
        free = self.free_codes()
        while free < len(missing) + 1:
            rarest = max(at for at, length in enumerate(lengths) if length < LONGEST)
            lengths[rarest] += 1
            free += 1 << (LONGEST - lengths[rarest])
        shortest = max(lengths)
        while free >> (LONGEST - shortest) < len(missing) + 1:
            shortest += 1
        rows = sorted(zip(lengths, self.symbols, strict=True), key=lambda row: row[0])
        rows += [(shortest, symbol) for symbol in missing]
        return HuffmanTable(bytes(row[0] for row in rows), bytes(row[1] for row in rows))

    def begins_with(self, other: HuffmanTable) -> bool:
        """Has all codes of another table, unchanged."""
        return self.lengths.startswith(other.lengths) and self.symbols.startswith(other.symbols)

    def segment(self, kind: int) -> bytes:
        """A DHT segment with this table; `kind` is its class and number as the file has them."""
        counts = bytes(self.lengths.count(length) for length in range(1, LONGEST + 1))
        return b"\xff\xc4" + (19 + len(self.symbols)).to_bytes(2, "big") + bytes([kind]) + counts + self.symbols


def symbols_of(blocks: NDArray[np.int16], differences: Ints, whole: NDArray[np.bool_]) -> tuple[set[int], set[int]]:
    """The DC and AC symbols that `bits_of` needs, for the same arguments."""
    needed: tuple[set[int], set[int]] = set(), set()
    for part in batches(len(blocks)):
        keys, symbols, _, _ = _entries(blocks[part], differences[part], whole[part])
        for which, found in enumerate(needed):
            found.update(np.unique(symbols[(keys % 128 > 1) == which]).tolist())
    return needed


def bits_of(
    blocks: NDArray[np.int16],
    differences: Ints,
    whole: NDArray[np.bool_],
    tables: tuple[HuffmanTable, HuffmanTable],
) -> tuple[NDArray[np.uint8], Ints]:
    """Codes blocks.

    Args:
        blocks: [N, 64] coefficients; the first of each is not looked at.
        differences: [N] the first ones as differences.
        whole: [N] code the whole block; else the difference only.
        tables: DC and AC table, with codes for everything that `symbols_of` says.

    Returns:
        The bits, one a byte, and [N + 1] where each block begins and the last one ends.
    """
    (dc_codes, dc_lengths), (ac_codes, ac_lengths) = (table.codes() for table in tables)
    pieces = [np.zeros(0, np.uint8)]
    counts = [np.zeros(1, np.int64)]
    for part in batches(len(blocks)):
        keys, symbols, sizes, values = _entries(blocks[part], differences[part], whole[part])
        order = np.argsort(keys, kind="stable")
        keys, symbols, sizes, values = keys[order], symbols[order], sizes[order], values[order]
        first = keys % 128 == 1
        codes = np.where(first, dc_codes[symbols], ac_codes[symbols])
        lengths = np.where(first, dc_lengths[symbols], ac_lengths[symbols]) + sizes
        pieces.append(_unpacked(codes << sizes | values, lengths))
        counts.append(np.bincount(keys >> 7, lengths, minlength=part.stop - part.start).astype(np.int64))
    return np.concatenate(pieces), np.cumsum(np.concatenate(counts))


def batches(number: int) -> Iterator[slice]:
    """Parts of a number of blocks, small enough to stay in the cache and to bound the memory."""
    return (slice(at, min(at + _BATCH, number)) for at in range(0, number, _BATCH))


def _entries(
    blocks: NDArray[np.int16], differences: Ints, whole: NDArray[np.bool_]
) -> tuple[Ints, Ints, Ints, NDArray[np.int64]]:
    """What is to be coded: sort keys (128 a block, 2 a coefficient), symbols, sizes and values of `size` bits.

    Keys with a remainder of 1 are differences; zero runs come just before the coefficient that they lead to.
    """
    rows, index = np.nonzero(blocks[:, 1:] * whole[:, None])
    index += 1
    before = np.where(np.diff(rows, prepend=-1) == 0, np.roll(index, 1), 0)
    runs = index - before - 1
    values = np.concatenate([differences, blocks[rows, index].astype(np.int64)])
    sizes = np.frexp(np.abs(values).astype(np.float64))[1].astype(np.int64)
    symbols = sizes.copy()
    symbols[len(differences) :] |= (runs & 15) << 4
    keys = np.concatenate([np.arange(len(blocks)) * 128, rows * 128 + index * 2]) + 1
    last = np.full(len(blocks), 0)
    np.maximum.at(last, rows, index)
    ended = np.flatnonzero(whole & (last < BLOCK - 1))
    skipped = np.repeat(rows * 128 + index * 2, runs >> 4)
    bare = np.zeros(len(ended) + len(skipped), np.int64)
    return (
        np.concatenate([keys, ended * 128 + 127, skipped]),
        np.concatenate([symbols, bare[: len(ended)], bare[len(ended) :] + ZERO_RUN]),
        np.concatenate([sizes, bare]),
        np.concatenate([np.where(values < 0, values + (1 << sizes) - 1, values), bare]),
    )


def _unpacked(codes: Ints, lengths: Ints) -> NDArray[np.uint8]:
    """The bits of codes of different lengths one after the other, one a byte."""
    ends = np.cumsum(lengths)
    places = np.repeat(ends, lengths) - 1 - np.arange(ends[-1] if len(ends) else 0)
    return (np.repeat(codes, lengths) >> places & 1).astype(np.uint8)
