from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.media import jpeg
from pipeline.media.jpeg_bits import BitStream
from pipeline.media.jpeg_coefficients import move_samples
from pipeline.media.jpeg_huffman import HuffmanTable, Ints, ScanError, bits_of, symbols_of
from pipeline.media.jpeg_segments import SOS, State, next_segment, read_scan
from tests.bad_images import encoded

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Grey:
    """A grey JPEG of one scan: where the scan's header begins and ends, and [N, 64] coefficients in zigzag order."""

    state: State
    header: tuple[int, int]
    coefficients: NDArray[np.int16]
    differences: Ints


def read_grey(data: bytes) -> Grey:
    state, at = State(), 2
    while True:
        marker, body, end = next_segment(data, at)
        if marker == SOS:
            break
        state.read(marker, data[body:end])
        at = end
    parts, _ = read_scan(data, end)
    height, width = state.size
    total = -(-height // 8) * -(-width // 8)
    interval = state.interval or total
    stream = BitStream(parts)
    units = [min(interval, total - done) for done in range(0, total, interval)]
    starts, _ = stream.find_blocks(units, [(state.tables[0], state.tables[16])])
    differences, taken = stream.differences(starts, state.tables[0])
    coefficients = stream.coefficients(starts + taken, state.tables[16])
    coefficients[:, 0] = np.concatenate([np.cumsum(run) for run in np.split(differences, np.cumsum(units)[:-1])])
    return Grey(state, (at, end), coefficients, differences)


def picture(height: int, width: int, seed: int) -> Pixels:
    """Smooth colours, noise and hard black and white, so that decoding clips."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([columns * 3 + rows, rows * 5, 255 - columns * 2], axis=2) % 256
    noise = rng.integers(0, 256, (height, width, 3))
    hard = np.repeat(rng.integers(0, 2, (height, width, 1)) * 255, 3, axis=2)
    which = (columns // 9 + rows // 7 + seed) % 3
    return np.asarray(np.choose(which[..., None], [smooth, noise, hard]), np.uint8)


def rgb(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def box(height: int, width: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    changed = np.zeros((height, width), np.bool_)
    top, left = rng.integers(height), rng.integers(width)
    changed[top : top + rng.integers(1, 12), left : left + rng.integers(1, 12)] = True
    return changed


def reach(changed: NDArray[np.bool_], unit: int = 16) -> NDArray[np.bool_]:
    """The units with changed pixels, and the one pixel to which decoding smooths chroma."""
    rows, columns = np.nonzero(changed)
    result = np.zeros_like(changed)
    top, left = rows.min() // unit * unit, columns.min() // unit * unit
    bottom, right = (rows.max() // unit + 1) * unit, (columns.max() // unit + 1) * unit
    result[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
    return result


KINDS = st.sampled_from(["grey", "444", "422", "420", "rgb", "cmyk"])


def saved(pixels: Pixels, kind: str, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    if kind == "grey":
        return encoded(image.convert("L"), "JPEG", **options)
    if kind == "cmyk":
        return encoded(image.convert("CMYK"), "JPEG", **options)
    if kind == "rgb":
        return encoded(image, "JPEG", keep_rgb=True, **options)
    return encoded(image, "JPEG", subsampling=["444", "422", "420"].index(kind), **options)


@settings(max_examples=150, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=KINDS,
    quality=st.integers(1, 100),
    restart=st.sampled_from([0, 0, 1, 2, 5]),
    optimize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pixels_of_units_without_a_change_are_identical(
    size: tuple[int, int], kind: str, quality: int, restart: int, optimize: bool, seed: int
) -> None:
    options = {"quality": quality, "restart_marker_blocks": restart, "optimize": optimize}
    data = saved(picture(*size, seed), kind, **options)
    changed = box(*size, seed)
    pixels = np.where(changed[..., None], 255 - picture(*size, seed + 1), rgb(data)).astype(np.uint8)
    before, after = np.asarray(Image.open(io.BytesIO(data))), jpeg.replace_pixels(data, pixels, changed)
    outside = ~reach(changed)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(after)))[outside], before[outside])


@settings(max_examples=60, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    quality=st.integers(1, 100),
    restart=st.sampled_from([0, 1, 3]),
    optimize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_coefficients_of_blocks_without_a_change_are_identical(
    size: tuple[int, int], quality: int, restart: int, optimize: bool, seed: int
) -> None:
    options = {"quality": quality, "restart_marker_blocks": restart, "optimize": optimize}
    data = saved(picture(*size, seed), "grey", **options)
    changed = box(*size, seed)
    result = jpeg.replace_pixels(data, 255 - rgb(data), changed)
    before, after = read_grey(data).coefficients, read_grey(result).coefficients
    whole = np.pad(changed, [(0, -side % 8) for side in size])
    touched = whole.reshape(whole.shape[0] // 8, 8, -1, 8).any(axis=(1, 3)).ravel()
    assert np.array_equal(before[~touched], after[~touched])


@pytest.mark.parametrize("kind", ["grey", "444", "422", "420", "rgb", "cmyk"])
def test_a_change_to_the_same_colours_gives_the_same_bytes(kind: str) -> None:
    data = saved(picture(50, 70, 0), kind, optimize=True, restart_marker_blocks=3)
    assert jpeg.replace_pixels(data, rgb(data), np.ones((50, 70), np.bool_)) == data


@pytest.mark.parametrize("kind", ["grey", "444", "422", "420", "rgb", "cmyk", "ycck"])
def test_the_new_colours_arrive(kind: str) -> None:
    smooth = np.stack(np.broadcast_arrays(*np.mgrid[60:140:2, 40:200:2], np.int64(90)), axis=2).astype(np.uint8)
    data = saved(smooth, kind if kind != "ycck" else "cmyk", quality=95)
    if kind == "ycck":
        adobe = data.index(b"Adobe")
        data = data[: adobe + 11] + b"\x02" + data[adobe + 12 :]
    changed = np.zeros(smooth.shape[:2], np.bool_)
    changed[16:32, 16:64] = True
    new = np.where(changed[..., None], rgb(data) // 2 + 60, rgb(data)).astype(np.uint8)
    result = rgb(jpeg.replace_pixels(data, new, changed)).astype(np.int16)
    assert np.abs(result - new)[20:28, 20:60].max() <= 6
    assert np.array_equal(result[:15], rgb(data)[:15])


def test_coefficients_are_those_of_the_decoded_plane() -> None:
    rows, columns = np.mgrid[:64, :64]
    plane = (128 + 50 * np.sin(rows / 5) + 40 * np.cos(columns / 3)).astype(np.uint8)
    data = encoded(Image.fromarray(plane), "JPEG", quality=90)
    grey = read_grey(data)
    decoded = np.asarray(Image.open(io.BytesIO(data)), np.float64)
    means = decoded.reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel()
    dc = grey.coefficients[:, 0] * grey.state.quantisation[0][0] / 8 + 128
    assert np.abs(means - dc).max() < 0.2
    energy = ((decoded.reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 64) - 128) ** 2).sum(axis=1)
    stored = ((grey.coefficients * grey.state.quantisation[0]) ** 2).sum(axis=1)
    assert np.abs(energy / stored - 1).max() < 0.01


def test_moving_all_samples_moves_the_decoded_picture() -> None:
    data = encoded(np.full((30, 50), 100, np.uint8), "JPEG", quality=100)
    step = np.tile(np.arange(50, dtype=np.float32), (30, 1))[..., None]
    moved = np.asarray(Image.open(io.BytesIO(move_samples(data, step, (0, 0)))), np.float32)
    assert np.abs(moved - 100 - step[..., 0]).max() <= 1


@pytest.mark.parametrize("chroma", [1, 2])
@pytest.mark.parametrize("restart", [0, 2])
def test_planes_in_scans_of_their_own_come_through(chroma: int, restart: int) -> None:
    planes = [
        picture(37, 53, 4)[..., 0],
        *(picture(-(-37 // chroma), -(-53 // chroma), seed)[..., 0] for seed in (5, 6)),
    ]
    data = one_plane_a_scan([encoded(plane, "JPEG", restart_marker_blocks=restart) for plane in planes], chroma)
    changed = box(37, 53, 3)
    result = jpeg.replace_pixels(data, 255 - rgb(data), changed)
    outside = ~reach(changed)
    assert len(result) != len(data)
    assert np.array_equal(rgb(result)[outside], rgb(data)[outside])
    assert jpeg.replace_pixels(data, rgb(data), changed) == data


def one_plane_a_scan(greys: list[bytes], chroma: int) -> bytes:
    """A YCbCr JPEG from three grey ones with the same tables."""
    at, _ = read_grey(greys[0]).header
    frame = greys[0].index(b"\xff\xc0")
    height, width = read_grey(greys[0]).state.size
    factors = (chroma * 17, 17, 17)
    rows = b"".join(bytes([name, factor, 0]) for name, factor in enumerate(factors, 1))
    header = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + rows
    scans = [
        data[read_grey(data).header[0] : -2].replace(b"\xff\xda\0\x08\x01\x01", bytes([255, 0xDA, 0, 8, 1, name]), 1)
        for name, data in enumerate(greys, 1)
    ]
    return greys[0][:frame] + header + greys[0][frame + 13 : at] + b"".join(scans) + b"\xff\xd9"


def with_full_table(data: bytes) -> bytes:
    """A grey JPEG coded with an AC table that has no room left."""
    grey = read_grey(data)
    whole = np.ones(len(grey.differences), np.bool_)
    _, needed = symbols_of(grey.coefficients, grey.differences, whole)
    spare = [symbol for symbol in range(1, 32) if symbol not in needed]
    table = HuffmanTable(bytes(range(1, 17)), bytes([*sorted(needed), *spare][:16]))
    bits, _ = bits_of(grey.coefficients, grey.differences, whole, (grey.state.tables[0], table))
    packed = np.packbits(np.pad(bits, (0, -len(bits) % 8), constant_values=1)).tobytes().replace(b"\xff", b"\xff\0")
    at, end = grey.header
    return data[:at] + table.segment(16) + data[at:end] + packed + b"\xff\xd9"


def test_a_full_table_is_made_longer() -> None:
    rows, columns = np.mgrid[:48, :48]
    flat = (rows + columns).astype(np.uint8) + 60
    data = encoded(Image.fromarray(flat), "JPEG", quality=40)
    full = with_full_table(data)
    assert read_grey(full).state.tables[16].free_codes() == 1
    assert np.array_equal(rgb(full), rgb(data))
    changed = box(48, 48, 1)
    result = jpeg.replace_pixels(full, picture(48, 48, 1), changed)
    assert not read_grey(result).state.tables[16].begins_with(read_grey(full).state.tables[16])
    outside = ~reach(changed)
    assert np.array_equal(rgb(result)[outside], rgb(data)[outside])


@given(
    lengths=st.lists(st.integers(2, 16), min_size=1, max_size=40),
    more=st.lists(st.integers(0, 255), max_size=60),
)
@settings(derandomize=True)
def test_an_extended_table_is_a_prefix_code_that_leaves_all_ones_free(lengths: list[int], more: list[int]) -> None:
    lengths = sorted(lengths)
    while sum(2.0**-length for length in lengths) >= 1:
        lengths.pop(0)
    table = HuffmanTable(bytes(lengths), bytes(range(len(lengths))))
    extended = table.extended(more)
    assert set(extended.symbols) == set(table.symbols) | set(more)
    codes, bits = extended.codes()
    words = [format(int(codes[symbol]), f"0{bits[symbol]}b") for symbol in extended.symbols]
    assert words == sorted(words)
    assert not any(later.startswith(word) for word, later in pairwise(words))
    assert not any(set(word) == {"1"} for word in words)


def test_progressive_is_refused_here_and_replaced_by_its_planes() -> None:
    data = saved(picture(40, 40, 0), "420", progressive=True)
    with pytest.raises(ScanError, match="0xc2"):
        move_samples(data, np.zeros((40, 40, 3), np.float32), (0, 0))
    assert jpeg.read_layout(jpeg.replace_pixels(data, rgb(data), box(40, 40, 0))).progressive


@pytest.mark.parametrize("restart", [0, 2])
def test_damage_ends_in_a_scan_error(restart: int) -> None:
    data = saved(picture(33, 47, 0), "420", restart_marker_blocks=restart)
    step = np.ones((33, 47, 3), np.float32)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(2, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        for content in (bytes(damaged), data[: rng.integers(2, len(data))]):
            try:
                move_samples(content, step, (0, 0))
            except ScanError:
                refused += 1
    assert refused > 150


@pytest.mark.parametrize("kind", ["444", "420"])
def test_the_file_stays_about_as_long(kind: str) -> None:
    data = saved(picture(64, 64, 0), kind, quality=90)
    result = jpeg.replace_pixels(data, rgb(data)[::-1], np.ones((64, 64), np.bool_))
    assert abs(len(result) / len(data) - 1) < 0.1
