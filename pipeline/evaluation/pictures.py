"""Crops laid out for people to look at: the grid of a validation, the sheet of a test."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.media.addresses import split_address
from pipeline.media.store import store_at

Pixels = NDArray[np.uint8]

_SMALLEST, _LARGEST = 128, 256
"""Sides in pixels between which a cell is: smaller crops are enlarged, larger ones reduced."""

GAP = 4
"""White pixels between cells."""


def cell_side(crop_size: int) -> int:
    """Side in pixels of the cells that crops of a size are shown in."""
    return min(max(crop_size, _SMALLEST), _LARGEST)


def lay_out(rows: Sequence[Sequence[Tensor | None]]) -> Pixels:
    """Crops in rows and columns, thin white gaps between them.

    Args:
        rows: of equal length; each crop [3, S, S] RGB 0..1, or None for an empty cell. At least one is a crop.

    Returns:
        [h, w, 3] u8 RGB.
    """
    side = cell_side(next(len(crop[0]) for row in rows for crop in row if crop is not None))
    height, width = (count * (side + GAP) - GAP for count in (len(rows), len(rows[0])))
    picture = np.full((height, width, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, crop in enumerate(row):
            if crop is not None:
                top, left = y * (side + GAP), x * (side + GAP)
                picture[top : top + side, left : left + side] = _cell(crop, side)
    return picture


def _cell(crop: Tensor, side: int) -> Pixels:
    pixels = (crop.detach().float().clamp(0.0, 1.0) * 255.0).round().byte().permute(1, 2, 0).cpu().numpy()
    if len(pixels) == side:
        return np.asarray(pixels)
    shrinks = side < len(pixels)
    resized = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)


def write_png(path: str, picture: Pixels) -> None:
    """Write a picture [h, w, 3] u8 RGB, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("OpenCV cannot encode PNG")
    folder, name = split_address(path)
    store_at(folder).write(name, bytes(data))
