"""Faces that the generator is given disguised, and must show as they are: what a swap changes, learnt from the source.

A generator that always sees its target undisturbed can copy the skin and the places of the features, and reach the
source's embedding by faint patterns instead. In batches where source and target are one person, the face in the given
crop gets another skin tone and other features (`reshaping`); the reconstruction loss compares the result with the crop
as it was. Only the source's identity says what that was.

A crop is aligned by its landmarks. Left where it was, a disguised face would be the only one whose landmarks are not
where alignment puts them, and pushing them back would take no identity. So both crops are aligned anew by the landmarks
of the disguised face, as a target is by its own and not by those of the true swap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import DisguiseConfig, Template
from pipeline.faces.alignment import frame_to_crop, invert, template_landmarks
from pipeline.training.reshaping import Features, Shapes, lattice, shapes_of, spread
from pipeline.types import Floats

_DISGUISE = 6  # stream of random numbers; 0..5 are order.py's, augmentation.py's and batches.py's
_TONE = (0.97, 1.28, 1.45)
"""Logarithm of light over dark skin in red, green and blue: melanin takes most of the blue."""

_LIGHTEST, _DARKEST = 0.8, 0.06
"""Mean colour of a face beyond which it would burn out, or drown in black."""

_RADII = (1.25, 1.65)
"""Half the width and height of a face, in distances from the eyes' middle to the mouth's."""

_SKIN_CHROMA, _SKIN_LIGHT = 0.25, 1.0
"""How far skin is from the median of the face's middle: in the logarithms of red over green and green over blue, and in
that of the light, which shadows change more."""


@dataclass(frozen=True, slots=True)
class Disguises:
    """What happens to each face of a batch.

    Attributes:
        tone: [B] 0..1, from the darkest to the lightest that the setting and the face allow.
        shapes: of the features.
    """

    tone: Floats
    shapes: Shapes


def draw_disguises(settings: DisguiseConfig, seed: int, positions: range) -> Disguises:
    """Disguises of the samples at some positions of the stream: the same whoever asks."""
    draws = [np.random.default_rng([seed, _DISGUISE, p]).uniform(-1.0, 1.0, 37) for p in positions]
    unit = np.array(draws, np.float32).reshape(len(positions), 37)
    shapes = shapes_of(unit[:, 1:].reshape(-1, 4, 9), settings.shape, settings.tint)
    return Disguises((unit[:, 0] + 1.0) / 2.0, shapes)


def disguise(
    crops: Tensor, landmarks: Floats, disguises: Disguises, settings: DisguiseConfig, template: Template
) -> tuple[Tensor, Tensor]:
    """Crops with other skin and features, and the crops as they were, both aligned to the disguised faces.

    Args:
        crops: [B, 3, S, S] u8 RGB.
        landmarks: [B, 5, 2] in crop pixels.
        disguises: of the same faces.
        settings: what is asked for.
        template: alignment of the crops.

    Returns:
        Two of [B, 3, S, S] u8 RGB.
    """
    pixels = crops.float() / 255.0
    features = Features(landmarks, disguises.shapes)
    given = _recoloured(pixels, disguises, settings, template) if settings.tone else pixels
    if settings.tint:
        given = features.coloured(given)
    if settings.shape:
        side = crops.shape[-1]
        back = torch.from_numpy(invert(frame_to_crop(features.moved(), template, side)))
        still, coarse = (
            places @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]
            for places in (lattice(side, side), lattice(side))
        )
        moved = still + spread((features.origins(coarse) - coarse).transpose(1, 2), side).flatten(2).transpose(1, 2)
        given, pixels = _sampled(given, moved), _sampled(pixels, still)
    return _bytes(given), _bytes(pixels)


def _sampled(pixels: Tensor, places: Tensor) -> Tensor:
    """[B, 3, S, S] at [B, S * S, 2] (x, y) in pixels."""
    side = pixels.shape[-1]
    grid = ((2.0 * places + 1.0) / side - 1.0).view(-1, side, side, 2)
    return F.grid_sample(pixels, grid, "bicubic", "border", align_corners=False)


def _bytes(pixels: Tensor) -> Tensor:
    return (pixels * 255.0).round_().clamp_(0, 255).to(torch.uint8)


def _recoloured(pixels: Tensor, disguises: Disguises, settings: DisguiseConfig, template: Template) -> Tensor:
    skin = _skin(pixels, template)
    direction = torch.tensor(_TONE)
    colour = ((pixels * skin).sum(dim=(2, 3)) / skin.sum(dim=(2, 3))).clamp_min(1.0 / 255.0)  # [B, 3]
    lightest = ((math.log(_LIGHTEST) - colour.log()) / direction).amin(dim=1).clamp(0.0, settings.tone)
    darkest = ((math.log(_DARKEST) - colour.log()) / direction).amax(dim=1).clamp(-settings.tone, 0.0)
    tone = darkest + torch.from_numpy(disguises.tone) * (lightest - darkest)
    gain = (tone[:, None] * direction).exp()[:, :, None, None]
    return pixels * (1.0 + skin * (gain - 1.0))


def _skin(pixels: Tensor, template: Template) -> Tensor:
    """[B, 1, S, S] 1 where the face's skin is, ears and a bald head too, 0 where hair, clothes and background are.

    What is not skin must stay: darkened with it, the background around a face would tell how much to undo.
    """
    side = pixels.shape[-1]
    middle, around = _inside(side, template, 0.62, 0.05), _inside(side, template, 1.5, 0.06, up=0.16)
    log = F.avg_pool2d(F.pad(pixels, (1,) * 4, "replicate"), 3, 1).clamp_min(4.0 / 255.0).log()
    red, green, blue = log.unbind(dim=1)
    seen = torch.stack([red - green, green - blue, log.mean(dim=1)], dim=1)
    own = seen[:, :, middle > 0.5].median(dim=2).values[:, :, None, None]
    spread = torch.tensor([_SKIN_CHROMA, _SKIN_CHROMA, _SKIN_LIGHT]).view(1, 3, 1, 1)
    distance = ((seen - own) / spread).square().sum(dim=1, keepdim=True).sqrt()
    like = F.max_pool2d(torch.sigmoid(6.0 * (1.0 - distance)), 3, 1, 1)
    closed = -F.max_pool2d(-like, 3, 1, 1)
    return torch.maximum(middle, around * closed)


def _inside(side: int, template: Template, size: float = 1.0, softness: float = 0.068, up: float = 0.0) -> Tensor:
    """[S, S] 1 inside an oval about a face aligned to the template, 0 outside, with a soft edge.

    Args:
        side: S in pixels.
        template: alignment.
        size: in faces.
        softness: of the edge, in radii.
        up: how far it is moved towards the forehead, in distances from the eyes' middle to the mouth's.
    """
    points = torch.from_numpy(template_landmarks(template, side).mean(axis=0))
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    unit = (mouth - eyes).norm()
    x, y = ((eyes + mouth) / 2).tolist()
    across, down = (size * radius * unit for radius in _RADII)
    at = torch.arange(side, dtype=torch.float32)
    off = ((at[None, :] - x) / across).square() + ((at[:, None] - y + up * unit) / down).square()
    return torch.sigmoid((1.0 - off.sqrt()) / softness)
