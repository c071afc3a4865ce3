"""Which rectangle of a frame some crops touch."""

from __future__ import annotations

import numpy as np

from pipeline.faces.alignment import apply
from pipeline.types import Floats

_MARGIN_PX = 8
"""Pixels round a crop that resampling looks at."""


def reach(to_frame: Floats, size: int, rim: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that crops of side `size` touch, without a rim; ends excluded."""
    first, last = rim, size - 1 - rim
    corners = np.array([[first, first], [last, first], [first, last], [last, last]], np.float32)
    touched = apply(to_frame, np.broadcast_to(corners, (len(to_frame), 4, 2))).reshape(-1, 2)
    low, high = np.floor(touched.min(axis=0)) - _MARGIN_PX, np.ceil(touched.max(axis=0)) + _MARGIN_PX + 1
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def shifted(to_frame: Floats, rectangle: tuple[int, int, int, int]) -> Floats:
    """[N, 2, 3] crop-to-frame to crop-to-rectangle."""
    moved = to_frame.copy()
    moved[:, :, 2] -= np.array(rectangle[:2], np.float32)
    return moved
