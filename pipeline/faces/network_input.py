"""Aligned crops as frozen networks want them: another size, another part, differentiable throughout."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.types import Floats


def resized(crops: Tensor, side: int) -> Tensor:
    """[B, 3, S, S] to [B, 3, side, side], without aliasing."""
    if crops.shape[-1] == side:
        return crops
    return F.interpolate(crops, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def part_of(crops: Tensor, matrix: Floats, side: int, beyond: Literal["border", "zeros"]) -> Tensor:
    """A square somewhere in crops of about its scale.

    Nothing is copied to the device: that would halt a GPU, and a recorded step may not.

    Args:
        crops: [B, 3, S, S].
        matrix: [2, 3] from the square's pixels to the crops'.
        side: of the square in pixels.
        beyond: what is there outside the crops: `border` repeats their edge, `zeros` is black.

    Returns:
        [B, 3, side, side].
    """
    (a, b, c), (d, e, f) = _normalised(matrix, side, crops.shape[-1]).tolist()
    at = (2.0 * torch.arange(side, dtype=crops.dtype, device=crops.device) + 1.0) / side - 1.0
    x, y = at[None, :], at[:, None]
    grid = torch.stack([a * x + b * y + c, d * x + e * y + f], dim=2)
    return F.grid_sample(crops, grid.expand(len(crops), -1, -1, -1), "bilinear", beyond, align_corners=False)


def _normalised(matrix: Floats, out_side: int, in_side: int) -> np.ndarray:
    """A pixel-to-pixel affine as `grid_sample` wants it: both squares span -1..1, pixel x is at (2x + 1) / side - 1."""
    linear, shift = matrix[:, :2].astype(np.float64), matrix[:, 2].astype(np.float64)
    centre_out, centre_in = (out_side - 1) / 2, (in_side - 1) / 2
    moved = linear @ np.full(2, centre_out) + shift - centre_in
    return np.concatenate([linear * (out_side / in_side), (moved * 2 / in_side)[:, None]], axis=1)


def takes_raw_pixels(path: str, normaliser: str = "") -> bool:
    """Insightface's own rule: a subtraction and a product among the first nodes mean that the network scales itself.

    Args:
        path: the network's ONNX file.
        normaliser: name of a node that means it too, among the first three; insightface asks for one in some kinds.
    """
    names = [node.name for node in onnx.load(path, load_external_data=False).graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    return (subtracts and multiplies) or (bool(normaliser) and normaliser in names[:3])
