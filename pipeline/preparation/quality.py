"""How good a crop is to learn from."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from pipeline.types import Floats

_SIDE = 112
"""Crops of every size are measured at this side in pixels, so that one threshold holds for all."""

_FACE = (slice(28, 104), slice(24, 88))
"""The face without its background in such a square, in both templates: rows, columns."""


def sharpness(crops: Tensor) -> Floats:
    """How much of a crop's finest detail one more blur takes away.

    The standard deviation of the Laplacian over that of the same crop after a Gaussian blur of one pixel. A ratio, so
    that neither contrast nor the tone of the skin counts. What is out of focus has little left to lose.

    Args:
        crops: [N, 3, S, S] f32 0..1 RGB.

    Returns:
        [N] from 1 (blurred out, or no detail at all) up. Faces of 100 photograph pixels have 1.6 to 2.7, and 1.3 to
        1.5 where their photographs are blurred by 1.5 pixels of the square; larger ones in focus up to 5, noise 13.
    """
    return np.array([_of_one(crop.permute(1, 2, 0).numpy()) for crop in crops], np.float32)


def _of_one(crop: Floats) -> float:
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) * 255.0
    if len(grey) != _SIDE:
        shrinks = len(grey) > _SIDE
        grey = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    detail, left = (float(_laplacian(picture).std()) for picture in (grey, cv2.GaussianBlur(grey, (0, 0), 1.0)))
    return max(detail / max(left, 0.1), 1.0)


def _laplacian(grey: Floats) -> Floats:
    return np.asarray(cv2.Laplacian(grey, cv2.CV_32F)[_FACE], np.float32)
