"""Changes to target crops that keep who is in them, drawn from the seed and the sample's position in the stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import AugmentationConfig
from pipeline.types import Floats

_AUGMENTATION = 4  # stream of random numbers; 0..3 are order.py's
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happens to each crop of a batch.

    Attributes:
        flip: [B] 1 for mirrored, 0 for not.
        brightness: [B] factor.
        contrast: [B] factor about the crop's own mean.
        saturation: [B] factor about each pixel's own grey.
        radians: [B] rotation.
        scale: [B] factor.
        shift: [B, 2] (x, y), parts of the side.
    """

    flip: Floats
    brightness: Floats
    contrast: Floats
    saturation: Floats
    radians: Floats
    scale: Floats
    shift: Floats


def draw_changes(settings: AugmentationConfig, seed: int, positions: range) -> Changes:
    """Changes of the samples at some positions of the stream: the same whoever asks."""
    draws = [np.random.default_rng([seed, _AUGMENTATION, p]).uniform(-1.0, 1.0, 8) for p in positions]
    unit = np.array(draws, np.float32).reshape(len(positions), 8)
    return Changes(
        flip=((unit[:, 0] + 1.0) / 2.0 < settings.flip).astype(np.float32),
        brightness=1.0 + settings.brightness * unit[:, 1],
        contrast=1.0 + settings.contrast * unit[:, 2],
        saturation=1.0 + settings.saturation * unit[:, 3],
        radians=np.deg2rad(settings.rotate_degrees) * unit[:, 4],
        scale=1.0 + settings.scale * unit[:, 5],
        shift=settings.shift * unit[:, 6:8],
    )


def augment(crops: Tensor, changes: Changes, settings: AugmentationConfig) -> Tensor:
    """[B, 3, S, S] u8 to the same, changed; what comes in from outside a crop repeats its edge."""
    flipped = torch.from_numpy(changes.flip > 0)[:, None, None, None]
    crops = torch.where(flipped, crops.flip(-1), crops)
    if not _moves(settings) and not _colours(settings):
        return crops
    pixels = crops.float() / 255.0
    if _moves(settings):
        pixels = _moved(pixels, changes)
    if _colours(settings):
        pixels = _coloured(pixels, changes)
    return (pixels * 255.0).round_().clamp_(0, 255).to(torch.uint8)


def _moves(settings: AugmentationConfig) -> bool:
    return any((settings.rotate_degrees, settings.scale, settings.shift))


def _colours(settings: AugmentationConfig) -> bool:
    return any((settings.brightness, settings.contrast, settings.saturation))


def _moved(pixels: Tensor, changes: Changes) -> Tensor:
    cos, sin = np.cos(changes.radians) / changes.scale, np.sin(changes.radians) / changes.scale
    rows = [[cos, -sin, 2 * changes.shift[:, 0]], [sin, cos, 2 * changes.shift[:, 1]]]
    theta = torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1).copy())  # [B, 2, 3]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)


def _coloured(pixels: Tensor, changes: Changes) -> Tensor:
    def factor(values: Floats) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32))[:, None, None, None]

    grey = (pixels * torch.tensor(_LUMA)[None, :, None, None]).sum(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * factor(changes.saturation)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (mean + (pixels - mean) * factor(changes.contrast)) * factor(changes.brightness)
