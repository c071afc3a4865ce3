"""Putting results back into the frame, on each face's region only.

Cost follows the face's area, not the frame's. Where faces are close, every pixel belongs to the face
whose centre is nearest in that face's own measure, so that no paste brings back a neighbour's old face
or covers one that was to stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.faces.alignment import apply, invert
from pipeline.types import Floats

_SEAM = 0.06
"""Width of the soft border between two faces, as a part of the crop's side."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the frame in pixels: rows top..bottom, columns left..right, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def paste(
    frame: Tensor, results: Tensor, to_frame: Floats, masks: Floats, neighbours: Floats | None = None
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Blend results into a copy of the frame.

    Args:
        frame: [3, H, W] u8 RGB; never changed.
        results: [N, 3, S, S] f32 0..1 or u8 RGB.
        to_frame: [N, 2, 3] from crop pixels to frame pixels.
        masks: [N, S, S] f32 0..1 in crop space, 1 = replace; 0 on the rim.
        neighbours: [M, 2, 3] crop-to-frame of further faces that stay as they are and are not covered.

    Returns:
        [3, H, W] u8 RGB, and [H, W] bool: where a mask was above 0. Elsewhere not one pixel differs.
    """
    image = frame.permute(1, 2, 0).numpy()
    blended = np.array(image, order="C")
    changed = np.zeros(image.shape[:2], np.bool_)
    size = results.shape[-1]
    others = to_frame if neighbours is None else np.concatenate([to_frame, neighbours])
    pixels = results.permute(0, 2, 3, 1).numpy()
    for index in range(len(results)):
        region = _region(to_frame[index], size, image.shape[:2])
        if region is None:
            continue
        crop = pixels[index].astype(np.float32) * (1.0 if pixels.dtype == np.uint8 else 255.0)
        patch, weight = _warp_out(crop, masks[index], to_frame[index], region)
        _keep_to_own_side(weight, index, others, region, size)
        _blend(blended, image, changed, patch, weight, region)
    return torch.from_numpy(blended).permute(2, 0, 1), changed


def blur(
    frame: Tensor, to_frame: Floats, masks: Floats, neighbours: Floats | None = None
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Make faces unrecognisable: a mosaic of 8 x 8 cells over the face, smoothed.

    Args:
        frame: [3, H, W] u8 RGB; never changed.
        to_frame: [N, 2, 3] from crop pixels to frame pixels.
        masks: [N, S, S] f32 0..1 in crop space, 1 = replace.
        neighbours: as in `paste`; blurred faces do not make room for each other.

    Returns:
        As `paste`.
    """
    size = masks.shape[-1]
    image = frame.permute(1, 2, 0).numpy()
    changed = np.zeros(image.shape[:2], np.bool_)
    for index, transform in enumerate(invert(to_frame)):
        crop = cv2.warpAffine(image, transform.astype(np.float64), (size, size), borderMode=cv2.BORDER_REPLICATE)
        blurred = torch.from_numpy(_mosaic(crop, 8)[None]).permute(0, 3, 1, 2)
        one = slice(index, index + 1)
        frame, also = paste(frame, blurred, to_frame[one], masks[one], neighbours)
        changed |= also
    return frame, changed


def blur_all(frame: Tensor) -> Tensor:
    """A whole frame made unrecognisable: [3, H, W] u8 to the same."""
    image = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
    return torch.from_numpy(_mosaic(image, 16)).permute(2, 0, 1)


def _mosaic(image: NDArray[np.uint8], cells: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    small = cv2.resize(image, (min(cells, width), min(cells, height)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _region(to_frame: Floats, size: int, shape: tuple[int, int]) -> Region | None:
    """The part of the frame that a crop covers; None when that is outside."""
    corners = np.array([[[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]]], np.float32)
    reach = apply(to_frame[None], corners)[0]
    low = np.maximum(np.floor(reach.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(reach.max(axis=0)).astype(int) + 1, (shape[1], shape[0]))
    if (high <= low).any():
        return None
    return Region(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _warp_out(crop: Floats, mask: Floats, to_frame: Floats, region: Region) -> tuple[Floats, Floats]:
    """A crop [S, S, 3] and its mask [S, S] brought into a region [h, w] of the frame."""
    matrix = to_frame.astype(np.float64)
    matrix[:, 2] -= (region.left, region.top)
    shrink = int(1.0 / max(float(np.hypot(matrix[0, 0], matrix[1, 0])), 1e-6))
    side = crop.shape[0] // shrink if shrink >= 2 else crop.shape[0]
    if side >= 8 and side < crop.shape[0]:  # a face much smaller than its crop: average first, or it aliases
        step = crop.shape[0] / side
        crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (step - 1) / 2.0)
        matrix[:, :2] *= step
    shape = (region.right - region.left, region.bottom - region.top)
    patch = cv2.warpAffine(crop, matrix, shape, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(mask, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(patch, np.float32), np.asarray(weight, np.float32)


def _keep_to_own_side(weight: Floats, index: int, others: Floats, region: Region, size: int) -> None:
    """Fade a face's weight to 0 where another face's centre is nearer, each in its own crop's measure."""
    own = None
    for other in range(len(others)):
        theirs = _region(others[other], size, (region.bottom, region.right))
        if other == index or theirs is None or theirs.right <= region.left or theirs.bottom <= region.top:
            continue
        if np.array_equal(others[other], others[index]):  # the same face twice: the first has it
            weight *= index < other
            continue
        if own is None:
            own = _distance(others[index], region, size)
        nearer_by = _distance(others[other], region, size) - own
        weight *= np.clip(nearer_by / _SEAM, 0.0, 1.0)


def _distance(to_frame: Floats, region: Region, size: int) -> Floats:
    """[h, w] distance from a crop's centre, in sides of that crop."""
    to_crop = invert(to_frame[None])[0]
    x = np.arange(region.left, region.right, dtype=np.float32)[None, :]
    y = np.arange(region.top, region.bottom, dtype=np.float32)[:, None]
    middle = (size - 1) / 2.0
    u = to_crop[0, 0] * x + to_crop[0, 1] * y + (to_crop[0, 2] - middle)
    v = to_crop[1, 0] * x + to_crop[1, 1] * y + (to_crop[1, 2] - middle)
    return np.asarray(np.hypot(u, v) / size, np.float32)


def _blend(
    blended: NDArray[np.uint8],
    image: NDArray[np.uint8],
    changed: NDArray[np.bool_],
    patch: Floats,
    weight: Floats,
    region: Region,
) -> None:
    """Move the region towards the patch by its weight, in place; the sides of faces do not overlap."""
    rows, columns = region.slices
    touched = weight > 0
    under = blended[rows, columns]
    mixed = cv2.blendLinear(under.astype(np.float32), patch, 1.0 - weight, weight)
    np.copyto(under, cv2.convertScaleAbs(np.maximum(mixed, 0.0)), where=touched[:, :, None])
    changed[rows, columns] |= touched
