"""Faces that the generator is given disguised, and must show as they are: what a swap changes, learnt from the source.

A generator that always sees its target undisturbed can copy the skin and the places of the features, and reach the
source's embedding by faint patterns instead. In batches where source and target are one person, the face in the given
crop gets another skin tone, its parts get casts of their own, and it is warped (as in the first deepfake autoencoders);
the reconstruction loss compares the result with the crop as it was. Only the source's identity says what that was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import DisguiseConfig, Template
from pipeline.faces.alignment import template_landmarks
from pipeline.types import Floats

_DISGUISE = 6  # stream of random numbers; 0..5 are order.py's, augmentation.py's and batches.py's
_CONTROL = 5  # control points of a warp along each axis
_PARTS = 8  # parts of a crop along each axis that are tinted by themselves
_TONE = (0.97, 1.28, 1.45)
"""Logarithm of light over dark skin in red, green and blue: melanin takes most of the blue."""

_LIGHTEST, _DARKEST = 0.8, 0.06
"""Mean colour of a face beyond which it would burn out, or drown in black."""

_RADII = (1.25, 1.65)
"""Half the width and height of a face, in distances from the eyes' middle to the mouth's."""


@dataclass(frozen=True, slots=True)
class Disguises:
    """What happens to each face of a batch.

    Attributes:
        tone: [B] 0..1, from the darkest to the lightest that the setting and the face allow.
        oval: [B, 5] of the recoloured oval: move along x and y and change of the two radii, all -1..1, and softness
            of its edge 0..1.
        moves: [B, 2, 5, 5] displacements (x, y) of control points, parts of the side.
        tints: [B, 3, 8, 8] change of the logarithm of red, green and blue at control points.
    """

    tone: Floats
    oval: Floats
    moves: Floats
    tints: Floats


def draw_disguises(settings: DisguiseConfig, seed: int, positions: range) -> Disguises:
    """Disguises of the samples at some positions of the stream: the same whoever asks."""
    warped, count = 7 + 2 * _CONTROL**2, 7 + 2 * _CONTROL**2 + 3 * _PARTS**2
    draws = [np.random.default_rng([seed, _DISGUISE, p]).uniform(-1.0, 1.0, count) for p in positions]
    unit = np.array(draws, np.float32).reshape(len(positions), count)
    oval = unit[:, 1:6].copy()
    oval[:, 4] = (oval[:, 4] + 1.0) / 2.0
    much = (unit[:, 6, None, None, None] + 1.0) / 2.0
    moves = settings.warp * much * unit[:, 7:warped].reshape(-1, 2, _CONTROL, _CONTROL)
    tints = settings.tint * unit[:, warped:].reshape(-1, 3, _PARTS, _PARTS)
    return Disguises((unit[:, 0] + 1.0) / 2.0, oval, moves, tints)


def disguise(crops: Tensor, disguises: Disguises, settings: DisguiseConfig, template: Template) -> Tensor:
    """[B, 3, S, S] u8 to the same with other skin and moved features; the surroundings of the face stay."""
    pixels = crops.float() / 255.0
    if settings.warp:
        pixels = _warped(pixels, disguises, template)
    if settings.tint:
        pixels = _tinted(pixels, disguises, template)
    if settings.tone:
        pixels = _recoloured(pixels, disguises, settings, template)
    return (pixels * 255.0).round_().clamp_(0, 255).to(torch.uint8)


def _recoloured(pixels: Tensor, disguises: Disguises, settings: DisguiseConfig, template: Template) -> Tensor:
    inside = _inside(pixels.shape[-1], template, torch.from_numpy(disguises.oval))[:, None]
    direction = torch.tensor(_TONE)
    colour = ((pixels * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))).clamp_min(1.0 / 255.0)  # [B, 3]
    lightest = ((math.log(_LIGHTEST) - colour.log()) / direction).amin(dim=1).clamp(0.0, settings.tone)
    darkest = ((math.log(_DARKEST) - colour.log()) / direction).amax(dim=1).clamp(-settings.tone, 0.0)
    tone = darkest + torch.from_numpy(disguises.tone) * (lightest - darkest)
    gain = (tone[:, None] * direction).exp()[:, :, None, None]
    return pixels * (1.0 + inside * (gain - 1.0))


def _tinted(pixels: Tensor, disguises: Disguises, template: Template) -> Tensor:
    """Every part of the face takes a cast of its own, most in its middle and none at its edge."""
    side, count = pixels.shape[-1], len(pixels)
    field = F.interpolate(torch.from_numpy(disguises.tints), size=(side, side), mode="bicubic", align_corners=True)
    inside = _inside(side, template, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.6]]).expand(count, 5))
    return (pixels * (field * inside[:, None]).exp()).clamp(0.0, 1.0)


def _warped(pixels: Tensor, disguises: Disguises, template: Template) -> Tensor:
    """Nothing moves at the edge of the face, and ever more towards its middle."""
    side, count = pixels.shape[-1], len(pixels)
    smooth = F.interpolate(torch.from_numpy(disguises.moves), size=(side, side), mode="bicubic", align_corners=True)
    inside = _inside(side, template, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.6]]).expand(count, 5))
    still = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(pixels.shape), align_corners=False)
    grid = still + 2.0 * (smooth * inside[:, None]).permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)


def _inside(side: int, template: Template, oval: Tensor) -> Tensor:
    """[B, S, S] 1 inside the oval of a face aligned to the template, 0 outside, with a soft edge."""
    points = torch.from_numpy(template_landmarks(template, side).mean(axis=0))
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    unit = (mouth - eyes).norm()
    move, radii = oval[:, :2] * 0.2 * unit, torch.tensor(_RADII) * unit * (1.0 + 0.25 * oval[:, 2:4])
    centre = (eyes + mouth) / 2 + move
    at = torch.arange(side, dtype=torch.float32)
    across = (at[None, None, :] - centre[:, 0, None, None]) / radii[:, 0, None, None]
    down = (at[None, :, None] - centre[:, 1, None, None]) / radii[:, 1, None, None]
    softness = 0.02 + 0.08 * oval[:, 4, None, None]
    return torch.sigmoid((1.0 - (across.square() + down.square()).sqrt()) / softness)
