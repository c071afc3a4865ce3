"""Rectangles of a decoded frame as RGB and back: what is not changed stays as it was decoded, in full depth.

Converting whole frames to RGB and back would cost time, round every pixel, and reduce 10 bits to 8.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_HD_HEIGHT = 720
_FINE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)  # without the last two, luma is off by one everywhere


class FrameRegions:
    """Access to the rectangles of one frame.

    Args:
        frame: decoded, of a pixel format that is `supported`; it is changed by `write`.
    """

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame
        self._colours = {"src_color_range": _range(frame), "dst_color_range": ColorRange.JPEG}
        self._matrix = _matrix(frame)
        self._writable = False
        components = frame.format.components
        self._step_x = max(-(-frame.width // c.width) for c in components)  # pixels of luma to one of chroma
        self._step_y = max(-(-frame.height // c.height) for c in components)

    def aligned(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """The smallest rectangle that holds another, lies in the frame, and splits no chroma pixel."""
        width, height = self._frame.width, self._frame.height
        left, top = max(left, 0) // self._step_x * self._step_x, max(top, 0) // self._step_y * self._step_y
        right = min(-(-right // self._step_x) * self._step_x, width)
        bottom = min(-(-bottom // self._step_y) * self._step_y, height)
        return left, top, max(right, left), max(bottom, top)

    def read(self, rectangle: tuple[int, int, int, int]) -> Pixels:
        """[h, w, 3] u8 RGB of an aligned rectangle (left, top, right, bottom; ends excluded)."""
        left, top, right, bottom = rectangle
        part = VideoFrame(right - left, bottom - top, self._frame.format.name)
        for mine, theirs in self._planes(part, rectangle):
            theirs[:] = mine
        converted = part.reformat(
            format="rgb24",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            interpolation=_FINE,
            **self._colours,
        )
        return np.asarray(converted.to_ndarray(), np.uint8)

    def write(self, rectangle: tuple[int, int, int, int], pixels: Pixels, changed: NDArray[np.bool_]) -> None:
        """Put pixels back where they changed.

        Args:
            rectangle: aligned.
            pixels: [h, w, 3] u8 RGB.
            changed: [h, w] where; a chroma pixel is written where any of its luma pixels is.
        """
        if not self._writable:
            self._frame.make_writable()
            self._writable = True
        source = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        part = source.reformat(
            format=self._frame.format.name,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._colours["src_color_range"],
            interpolation=_FINE,
        )
        for mine, theirs in self._planes(part, rectangle):
            mask = _reduced(changed, mine.shape[0], mine.shape[1])
            np.copyto(mine, theirs, where=mask if mine.ndim == 2 else mask[:, :, None])

    def _planes(
        self, part: VideoFrame, rectangle: tuple[int, int, int, int]
    ) -> list[tuple[NDArray[np.generic], NDArray[np.generic]]]:
        """Views of each plane's rectangle in this frame, and of the whole plane in a frame of the rectangle's size."""
        left, top, right, bottom = rectangle
        pairs = []
        for number in range(len(self._frame.planes)):
            mine, theirs = _view(self._frame, number), _view(part, number)
            down, across = self._steps(number)
            rows = slice(top // down, -(-bottom // down))
            pairs.append((mine[rows, left // across : -(-right // across)], theirs))
        return pairs

    def _steps(self, plane: int) -> tuple[int, int]:
        own = [c for c in self._frame.format.components if c.plane == plane]
        return -(-self._frame.height // own[0].height), -(-self._frame.width // own[0].width)


def _view(frame: VideoFrame, plane: int) -> NDArray[np.generic]:
    """[h, w] or [h, w, c] view of a plane's pixels, without the padding of its lines."""
    components = [c for c in frame.format.components if c.plane == plane]
    kind = np.dtype(np.uint16 if components[0].bits > 8 else np.uint8)
    raw: NDArray[np.generic] = np.frombuffer(memoryview(frame.planes[plane]), kind)
    line = frame.planes[plane].line_size // kind.itemsize
    count, width, height = len(components), components[0].width, components[0].height
    rows = raw[: line * height].reshape(height, line)[:, : width * count]
    return rows.reshape(height, width, count) if count > 1 else rows


def _reduced(changed: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """[h, w] brought to a plane's size: true where any pixel under it is."""
    down, across = -(-changed.shape[0] // height), -(-changed.shape[1] // width)
    if (down, across) == (1, 1):
        return changed
    padded = np.zeros((height * down, width * across), np.bool_)
    padded[: changed.shape[0], : changed.shape[1]] = changed
    under = [padded[y::down, x::across] for y in range(down) for x in range(across)]
    return np.asarray(np.logical_or.reduce(under))


def _range(frame: VideoFrame) -> ColorRange:
    if frame.format.name.startswith("yuvj") or frame.format.is_rgb:
        return ColorRange.JPEG
    return ColorRange.JPEG if frame.color_range == ColorRange.JPEG else ColorRange.MPEG


def _matrix(frame: VideoFrame) -> Colorspace:
    """The frame's own, else what players assume."""
    tagged = {
        1: Colorspace.ITU709,
        4: Colorspace.FCC,
        5: Colorspace.ITU601,
        6: Colorspace.ITU601,
        7: Colorspace.SMPTE240M,
    }
    tagged |= {9: Colorspace.BT2020, 10: Colorspace.BT2020}
    guess = Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601
    return tagged.get(int(frame.colorspace), guess)


def supported(pixel_format: str) -> bool:
    """Whether rectangles of this pixel format can be read and written: whole bytes a component, no palette."""
    form = av.VideoFormat(pixel_format)
    return not form.has_palette and not form.is_bit_stream and form.is_planar and not form.is_big_endian
