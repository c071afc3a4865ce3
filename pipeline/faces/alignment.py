"""The one alignment: five landmarks to a similarity, frames to crops.

Used by preparation, training, swapping and evaluation, so that a network sees the same crop everywhere.
Coordinates are (x, y) pixels with the origin at the centre of the top left pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import Template
from pipeline.types import Crops, Floats

Pixels = NDArray[np.uint8]

ARCFACE_POSES: Floats = np.array(
    [
        [[51.642, 50.115], [57.617, 49.990], [35.740, 69.007], [51.157, 89.050], [57.025, 89.702]],
        [[45.031, 50.118], [65.568, 50.872], [39.677, 68.111], [45.177, 86.190], [64.246, 86.758]],
        [[39.730, 51.138], [72.270, 51.138], [56.000, 68.493], [42.463, 87.010], [69.537, 87.010]],
        [[46.845, 50.872], [67.382, 50.118], [72.737, 68.111], [48.167, 86.758], [67.236, 86.190]],
        [[54.796, 49.990], [60.771, 50.115], [76.673, 69.007], [55.388, 89.702], [61.257, 89.050]],
    ],
    dtype=np.float32,
)
"""[5, 5, 2] landmarks in a 112 px square for five poses, profile to profile (insightface's published values)."""

FFHQ: Floats = np.array(
    [
        [
            [192.98138, 239.94708],
            [318.90277, 240.1936],
            [256.63416, 314.01935],
            [201.26117, 371.41043],
            [313.08905, 371.15118],
        ]
    ],
    dtype=np.float32,
)
"""[1, 5, 2] landmarks in a 512 px square: the mean over FFHQ's aligned faces (facexlib's published values)."""

_TEMPLATES: dict[Template, tuple[Floats, float]] = {"arcface": (ARCFACE_POSES, 112.0), "ffhq": (FFHQ, 512.0)}


def template_landmarks(template: Template, size: int) -> Floats:
    """[P, 5, 2] landmarks of a template's P poses in a crop of side `size` pixels.

    Pixel areas scale, not pixel centres: a point x of the S px template goes to (x + 0.5) * size / S - 0.5,
    so that a crop resized by area is the crop of the other size.
    """
    points, side = _TEMPLATES[template]
    return ((points + 0.5) * (size / side) - 0.5).astype(np.float32)


def similarity(from_points: Floats, to_points: Floats) -> Floats:
    """Least-squares similarity without reflection between point sets (Umeyama, 1991).

    Args:
        from_points: [N, K, 2].
        to_points: [N, K, 2], or anything that broadcasts to it.

    Returns:
        [N, 2, 3] that take (x, y, 1) of `from_points` to `to_points`. All-equal points give a zero scale.
    """
    source, target = np.broadcast_arrays(from_points.astype(np.float64), to_points.astype(np.float64))
    source_mean, target_mean = source.mean(axis=1, keepdims=True), target.mean(axis=1, keepdims=True)
    a, b = source - source_mean, target - target_mean
    # In the plane, rotation and scale are one complex number: <a, b> / <a, a>.
    real = (a * b).sum(axis=(1, 2))
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(axis=1)
    power = np.maximum((a * a).sum(axis=(1, 2)), 1e-12)
    c, s = real / power, imaginary / power
    linear = np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)  # [N, 2, 2]
    shift = target_mean[:, 0] - np.einsum("nij,nj->ni", linear, source_mean[:, 0])
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


def invert(transforms: Floats) -> Floats:
    """The inverses of [N, 2, 3] affine transforms."""
    linear = np.linalg.inv(transforms[:, :, :2].astype(np.float64))
    shift = -np.einsum("nij,nj->ni", linear, transforms[:, :, 2].astype(np.float64))
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


def apply(transforms: Floats, points: Floats) -> Floats:
    """[N, 2, 3] transforms applied to [N, K, 2] points."""
    moved = np.einsum("nij,nkj->nki", transforms[:, :, :2], points) + transforms[:, None, :, 2]
    return np.asarray(moved, np.float32)


def frame_to_crop(landmarks: Floats, template: Template, size: int) -> Floats:
    """Where each face goes in its crop: the pose of the template with the least error wins.

    Args:
        landmarks: [N, 5, 2] in frame pixels.
        template: which template.
        size: side of the crop in pixels.

    Returns:
        [N, 2, 3] from frame pixels to crop pixels.
    """
    poses = template_landmarks(template, size)
    candidates = np.stack([similarity(landmarks, pose[None]) for pose in poses], axis=1)  # [N, P, 2, 3]
    errors = np.stack(
        [np.square(apply(candidates[:, p], landmarks) - poses[p]).sum(axis=(1, 2)) for p in range(len(poses))], axis=1
    )
    best: Floats = candidates[np.arange(len(landmarks)), errors.argmin(axis=1)]
    return best


def cut_crops(frame: Tensor, landmarks: Floats, template: Template, size: int) -> Crops:
    """Aligned crops of the faces of one frame.

    A crop that shrinks the face is averaged down first, so that nothing aliases; what lies outside the
    frame repeats its edge.

    Args:
        frame: [3, H, W] u8 RGB.
        landmarks: [N, 5, 2] in frame pixels.
        template: which template.
        size: side S of the crops in pixels.

    Returns:
        N crops of [3, S, S], f32 0..1, all with frame index 0.
    """
    to_crop = frame_to_crop(landmarks, template, size)
    pixels = warp_in(frame.permute(1, 2, 0).numpy(), to_crop, size)
    crops = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2).contiguous() / 255.0
    return Crops(crops, np.zeros(len(to_crop), np.int64), invert(to_crop) if len(to_crop) else to_crop)


def warp_in(image: Pixels, to_crop: Floats, size: int) -> Pixels:
    """Crops by transforms that are known: [H, W, 3] u8 and [N, 2, 3] frame-to-crop to [N, S, S, 3] u8."""
    crops = [_warp_in(image, matrix, size) for matrix in to_crop]
    return np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)


def compose(after: Floats, before: Floats) -> Floats:
    """[N, 2, 3] of first `before`, then `after`; either may be a single [2, 3] for all."""
    after, before = np.broadcast_arrays(*(t if t.ndim == 3 else t[None] for t in (after, before)))
    linear = after[:, :, :2].astype(np.float64)
    moved = linear @ before.astype(np.float64)
    moved[:, :, 2] += after[:, :, 2]
    return moved.astype(np.float32)


def _warp_in(image: Pixels, to_crop: Floats, size: int) -> Pixels:
    """[H, W, 3] u8 to [S, S, 3] u8."""
    patch, offset = _surroundings(image, to_crop, size)
    matrix = to_crop.astype(np.float64)
    matrix[:, 2] += matrix[:, :2] @ offset
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    shrink = int(1.0 / scale) if scale > 0 else 1
    if shrink >= 2:
        height, width = patch.shape[:2]
        patch = cv2.copyMakeBorder(patch, 0, -height % shrink, 0, -width % shrink, cv2.BORDER_REPLICATE)
        small = (patch.shape[1] // shrink, patch.shape[0] // shrink)
        patch = cv2.resize(patch, small, interpolation=cv2.INTER_AREA)
        # Pixel centres: x_small = (x + 0.5) / shrink - 0.5
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (shrink - 1) / 2.0)
        matrix[:, :2] *= shrink
    crop = cv2.warpAffine(patch, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def _surroundings(image: Pixels, to_crop: Floats, size: int) -> tuple[Pixels, NDArray[np.float64]]:
    """The part of the image that a crop needs, and its (x, y) offset: work follows the face, not the frame."""
    corners = np.array([[[0, 0], [size, 0], [0, size], [size, size]]], np.float32)
    reach = apply(invert(to_crop[None]), corners)[0]
    height, width = image.shape[:2]
    margin = 4.0 + 2.0 * np.ptp(reach, axis=0).max() / size
    low = np.clip(np.floor(reach.min(axis=0) - margin), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(reach.max(axis=0) + margin), low + 1, (width, height)).astype(int)
    return image[low[1] : high[1], low[0] : high[0]], low.astype(np.float64)
