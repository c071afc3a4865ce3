"""Where a film cuts: frames that look like nothing of the frame before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 16
_ENOUGH = 256
"""Pixels of the shorter side that are looked at, at least."""

_NEIGHBOURS = 5
"""Frames on both sides that say how much a picture changes anyhow."""


def signature(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[768] u8 of a frame [H, W, 3]: 16 x 16 pixels of it, each the mean of its part; of large frames, of a grid."""
    step = max(min(frame.shape[:2]) // _ENOUGH, 1)
    small = cv2.resize(np.ascontiguousarray(frame[::step, ::step]), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).reshape(-1)


def shot_starts(signatures: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Which frames begin a shot.

    A frame does when it differs from the one before by more than the threshold, and by more than twice what frames
    near it differ by: a pan or a flickering light changes everything all the time and is no cut.

    Args:
        signatures: [T, K] u8 of consecutive frames.
        threshold: mean difference of the pixels, 0..1.

    Returns:
        [T] bool; the first frame always does.
    """
    starts = np.zeros(len(signatures), np.bool_)
    if not len(signatures):
        return starts
    starts[0] = True
    change = np.abs(signatures[1:].astype(np.float32) - signatures[:-1]).mean(axis=1) / 255.0
    for at in np.flatnonzero(change > threshold):
        near = np.concatenate([change[max(at - _NEIGHBOURS, 0) : at], change[at + 1 : at + 1 + _NEIGHBOURS]])
        starts[at + 1] = not len(near) or change[at] > 2.0 * np.median(near)
    return starts
