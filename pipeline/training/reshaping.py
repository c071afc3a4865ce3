"""Other features for a face: eyes, brows, nose and mouth of another size, place, slant and strength of colour.

Lengths are in distances from the eyes' middle to the mouth's; x runs along the line of the eyes, y from them to the
mouth. What moves falls off smoothly around each feature, and the two sides of a face change alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.types import Floats

_KIND = torch.tensor([0, 0, 1, 1, 2, 3])
"""Of the six features: two eyes, two brows, nose, mouth."""

_SIDE = torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
"""Where outwards is, along x, and which way round a slant goes."""

_BROW_UP = 0.33
"""From an eye's centre to its brow's."""

_REACH = torch.tensor([(0.36, 0.24), (0.42, 0.19), (0.40, 0.26), (0.62, 0.30)])
"""[4, 2] how far around the centres of eyes, brows, nose and mouth things move with them."""

_MOST = np.array(
    [
        (0.12, 0.00, 0.25, 0.25, 0.25),
        (0.08, 0.09, 0.15, 0.60, 0.30),
        (0.00, 0.14, 0.40, 0.10, 0.00),
        (0.00, 0.10, 0.32, 0.30, 0.00),
    ],
    np.float32,
)
"""[4, 5] largest move outwards and down, logarithm of change in width and height, slant in radians: about what two
people differ by; eyes and mouths open and close, so that their height says less of who they are."""

_LATTICE = 64
"""Places along each axis where smooth fields are computed; between them they are interpolated."""

_AROUND = 12
"""Parts of a crop along each axis whose mean colour is that of the skin around a feature."""

_FADES = torch.tensor([0.5, 1.0, 0.0, 1.0])
"""[4] share of a change of colour that a kind of feature takes: brows and lips stand out more or less, a nose has no
colour of its own."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Changes of the features of a batch of faces.

    Attributes:
        change: [B, 4, 5] of eyes, brows, nose, mouth: move outwards and down, logarithms of change in width and
            height, slant in radians.
        colour: [B, 4, 3] logarithms of how far red, green and blue stand out from the skin around.
    """

    change: Floats
    colour: Floats


def shapes_of(draws: Floats, shape: float, tint: float) -> Shapes:
    """Changes from numbers that were drawn.

    Args:
        draws: [B, 4, 9] -1..1.
        shape: 0..1, how far the largest change of size and place goes.
        tint: largest change of a colour, a logarithm.
    """
    alike, apart = draws[:, :, 5:6], draws[:, :, 6:9]
    colour = tint * (0.7 * alike + 0.3 * apart)
    return Shapes(shape * _MOST * draws[:, :, :5], colour.astype(np.float32))


class Features:
    """The features of a batch of faces, and where they go.

    Args:
        landmarks: [B, 5, 2] in crop pixels.
        shapes: of the same faces.
    """

    def __init__(self, landmarks: Floats, shapes: Shapes) -> None:
        points = torch.from_numpy(np.asarray(landmarks, np.float32))
        eyes, mouth = points[:, :2].mean(dim=1), points[:, 3:].mean(dim=1)
        unit = (mouth - eyes).norm(dim=1).clamp_min(1.0)[:, None, None]
        across = F.normalize(points[:, 1] - points[:, 0], dim=1)
        axes = torch.stack([across, torch.stack([-across[:, 1], across[:, 0]], dim=1)], dim=1)  # [B, 2, 2]
        self._to_own, self._to_crop = axes.transpose(1, 2) / unit, axes * unit
        up = -_BROW_UP * self._to_crop[:, 1]
        left, right, nose = points[:, 0], points[:, 1], points[:, 2]
        self._centres = torch.stack([left, right, left + up, right + up, nose, mouth], dim=1)  # [B, 6, 2]
        out, down, wider, taller, slant = torch.from_numpy(shapes.change)[:, _KIND].unbind(dim=2)
        self._move = torch.stack([_SIDE * out, down], dim=2)
        cos, sin, width, height = torch.cos(slant), torch.sin(_SIDE * slant), wider.exp(), taller.exp()
        rows = [torch.stack([cos * width, -sin * height], dim=2), torch.stack([sin * width, cos * height], dim=2)]
        self._linear = torch.stack(rows, dim=2)  # [B, 6, 2, 2]
        self._gain = torch.from_numpy(shapes.colour).exp()
        self._landmarks = points

    def moved(self) -> Floats:
        """[B, 5, 2] the landmarks of the changed faces, in crop pixels."""
        part = [0, 1, 4, 5, 5]
        here = self._own(self._landmarks - self._centres[:, part])
        there = (self._linear[:, part] @ here[..., None])[..., 0] + self._move[:, part]
        return (self._centres[:, part] + self._crop(there)).numpy()

    def origins(self, places: Tensor) -> Tensor:
        """Where in the face as it was the pixels of the changed one come from: [B, N, 2] to the same, crop pixels."""
        off = self._own(places[:, None] - self._centres[:, :, None]) - self._move[:, :, None]  # [B, 6, N, 2]
        back = (torch.linalg.inv(self._linear)[:, :, None] @ off[..., None])[..., 0]
        weight = self._near(off)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1.0)
        shift = (weight[..., None] * (back - off - self._move[:, :, None])).sum(dim=1)
        return places + self._crop(shift)

    def coloured(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] 0..1 to the same, with features that stand out from the skin around more, or less."""
        side = pixels.shape[-1]
        weight = self._near(self._own(lattice(side)[None, None] - self._centres[:, :, None]))
        gain = 1.0 + (_FADES[_KIND][:, None] * (self._gain[:, _KIND] - 1.0)).transpose(1, 2) @ weight  # [B, 3, N]
        around = F.interpolate(F.adaptive_avg_pool2d(pixels, _AROUND), size=(side, side), mode="bilinear")
        return (around + (pixels - around) * spread(gain, side)).clamp(0.0, 1.0)

    def _near(self, off: Tensor) -> Tensor:
        """[B, 6, N] 1 in the middle of each feature, 0 far from it."""
        reach = _REACH[_KIND][:, None]
        return torch.exp(-(off / reach).square().sum(dim=-1).square())

    def _own(self, off: Tensor) -> Tensor:
        """Differences [B, …, 2] in crop pixels to each face's own units and axes."""
        return _turned(off, self._to_own)

    def _crop(self, off: Tensor) -> Tensor:
        """Back from a face's own units and axes."""
        return _turned(off, self._to_crop)


def _turned(off: Tensor, axes: Tensor) -> Tensor:
    """[B, …, 2] by [B, 2, 2]."""
    return torch.bmm(off.flatten(1, -2), axes).view(off.shape)


def lattice(side: int, count: int = _LATTICE) -> Tensor:
    """[N, 2] (x, y) in the pixels of a crop of side S, of `count` places along each axis, no more than its pixels."""
    count = min(count, side)
    at = (torch.arange(count, dtype=torch.float32) + 0.5) * (side / count) - 0.5
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).view(-1, 2)


def spread(values: Tensor, side: int) -> Tensor:
    """[B, C, N] at the places of `lattice(side)` to [B, C, S, S] at every pixel."""
    count = min(_LATTICE, side)
    return F.interpolate(values.reshape(*values.shape[:2], count, count), size=(side, side), mode="bilinear")
