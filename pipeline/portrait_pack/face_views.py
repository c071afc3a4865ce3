"""Views of single faces that a landmark network is trained on: as insightface cuts them, features moved about."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.faces.landmarks import LANDMARK_SIDE, ROOM
from pipeline.portrait_pack.album import worn
from pipeline.portrait_pack.scenes import Scenes, Shot
from pipeline.portrait_pack.views import ASTRAY, SOFT_PX, WEAR, close_up, mirrored, softened
from pipeline.types import Floats

MOVED = 0.06
"""Of the distance between the eyes: how far single features are moved (standard deviation). Without it a network learns
where features usually are in a face, and sees a wrong one where it ought to be."""

REACH = 0.25  # of that distance: how far round a landmark the picture moves along
BOX_NOISE = 0.04


@dataclass(frozen=True, slots=True)
class FaceViews:
    """A batch of network inputs.

    Attributes:
        pixels: [B, 3, 192, 192] u8 RGB.
        landmarks: [B, 5, 2] in its pixels.
    """

    pixels: Tensor
    landmarks: Tensor


def face_view(scenes: Scenes, random: np.random.Generator) -> Shot:
    """One face of a scene: its aligned crop, mirrored, soft, its features moved, worn, all by chance; then cut."""
    peopled = np.flatnonzero(scenes.crowd)
    shot = scenes[int(random.choice(peopled))]
    if random.random() < 0.5:
        shot = mirrored(shot)
    off = np.asarray(ASTRAY * random.standard_normal((5, 2)) * (random.random() < 0.5), np.float32)
    shot = close_up(shot, int(random.integers(len(shot.boxes))), int(random.integers(64, 113)), off)
    shot = softened(shot, SOFT_PX * max(2.0 * random.random() - 1.0, 0.0))
    shot = stirred(shot, np.asarray(MOVED * random.standard_normal((5, 2)), np.float32))
    pixels = np.asarray(worn(np.asarray(shot.frame, np.float32) / np.float32(255), WEAR, random) * 255 + 0.5, np.uint8)
    corners = shot.boxes[0].reshape(2, 2)
    noise = BOX_NOISE * random.standard_normal((2, 2)) * (corners[1] - corners[0])
    return cut_face(Shot(pixels, (corners + noise).reshape(1, 4).astype(np.float32), shot.landmarks))


def stirred(shot: Shot, by: Floats) -> Shot:
    """A picture of one face with its features moved, what is round them along with them.

    Args:
        shot: one face.
        by: [5, 2] how far, in distances of its eyes. Where features are near to each other both move by a mixture.

    Returns:
        The picture, and the landmarks where they are now.
    """
    points = shot.landmarks[0]
    eyes = float(np.linalg.norm(points[1] - points[0]))
    moves, reach = by * eyes, REACH * eyes

    def move(at: Floats) -> Floats:
        """[..., 2] of the new picture: how far its content has come."""
        distance = np.linalg.norm(at[..., None, :] - (points + moves), axis=-1)
        return np.asarray(np.exp(-((distance / reach) ** 2) / 2) @ moves, np.float32)

    height, width = shot.frame.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    origin = grid - move(grid)
    frame = cv2.remap(shot.frame, origin[..., 0], origin[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    landed = points
    for _ in range(30):  # where is p' with p' - move(p') = p?
        landed = points + move(landed)
    return Shot(np.asarray(frame, np.uint8), shot.boxes, landed[None])


def cut_face(shot: Shot) -> Shot:
    """The first face as insightface cuts it for its landmark networks: its box and half as much, black beyond."""
    left, top, right, bottom = (float(n) for n in shot.boxes[0])
    scale = LANDMARK_SIDE / (max(right - left, bottom - top) * ROOM)
    shift = LANDMARK_SIDE / 2 - scale * np.array([(left + right) / 2, (top + bottom) / 2], np.float32)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    frame = cv2.warpAffine(shot.frame, matrix, (LANDMARK_SIDE, LANDMARK_SIDE))
    return Shot(
        np.asarray(frame, np.uint8),
        np.asarray(shot.boxes * scale + np.tile(shift, 2), np.float32),
        np.asarray(shot.landmarks * scale + shift, np.float32),
    )


def make_face_views(scenes: Scenes, number: int, count: int, seed: int) -> FaceViews:
    """Batch `number`; the same arguments give the same batch."""
    random = np.random.default_rng([seed, number])
    shots = [face_view(scenes, random) for _ in range(count)]
    pixels = np.ascontiguousarray(np.stack([shot.frame for shot in shots]).transpose(0, 3, 1, 2))
    return FaceViews(torch.from_numpy(pixels), torch.from_numpy(np.concatenate([shot.landmarks for shot in shots])))
