"""Where a face's features are, differentiably: a pack's landmark network on aligned crops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import Template
from pipeline.errors import ModelPackError
from pipeline.faces.alignment import similarity, template_landmarks
from pipeline.faces.identity import ENCODER_SIDE
from pipeline.faces.network_input import part_of, resized, takes_raw_pixels
from pipeline.model.onnx_module import OnnxModule
from pipeline.types import Floats

LANDMARK_SIDE = 192
"""Side in pixels of the square that insightface's landmark networks take."""

_CENTRE, _BOX = (57.0, 61.0), 98.5
"""Middle and longer side of the box that a detector finds in ArcFace crops of 112 px: the mean of 40 photographs
(`buffalo_sc`: 57.3, 62.3, 99.2) and 60 procedural people (57.2, 59.2, 97.8)."""

ROOM = 1.5
"""Sides of the square over the longer side of the face's box, insightface's."""


class LandmarkNetwork(nn.Module):
    """A frozen landmark network behind one fixed, differentiable preprocessing; always in eval mode.

    Insightface shows it the face's box and half as much around. In an aligned crop that box is nearly always in one
    place, so no detector is needed.

    Args:
        path: ONNX file of one of insightface's 2D landmark networks.
        template: alignment of the crops it will be given.

    Raises:
        ModelPackError: not a landmark network that can be run here.
    """

    def __init__(self, path: str, template: Template) -> None:
        super().__init__()
        self.backbone = OnnxModule(path)
        self.template = template
        self._raw_pixels = takes_raw_pixels(path, "bn_data")
        self.requires_grad_(False).eval()
        probe = self.backbone.tried_on(path, 1, 3, LANDMARK_SIDE, LANDMARK_SIDE)
        if probe.ndim != 2 or probe.shape[1] % 2:
            problem = f"gives {list(probe.shape)}, not x and y of points"
            raise ModelPackError(path, problem, "Give a 2D landmark network")

    def train(self, mode: bool = True) -> LandmarkNetwork:
        """Always eval mode: the network is frozen."""
        super().train(False)
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """Find the landmarks.

        Args:
            crops: [B, 3, S, S] RGB 0..1.

        Returns:
            [B, K, 2] x, y from the middle of the square, in distances between a frontal face's eyes; float32 at least,
            whatever the autocast: eight bits are too few to say where something is.
        """
        with torch.autocast(crops.device.type, enabled=False):
            pixels = self._square(crops.to(torch.promote_types(crops.dtype, torch.float32))) * 255.0
            if not self._raw_pixels:
                pixels = (pixels - 127.5) / 128.0
            points: Tensor = self.backbone(pixels).unflatten(1, (-1, 2)) * (_BOX * ROOM / 2 / _EYES)
        return points

    def _square(self, crops: Tensor) -> Tensor:
        """[B, 3, 192, 192] black beyond the crops."""
        side = crops.shape[-1]
        coarseness = _from_square(self.template, side)[:2, 0]
        fitting = min(side, max(round(side / float(np.hypot(*coarseness))), 1))  # no finer than the square
        return part_of(resized(crops, fitting), _from_square(self.template, fitting), LANDMARK_SIDE, "zeros")


def _from_square(template: Template, side: int) -> Floats:
    """[2, 3] from pixels of the square to pixels of crops of this side."""
    to_crop = similarity(_FRONTAL, template_landmarks(template, side)[_frontal(template)])[0]
    size = _BOX * ROOM / LANDMARK_SIDE  # ArcFace pixels to one of the square's
    corner = to_crop[:, :2] @ (np.array(_CENTRE, np.float32) - size * LANDMARK_SIDE / 2) + to_crop[:, 2]
    return np.concatenate([to_crop[:, :2] * size, corner[:, None]], axis=1).astype(np.float32)


def _frontal(template: Template) -> slice:
    """Of a template's poses, the one that looks ahead."""
    return slice(2, 3) if template == "arcface" else slice(0, 1)


_FRONTAL = template_landmarks("arcface", ENCODER_SIDE)[_frontal("arcface")]
_EYES = float(np.linalg.norm(_FRONTAL[0, 1] - _FRONTAL[0, 0]))
