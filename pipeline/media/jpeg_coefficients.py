"""Moving some samples of a sequential JPEG, every other block kept with exactly the coefficients it has.

Only the blocks that hold a moved sample are decoded, transformed and coded anew. All other bits are copied,
but for the DC differences of the blocks that follow. Where the file's own Huffman table has no code for what
comes new, it is extended, if possible without changing the codes it has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.media.jpeg_bits import BitStream
from pipeline.media.jpeg_huffman import BLOCK, HuffmanTable, Ints, ScanError, batches, bits_of, symbols_of
from pipeline.media.jpeg_segments import EOI, SOS, Component, State, next_segment, read_scan

Step = NDArray[np.float32]
Coefficients = NDArray[np.int16]
_AC = 16
_MOST_BLOCKS_IN_UNIT = 10
# What 8-bit samples can give: the first coefficient reaches one step further down.
_LIMITS = np.full((2, BLOCK), 1023) * [[-1], [1]] - np.eye(2, BLOCK, dtype=np.int64) * [[1], [0]]


def _zigzag() -> list[int]:
    """Row times 8 plus column, in the order of the file: diagonal by diagonal, to and fro."""
    cells = [
        (row + column, row if (row + column) % 2 else column, 8 * row + column) for row, column in np.ndindex(8, 8)
    ]
    return [cell[2] for cell in sorted(cells)]


def _transform() -> NDArray[np.float64]:
    """[64, 64] DCT from samples row by row to coefficients in zigzag order; orthonormal."""
    rows, columns = np.mgrid[:8, :8]
    one = np.cos((2 * columns + 1) * rows * np.pi / 16) / 2
    one[0] /= np.sqrt(2)
    both: NDArray[np.float64] = np.kron(one, one)[_zigzag()]
    return both


_DCT = _transform()


@dataclass(frozen=True, slots=True)
class _Located:
    """Where the blocks of a scan are.

    Attributes:
        stream: the bits.
        starts: [N] bit position of each block.
        ends: [N] and of its end.
        edges: first block of each restart interval, and N.
    """

    stream: BitStream
    starts: Ints
    ends: Ints
    edges: Ints


@dataclass(frozen=True, slots=True)
class _Rewrite:
    """The blocks of one component that are coded anew.

    Attributes:
        places: [N] index of each block in the scan.
        whole: [N] all of its coefficients are coded, else its DC difference only.
        blocks: [N, 64] coefficients, used where `whole`.
        differences: [N] of the first coefficients.
        resume: [N] bit position of what is kept after it.
        numbers: of the DC and the AC table.
    """

    places: Ints
    whole: NDArray[np.bool_]
    blocks: Coefficients
    differences: Ints
    resume: Ints
    numbers: tuple[int, int]


def move_samples(data: bytes, step: Step, corner: tuple[int, int]) -> bytes:
    """Adds to the stored samples of a JPEG, in whatever colour space it has.

    Args:
        data: a JPEG file; what follows its end-of-image marker is left out.
        step: [H, W, C] what to add to each sample, in the colour space of the file; H and W may be part of the
            picture. A sample whose step is 0 is kept. Planes stored at a lower resolution take the mean.
        corner: row and column of the upper left pixel of `step`, multiples of 8 times the largest sampling factor.

    Raises:
        ScanError: progressive, arithmetic coding, not 8 bits a sample, or damaged.
    """
    try:
        return b"".join(_moved(data, step, corner))
    except ScanError:
        raise
    except (LookupError, ValueError, struct.error) as error:
        raise ScanError(f"a damaged JPEG ({error})") from error


def _moved(data: bytes, step: Step, corner: tuple[int, int]) -> Iterator[bytes]:
    """The pieces of the new file."""
    state, seen, at = State(), list[Component](), 2
    yield data[:2]
    while True:
        start = at
        marker, body, at = next_segment(data, start)
        if marker == EOI:
            break
        segment = data[start:at]
        if marker == SOS:
            scan = _Scan(state, data[body:at])
            seen += scan.components
            parts, at = read_scan(data, at)
            yield from scan.moved(parts, segment, step, corner)
        else:
            state.read(marker, data[body:at])
            yield segment
    if not seen or sorted(one.plane for one in seen) != list(range(len(state.components))):
        raise ScanError("a JPEG with planes missing, or coded several times")
    yield bytes((0xFF, EOI))


class _Scan:
    """One scan: its components, and how their blocks follow each other."""

    def __init__(self, state: State, body: bytes) -> None:
        number, rows = body[0], body[1 : 1 + 2 * body[0]]
        self.state = state
        self.components = [state.components[name] for name in rows[::2]]
        self.numbers = [(row >> 4, (row & 15) + _AC) for row in rows[1::2]]
        self.cells = [one.factors if number > 1 else (1, 1) for one in self.components]
        self.num_blocks = sum(down * across for down, across in self.cells)
        if not 0 < self.num_blocks <= _MOST_BLOCKS_IN_UNIT:
            raise ScanError("a JPEG scan with too many planes")
        covered = state.factors if number > 1 else state.shrinking(self.components[0])
        self.units = -(-state.size[0] // (8 * covered[0])), -(-state.size[1] // (8 * covered[1]))
        self.interval = state.interval or self.units[0] * self.units[1]

    def moved(self, parts: list[bytes], header: bytes, step: Step, corner: tuple[int, int]) -> Iterator[bytes]:
        """The header, behind any new Huffman tables, and the scan with some samples moved."""
        tables = self.state.tables
        located = self._located(parts)
        rewrites = [self._rewrite(located, n, step, corner, False) for n in range(len(self.components))]
        fresh = _extended(tables, rewrites)
        if not all(fresh[number].begins_with(tables[number]) for number in fresh):
            rewrites = [self._rewrite(located, n, step, corner, True) for n in range(len(self.components))]
        for number, table in fresh.items():
            if table != self.state.written[number]:
                self.state.written[number] = table
                yield table.segment(number)
        yield header
        yield from _spliced(located, rewrites, fresh)

    def _located(self, parts: list[bytes]) -> _Located:
        """Follows the code of the whole scan."""
        left = self.units[0] * self.units[1]
        if len(parts) != -(-left // self.interval):
            raise ScanError("a JPEG scan with a wrong number of restart markers")
        units = [min(self.interval, left - at) for at in range(0, left, self.interval)]
        tables = [(self.state.tables[dc], self.state.tables[ac]) for dc, ac in self.numbers]
        layout = [pair for pair, (down, across) in zip(tables, self.cells, strict=True) for _ in range(down * across)]
        stream = BitStream(parts)
        starts, stops = stream.find_blocks(units, layout)
        edges = np.cumsum([0, *units]) * self.num_blocks
        ends = np.append(starts[1:], 0)
        ends[edges[1:] - 1] = stops
        return _Located(stream, starts, ends, edges)

    def _rewrite(
        self, located: _Located, which: int, step: Step, corner: tuple[int, int], everything: bool
    ) -> _Rewrite:
        """What changes in the blocks of one component, all of them coded anew if asked for."""
        component, numbers, (down, across) = self.components[which], self.numbers[which], self.cells[which]
        before = sum(down * across for down, across in self.cells[:which])
        units = np.arange(self.units[0] * self.units[1])
        places = (units[:, None] * self.num_blocks + before + np.arange(down * across)).ravel()
        at = located.starts[places]
        old, taken = located.stream.differences(at, self.state.tables[numbers[0]])
        heads = np.arange(len(places)) % (self.interval * down * across) == 0
        dc = _summed(old, heads)
        moving, steps = self._steps_of(component, (down, across), step, corner)
        chosen = np.arange(len(places)) if everything else moving
        blocks = located.stream.coefficients((at + taken)[chosen], self.state.tables[numbers[1]])
        blocks[:, 0] = dc[chosen]
        rows = moving if everything else np.arange(len(moving))
        blocks[rows] = _with_moved_samples(blocks[rows], steps, self.state.quantisation[component.table])
        dc[chosen] = blocks[:, 0]
        new = np.where(heads, dc, dc - np.roll(dc, 1))
        whole = np.zeros(len(places), np.bool_)
        whole[chosen] = True
        changed = np.flatnonzero(whole | (new != old))
        whole = whole[changed]
        coded = np.zeros((len(changed), BLOCK), np.int16)
        coded[whole] = blocks
        resume = np.where(whole, located.ends[places[changed]], (at + taken)[changed])
        return _Rewrite(places[changed], whole, coded, new[changed], resume, numbers)

    def _steps_of(
        self, component: Component, cell: tuple[int, int], step: Step, corner: tuple[int, int]
    ) -> tuple[Ints, NDArray[np.float32]]:
        """Which blocks of a component hold moved samples, in the order of the scan, and their [N, 64] steps."""
        down, across = self.state.shrinking(component)
        blocks = _in_blocks(step[..., component.plane], down, across)
        (tall, wide), (rows, columns) = self.units, cell
        cells = np.arange(tall * wide * rows * columns).reshape(tall, wide, rows, columns)
        order = cells.swapaxes(1, 2).reshape(tall * rows, wide * columns)
        top, left = corner[0] // (8 * down), corner[1] // (8 * across)
        order = order[top : top + blocks.shape[0], left : left + blocks.shape[1]]
        moving = blocks.any(axis=2)
        sorting = np.argsort(order[moving])
        return order[moving][sorting], blocks[moving][sorting]


def _summed(differences: Ints, heads: NDArray[np.bool_]) -> Ints:
    """[N] DC coefficients from their differences; `heads` are the blocks that count from 0."""
    total = np.cumsum(differences)
    before = (total - differences)[heads]
    result: Ints = total - before[np.cumsum(heads) - 1]
    if np.abs(result).max() >= 1 << 15:
        raise ScanError("a JPEG scan with values out of range")
    return result


def _in_blocks(step: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
    """[H, W] as [rows, columns, 64] means of `down` by `across` pixels; what is beyond the edge is like the edge."""
    height, width = step.shape
    full = np.pad(step, ((0, -height % (8 * down)), (0, -width % (8 * across))), mode="edge")
    means = full.reshape(full.shape[0] // down, down, full.shape[1] // across, across).mean(axis=(1, 3))
    cells = means.reshape(means.shape[0] // 8, 8, means.shape[1] // 8, 8).swapaxes(1, 2)
    blocks: NDArray[np.float32] = cells.reshape(*cells.shape[:2], BLOCK)
    return blocks


def _with_moved_samples(blocks: Coefficients, steps: NDArray[np.float32], quantisation: Ints) -> Coefficients:
    """[N, 64] coefficients with [N, 64] steps added to their samples; those without a step may lie beyond 0..255."""
    result = np.empty_like(blocks)
    for part in batches(len(blocks)):
        samples = (blocks[part] * quantisation) @ _DCT + 128
        moved = np.clip(np.clip(samples, 0, 255) + steps[part], 0, 255)
        fresh = np.where(steps[part] != 0, moved, samples) - 128
        result[part] = np.clip(np.rint(fresh @ _DCT.T / quantisation), *_LIMITS)
    return result


def _extended(tables: dict[int, HuffmanTable], rewrites: Sequence[_Rewrite]) -> dict[int, HuffmanTable]:
    """The tables of a scan with codes for everything that is coded anew."""
    needed: dict[int, set[int]] = {}
    for rewrite in rewrites:
        symbols = symbols_of(rewrite.blocks, rewrite.differences, rewrite.whole)
        for number, more in zip(rewrite.numbers, symbols, strict=True):
            needed.setdefault(number, set()).update(more)
    return {number: tables[number].extended(sorted(symbols)) for number, symbols in needed.items()}


def _spliced(located: _Located, rewrites: Sequence[_Rewrite], tables: dict[int, HuffmanTable]) -> Iterator[bytes]:
    """The bytes of a scan, with restart markers and stuffed."""
    coded = [
        bits_of(one.blocks, one.differences, one.whole, (tables[one.numbers[0]], tables[one.numbers[1]]))
        for one in rewrites
    ]
    places = np.concatenate([one.places for one in rewrites])
    owner = np.repeat(np.arange(len(rewrites)), [len(one.places) for one in rewrites])
    first, last = (np.concatenate([edges[side] for _, edges in coded]) for side in (slice(0, -1), slice(1, None)))
    rows = np.stack([located.starts[places], np.concatenate([one.resume for one in rewrites]), owner, first, last])
    order = np.argsort(places)
    rows = rows[:, order]
    cuts = np.searchsorted(places[order], located.edges)
    for at, (part, (base, _)) in enumerate(zip(located.stream.parts, located.stream.bounds, strict=True)):
        old = np.unpackbits(np.frombuffer(part, np.uint8))
        pieces, kept = [], 0
        for start, resume, which, begin, end in rows[:, cuts[at] : cuts[at + 1]].T.tolist():
            pieces += [old[kept : start - base], coded[which][0][begin:end]]
            kept = resume - base
        pieces.append(old[kept : located.ends[located.edges[at + 1] - 1] - base])
        bits = np.concatenate(pieces)
        packed = np.packbits(np.pad(bits, (0, -len(bits) % 8), constant_values=1)).tobytes()
        yield (bytes((0xFF, 0xD0 + (at - 1) % 8)) if at else b"") + packed.replace(b"\xff", b"\xff\0")
