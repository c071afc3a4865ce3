from __future__ import annotations

import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.media.video_regions import FrameRegions, supported
from tests.videos import picture

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "nv12", "p010le", "gbrp", "gray")
ASKED = (33, 21, 94, 70)


def frame(pixel_format: str) -> VideoFrame:
    return VideoFrame.from_ndarray(picture(5, 128, 96), format="rgb24").reformat(format=pixel_format)


def planes(of: VideoFrame) -> list[NDArray[np.uint8]]:
    return [np.array(np.frombuffer(memoryview(plane), np.uint8)) for plane in of.planes]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_pixels_that_are_put_back_as_they_were_change_nothing_to_speak_of(pixel_format: str) -> None:
    before = frame(pixel_format)
    regions = FrameRegions(before)
    rectangle = regions.aligned(*ASKED)
    whole = planes(before)
    pixels = regions.read(rectangle)
    regions.write(rectangle, pixels, np.ones(pixels.shape[:2], np.bool_))
    assert np.abs(regions.read(rectangle).astype(int) - pixels).max() <= 3
    kind = np.uint16 if "1" in pixel_format.removeprefix("nv12") and "le" in pixel_format else np.uint8
    for one, other in zip(whole, planes(before), strict=True):
        assert np.abs(one.view(kind).astype(int) - other.view(kind)).mean() < (6 if kind is np.uint16 else 0.5)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_only_what_changed_is_written_in_every_plane(pixel_format: str) -> None:
    image = frame(pixel_format)
    regions = FrameRegions(image)
    rectangle = left, top, right, bottom = regions.aligned(*ASKED)
    before = image.to_ndarray(format="rgb24").astype(int)
    changed = np.zeros((bottom - top, right - left), np.bool_)
    changed[10:20, 8:24] = True
    regions.write(rectangle, np.full((bottom - top, right - left, 3), 200, np.uint8), changed)
    after = image.to_ndarray(format="rgb24").astype(int)
    inside = np.zeros(before.shape[:2], np.bool_)
    inside[top + 8 : top + 22, left + 6 : left + 26] = True  # chroma reaches to the neighbours when shown
    assert (before[~inside] == after[~inside]).all()
    assert np.abs(after[top + 12 : top + 18, left + 10 : left + 22] - 200).max() <= 4


def test_a_rectangle_splits_no_chroma_and_stays_in_the_frame() -> None:
    regions = FrameRegions(frame("yuv420p"))
    assert regions.aligned(33, 21, 95, 71) == (32, 20, 96, 72)
    assert regions.aligned(-10, -10, 1000, 1000) == (0, 0, 128, 96)
    assert FrameRegions(frame("yuv444p")).aligned(33, 21, 95, 71) == (33, 21, 95, 71)


def test_what_cannot_be_edited_in_place_is_known() -> None:
    assert all(supported(name) for name in ("yuv420p", "yuv420p10le", "nv12", "gbrp"))
    assert not any(supported(name) for name in ("pal8", "yuv420p10be", "rgb24"))
