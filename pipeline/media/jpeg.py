"""Replacing part of a JPEG's pixels without touching the rest.

Decoding to RGB and encoding again changes a JPEG everywhere. In sequential JPEGs all blocks without a changed
pixel keep exactly the coefficients they have (`jpeg_coefficients`). Progressive ones, and those only libjpeg can
read (damaged, arithmetic coding, without Huffman tables), go through the stored planes (`jpeg_planes`) and are
encoded with their own tables and subsampling: there too untouched blocks keep their coefficients, except where the
decoder had to clip and where steps of 1 or 2 meet rounding. The size in the header is then raised to whole blocks
while decoding and encoding and set back afterwards, so that the last of a row and column come through.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.media.exif import without_thumbnail
from pipeline.media.jpeg_coefficients import move_samples
from pipeline.media.jpeg_huffman import ScanError
from pipeline.media.jpeg_planes import with_moved_planes
from pipeline.media.samples import Marked, Pixels, Samples, replaced

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MAX_SIDE = 65500
_SUBSAMPLINGS = {(1, 1): 0, (2, 1): 1, (2, 2): 2}
_RGB_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class JpegLayout:
    """What a JPEG's header says, as far as writing it again needs it.

    Attributes:
        metadata: the APPn and COM segments with their markers, in order.
        size_at: offset of the 16-bit height, followed by the width.
        height: of the stored picture in pixels.
        width: of the stored picture in pixels.
        progressive: coded in several passes over the picture.
        sequential: coded in one pass, with Huffman codes.
        sampling: (horizontal, vertical) sampling factor of each component.
        tables: index of the quantisation table of each component.
        color: `L`, `YCbCr`, `RGB`, `CMYK` or `YCCK`: what is stored.
    """

    metadata: tuple[bytes, ...]
    size_at: int
    height: int
    width: int
    progressive: bool
    sequential: bool
    sampling: tuple[tuple[int, int], ...]
    tables: tuple[int, ...]
    color: str

    @property
    def subsampling(self) -> int | None:
        """Pillow's number for the subsampling; None for what Pillow cannot write."""
        if len(self.sampling) == 1 or set(self.sampling) == {(1, 1)}:
            return 0
        return _SUBSAMPLINGS.get(self.sampling[0]) if set(self.sampling[1:3]) == {(1, 1)} else None

    @property
    def whole_blocks(self) -> tuple[int, int]:
        """(height, width) raised to what a progressive JPEG really stores."""
        return self.height + -self.height % 8, self.width + -self.width % 8

    @property
    def has_planes(self) -> bool:
        """Pillow can read and write the stored planes."""
        return self.color in ("L", "YCbCr") and self.subsampling is not None and max(self.whole_blocks) <= _MAX_SIDE

    def units_around(self, changed: Marked) -> Box:
        """(left, top, right, bottom) of whole coded units, within the picture, that hold all changed pixels."""
        across, down = (8 * max(factors) for factors in zip(*self.sampling, strict=True))
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        left, top = columns[0] // across * across, rows[0] // down * down
        right, bottom = (columns[-1] // across + 1) * across, (rows[-1] // down + 1) * down
        return int(left), int(top), min(int(right), self.width), min(int(bottom), self.height)

    def notes(self) -> tuple[str, ...]:
        """What a result cannot keep, one sentence each."""
        found = []
        if any(_is_multi_picture(segment) for segment in self.metadata):
            found.append("The further pictures of a multi-picture JPEG (depth, gain map, burst) are not kept.")
        if any(_trimmed(segment) != segment for segment in self.metadata):
            found.append("The thumbnail in the EXIF data shows the picture before the swap and is not kept.")
        if self.subsampling is None and not self.sequential:
            found.append("The chroma subsampling of the JPEG cannot be written; the result has 4:4:4.")
        if self.color == "YCCK" and not self.sequential:
            found.append("A YCCK JPEG is written as CMYK and its pixels are coded anew.")
        return tuple(found)


def read_layout(data: bytes) -> JpegLayout:
    """Reads the segments up to the first scan.

    Args:
        data: a JPEG file; only its header is looked at.

    Raises:
        ValueError: not a whole header, or no end-of-image marker after the first scan.
        struct.error, IndexError: the file ends inside its header.
    """
    metadata: list[bytes] = []
    frame = 0
    for marker, start, end in _segments(data):
        if _APP0 <= marker <= _APP0 + 15 or marker == _COM:
            metadata.append(data[start:end])
        elif marker in _START_OF_FRAME:
            frame = start
        elif marker == _SOS:
            break
    if not frame or data.rfind(bytes((0xFF, _EOI)), end) < 0:
        raise ValueError("a JPEG without a picture, or without its end")
    height, width, components = struct.unpack_from(">HHB", data, frame + 5)
    rows = [data[frame + 10 + 3 * n : frame + 13 + 3 * n] for n in range(components)]
    return JpegLayout(
        metadata=tuple(metadata),
        size_at=frame + 5,
        height=height,
        width=width,
        progressive=data[frame + 1] in _PROGRESSIVE,
        sequential=data[frame + 1] in _SEQUENTIAL,
        sampling=tuple((row[1] >> 4, row[1] & 15) for row in rows),
        tables=tuple(row[2] for row in rows),
        color=_stored_color(metadata, bytes(row[0] for row in rows)),
    )


def replace_pixels(data: bytes, pixels: Pixels, changed: Marked) -> bytes:
    """A JPEG with some pixels replaced and the others as they were.

    Args:
        data: the JPEG file.
        pixels: [H, W, 3] RGB in the stored orientation.
        changed: [H, W] where `pixels` counts; somewhere.

    Returns:
        A JPEG with the metadata, tables, subsampling and kind of coding of `data`, save what `notes` says.
    """
    layout = read_layout(data)
    image = _open(data)
    left, top, right, bottom = box = layout.units_around(changed)
    before = np.array(image.crop(box))
    after = replaced(image, before, pixels[top:bottom, left:right], changed[top:bottom, left:right])
    step = _step(before, after, layout.color)
    try:
        return _with_current_metadata(move_samples(data, step, (top, left)))
    except ScanError:
        if layout.has_planes:
            return _replaced_planes(data, layout, step, box)
    return encode_like(data, Image.fromarray(replaced(image, np.array(image), pixels, changed), mode=image.mode))


def _step(before: Samples, after: Samples, color: str) -> NDArray[np.float32]:
    """[H, W, C] how far the stored samples are to move for the decoded ones to go from `before` to `after`.

    Moving them, instead of setting them, leaves alone what sampling chroma up and down again would blur.
    """
    step = after.astype(np.float32) - before
    if color == "L":
        return step[..., None]
    if color in ("YCbCr", "YCCK"):
        step[..., :3] = step[..., :3] @ _RGB_TO_YCBCR.T
    # Pillow turns CMYK over while decoding; with it the first three of YCCK are what they are in YCbCr.
    turned = {"CMYK": slice(0, 4), "YCCK": slice(3, 4)}.get(color, slice(0, 0))
    step[..., turned] *= -1
    return step


def _replaced_planes(data: bytes, layout: JpegLayout, step: NDArray[np.float32], box: Box) -> bytes:
    """The grey or YCbCr picture with its stored planes moved, coded anew."""
    height, width = layout.whole_blocks
    left, top, right, bottom = box
    step = np.pad(step, ((top, height - bottom), (left, width - right), (0, 0)))
    planes = with_moved_planes(_resized(data, layout.size_at, (height, width)), layout.subsampling or 0, step)
    return encode_like(data, planes)


def encode_like(data: bytes, image: Image.Image, quality: int | None = None) -> bytes:
    """Encodes a picture with the metadata of a JPEG, and with its tables unless a quality is asked for.

    Args:
        data: the JPEG file to be like.
        image: `L`, `RGB`, `YCbCr` or `CMYK`, at the size of `data` or raised to whole blocks.
        quality: 1..100; None takes the tables and the subsampling of `data`.

    Returns:
        A JPEG file of the size of `data`. Progressive where `data` is, except for the few pictures (noise at
        the highest quality) whose result is too long for Pillow's buffer: those become sequential.
    """
    layout = read_layout(data)
    options: dict[str, object] = {"subsampling": layout.subsampling or 0, "keep_rgb": layout.color == "RGB"}
    if quality is None:
        options["qtables"] = _tables(data, layout)
    else:
        options |= {"quality": quality, "subsampling": 0 if layout.subsampling == 0 else 2}
    try:
        encoded = _saved(image, progressive=layout.progressive, **options)
    except OSError:
        encoded = _saved(image, progressive=False, **options)
    encoded = _resized(encoded, read_layout(encoded).size_at, (layout.height, layout.width))
    return _with_metadata(encoded, layout.metadata)


def _saved(image: Image.Image, **options: object) -> bytes:
    """The picture as a JPEG with Pillow's own header."""
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _with_metadata(encoded: bytes, metadata: tuple[bytes, ...]) -> bytes:
    """`encoded` with the given segments in place of its own; only its Adobe marker says how it is coded."""
    kept = [segment for segment in map(_trimmed, metadata) if segment[1] != _APP14 and not _is_multi_picture(segment)]
    body = []
    for marker, start, end in _segments(encoded):
        if marker == _SOS:
            body.append(encoded[start:])
            break
        if marker == _APP14 or not (_APP0 <= marker <= _APP0 + 15 or marker == _COM):
            body.append(encoded[start:end])
    return b"".join([bytes((0xFF, _SOI)), *kept, *body])


def _with_current_metadata(data: bytes) -> bytes:
    """The file without what no longer holds: other pictures' places and the thumbnail."""
    body = [data[:2]]
    for marker, start, end in _segments(data):
        segment = data[start:] if marker == _SOS else _trimmed(data[start:end])
        if not _is_multi_picture(segment):
            body.append(segment)
    return b"".join(body)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each header segment, the marker's two bytes included, up to the first scan."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("a JPEG segment without its marker")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        end = at + 2 + int(struct.unpack_from(">H", data, at + 2)[0])
        yield marker, at, end
        if marker == _SOS:
            return
        at = end


def _stored_color(metadata: list[bytes], ids: bytes) -> str:
    """What libjpeg takes the components for, from their number, the JFIF and Adobe markers and their names."""
    adobe = [segment[15] for segment in metadata if segment[1] == _APP14 and segment[4:9] == b"Adobe"]
    if len(ids) != 3:
        return "L" if len(ids) == 1 else "YCCK" if adobe == [2] else "CMYK"
    if any(segment[1] == _APP0 and segment[4:9] == b"JFIF\0" for segment in metadata):
        return "YCbCr"
    return "RGB" if adobe == [0] or (not adobe and ids == b"RGB") else "YCbCr"


def _is_multi_picture(segment: bytes) -> bool:
    return segment[1] == _APP2 and segment[4:8] == b"MPF\0"


def _trimmed(segment: bytes) -> bytes:
    """The segment, without the thumbnail if it is EXIF; its length stays."""
    if segment[1] != _APP1 or segment[4:10] != b"Exif\0\0":
        return segment
    return segment[:10] + without_thumbnail(segment[10:])


def _tables(data: bytes, layout: JpegLayout) -> list[list[int]]:
    """The quantisation table of each component; Pillow uses the last one for all that follow."""
    given: dict[int, list[int]] = getattr(_open(data), "quantization", {})
    numbers = list(layout.tables)
    while len(numbers) > 1 and numbers[-1] == numbers[-2]:
        numbers.pop()
    return [given[number] for number in numbers]


def _resized(data: bytes, size_at: int, size: tuple[int, int]) -> bytes:
    """The file with another (height, width) in its header."""
    return data[:size_at] + struct.pack(">HH", *size) + data[size_at + 4 :]


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["JPEG"])
