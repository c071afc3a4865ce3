"""Views of scenes that a detector is trained on: whole, in part, or one aligned crop; worn, fitted, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.landmarks import set_in
from pipeline.faces.alignment import apply, cut_crops, invert
from pipeline.portrait_pack.album import AHEAD, MIRRORED, Wear, worn
from pipeline.portrait_pack.scenes import MOST_FACES, Scenes, Shot, open_scenes
from pipeline.types import Floats

FAR, PATCH = 640, 448
"""Pixels: the larger of the two squares that insightface fits a picture to, and what training takes of it."""

CLOSE = 128
"""Pixels: the smaller one. Whoever looks at crops shows them at this size."""

ASTRAY = 0.07
"""Of the distance between the eyes: how far landmarks are apart (standard deviation) by which a swapped face's crop was
aligned and those that it has now, which are another person's."""

SOFT_PX = 1.5
"""Of an aligned crop: the largest standard deviation of a blur. What a small generator draws is as soft as a face of
half the size, and whoever judges it must see where its mouth is all the same."""

Made = TypeVar("Made")

WEAR = Wear(blur_px=0.8, noise=0.03, brightness=0.25)


@dataclass(frozen=True, slots=True)
class Views:
    """A batch of network inputs and the faces in each, in its pixels; boxes of zeros where there are fewer than F.

    Attributes:
        pixels: [B, 3, H, W] u8 RGB.
        boxes: [B, F, 4].
        landmarks: [B, F, 5, 2].
        whole: [B, F] whether all five landmarks are in the picture.
    """

    pixels: Tensor
    boxes: Tensor
    landmarks: Tensor
    whole: Tensor


def fitted(shot: Shot, side: int) -> Shot:
    """The picture in the top left corner of a black square, as insightface fits it.

    Points are only scaled, though resizing moves pixel centres too: insightface only divides by the scale.
    """
    height, width = shot.frame.shape[:2]
    scale = side / max(height, width)
    new_height, new_width = (side, int(width * scale)) if height > width else (int(height * scale), side)
    square = np.zeros((side, side, 3), np.uint8)
    square[:new_height, :new_width] = cv2.resize(shot.frame, (new_width, new_height))
    ratio = np.array([new_width / width, new_height / height], np.float32)
    return Shot(square, shot.boxes * np.tile(ratio, 2), shot.landmarks * ratio)


def cut(shot: Shot, left: int, top: int, width: int, height: int) -> Shot:
    """A part of a picture."""
    frame = shot.frame[top : top + height, left : left + width]
    return Shot(
        frame, shot.boxes - np.array([left, top] * 2, np.float32), shot.landmarks - np.array([left, top], np.float32)
    )


def close_up(shot: Shot, index: int, side: int, off: Floats | float = 0.0) -> Shot:
    """The aligned crop of one face as a picture of its own, with that face alone in its list.

    Args:
        shot: the picture.
        index: of the face.
        side: of the crop in pixels.
        off: [5, 2] how far from the face's own landmarks the crop is aligned, in distances of its eyes: a swapped face
            stands where another one's landmarks were.
    """
    pixels = torch.from_numpy(shot.frame).permute(2, 0, 1)
    points = shot.landmarks[index]
    aligned = points + off * np.linalg.norm(points[1] - points[0])
    crops = cut_crops(pixels, aligned[None].astype(np.float32), "arcface", side)
    to_crop = invert(crops.to_frame)
    left, top, right, bottom = shot.boxes[index]
    middle, half = np.array([(left + right) / 2, (top + bottom) / 2]), np.array([right - left, bottom - top]) / 2
    centre = apply(to_crop, middle[None, None].astype(np.float32))[0, 0]
    half = half * np.hypot(to_crop[0, 0, 0], to_crop[0, 1, 0])
    box = np.concatenate([centre - half, centre + half]).astype(np.float32)
    frame = (crops.pixels[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    return Shot(frame, box[None], apply(to_crop, shot.landmarks[index : index + 1]))


def framed(shot: Shot, side: int, part: float) -> Shot:
    """A square crop as whoever judges crops looks at it: in a picture of `side` pixels, of which it takes `part`.

    Unlike in `fitted`, points keep to the pixels' centres.
    """
    frame, scale, before, _ = set_in(shot.frame, side, side, part)
    shift = np.float32(before + 0.5 * scale - 0.5)
    return Shot(frame, shot.boxes * np.float32(scale) + shift, shot.landmarks * np.float32(scale) + shift)


def softened(shot: Shot, blur_px: float) -> Shot:
    """The same picture blurred by so much; below a twentieth of a pixel as it is."""
    if blur_px < 0.05:
        return shot
    return Shot(np.asarray(cv2.GaussianBlur(shot.frame, (0, 0), blur_px), np.uint8), shot.boxes, shot.landmarks)


def view(scenes: Scenes, side: int, random: np.random.Generator) -> Shot:
    """A random picture as the detector gets it: a scene, a part of it or an aligned crop; mirrored, fitted, worn.

    Half of the crops are soft. Mirrored before it is fitted: `fitted` is not the same from both sides.
    """
    shot, kind = scenes[int(random.integers(len(scenes)))], random.random()
    if random.random() < 0.5:
        shot = mirrored(shot)
    crops, parts = (0.6, 0.8) if side == CLOSE else (0.25, 0.5)
    if len(shot.boxes) and kind < crops:
        off = np.asarray(ASTRAY * random.standard_normal((5, 2)) * (random.random() < 0.5), np.float32)
        shot = close_up(shot, int(random.integers(len(shot.boxes))), int(random.integers(64, 113)), off)
        shot = softened(shot, SOFT_PX * max(2.0 * random.random() - 1.0, 0.0))
        shot = framed(shot, side, random.uniform(0.75, 1.0))
    elif len(shot.boxes) and kind < parts:
        shot = _part(shot, 3.5 if side in (CLOSE, FAR) else 2.0, random)
    if side == FAR:
        shot = _patch(fitted(shot, int(FAR * random.choice((1.0, 1.0, random.uniform(0.5, 1.0))))), random)
    else:
        shot = fitted(shot, side)
    pixels = np.asarray(worn(np.asarray(shot.frame, np.float32) / np.float32(255), WEAR, random) * 255 + 0.5, np.uint8)
    return Shot(pixels, shot.boxes, shot.landmarks)


def mirrored(shot: Shot) -> Shot:
    """Left and right exchanged."""
    last = shot.frame.shape[1] - 1
    boxes = np.stack([last - shot.boxes[:, 2], shot.boxes[:, 1], last - shot.boxes[:, 0], shot.boxes[:, 3]], 1)
    landmarks = shot.landmarks[:, MIRRORED] * np.array([-1, 1], np.float32) + np.array([last, 0], np.float32)
    return Shot(np.ascontiguousarray(shot.frame[:, ::-1]), boxes, landmarks)


def _part(shot: Shot, widest: float, random: np.random.Generator) -> Shot:
    """A window round one face, up to `widest` times its height: now it fills the picture."""
    left, top, right, bottom = shot.boxes[int(random.integers(len(shot.boxes)))]
    side = (bottom - top) * random.uniform(1.2, widest)
    x, y = (left + right) / 2 + random.uniform(-0.2, 0.2) * side, (top + bottom) / 2 + random.uniform(-0.2, 0.2) * side
    height, width = shot.frame.shape[:2]
    from_x, from_y = int(max(x - side / 2, 0)), int(max(y - side / 2, 0))
    to_x, to_y = int(min(x + side / 2, width)), int(min(y + side / 2, height))
    return cut(shot, from_x, from_y, max(to_x - from_x, 16), max(to_y - from_y, 16))


def _patch(shot: Shot, random: np.random.Generator) -> Shot:
    """[448, 448] of a fitted picture, mostly where a face is; black beyond its edge."""
    side = len(shot.frame)
    frame = np.zeros((max(side, PATCH), max(side, PATCH), 3), np.uint8)
    frame[:side, :side] = shot.frame
    room = len(frame) - PATCH
    left, top = random.integers(0, room + 1, 2)
    if len(shot.boxes) and random.random() < 0.8:
        box = shot.boxes[int(random.integers(len(shot.boxes)))]
        wanted = (box[:2] + box[2:]) / 2 - PATCH / 2 + random.uniform(-80, 80, 2)
        left, top = np.clip(wanted, 0, room).astype(int)
    return cut(Shot(frame, shot.boxes, shot.landmarks), int(left), int(top), PATCH, PATCH)


def make_views(scenes: Scenes, number: int, sides: Sequence[tuple[int, int]], seed: int) -> list[Views]:
    """The views of step `number`, so many of each side; the same arguments give the same views."""
    batches = []
    for side, count in sides:
        random = np.random.default_rng([seed, number, side])
        batches.append(stacked([view(scenes, side, random) for _ in range(count)]))
    return batches


def stacked(shots: Sequence[Shot]) -> Views:
    """Pictures of one size as a batch."""
    count = len(shots)
    boxes, landmarks = np.zeros((count, MOST_FACES, 4), np.float32), np.zeros((count, MOST_FACES, 5, 2), np.float32)
    for n, shot in enumerate(shots):
        boxes[n, : len(shot.boxes)], landmarks[n, : len(shot.boxes)] = shot.boxes, shot.landmarks
    pixels = np.ascontiguousarray(np.stack([shot.frame for shot in shots]).transpose(0, 3, 1, 2))
    inside = ((landmarks > 0) & (landmarks < pixels.shape[2] - 1)).all((2, 3))
    return Views(torch.from_numpy(pixels), *map(torch.from_numpy, (boxes, landmarks, inside)))


def stream(scenes: Scenes, count: int, make: Callable[[Scenes, int], Made]) -> Iterator[Made]:
    """The batches of a training's steps, made by a process that stays a few ahead.

    Args:
        scenes: what is shown.
        count: of batches.
        make: the batch of a step's number; it can be pickled.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _keep, (scenes.folder,)) as pool:
        ahead: deque[Future[Made]] = deque()
        for number in range(count + AHEAD):
            if number < count:
                ahead.append(pool.submit(_of_kept, number, make))
            if number >= AHEAD and ahead:
                yield ahead.popleft().result()


_KEPT: list[Scenes] = []  # of the process that makes views


def _keep(folder: Path) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _KEPT.append(open_scenes(folder))


def _of_kept(number: int, make: Callable[[Scenes, int], Made]) -> Made:
    return make(_KEPT[0], number)
