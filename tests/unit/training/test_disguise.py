from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import DisguiseConfig
from pipeline.faces.alignment import apply, frame_to_crop, template_landmarks
from pipeline.training.disguise import Disguises, disguise, draw_disguises
from pipeline.types import Floats
from tests.factories import textured_frame

FACE = (slice(None), slice(None), slice(24, 44), slice(22, 42))


def crops(count: int = 6, side: int = 64) -> Tensor:
    return torch.stack([textured_frame(side, side, seed) for seed in range(count)]).contiguous()


WALL = torch.tensor([60, 120, 70], dtype=torch.uint8)


def before_a_wall(skin: Tensor, left: int, right: int) -> Tensor:
    """A face of one colour from column to column of two crops, and a green wall around it."""
    given = WALL[:, None, None].expand(2, 3, 64, 64).clone()
    given[:, :, 8:62, left:right] = skin[:, None, None]
    return given


def plain(value: int, count: int = 2, side: int = 64) -> Tensor:
    return torch.full((count, 3, side, side), value, dtype=torch.uint8)


def frontal(count: int, side: int = 64) -> Floats:
    """[count, 5, 2] landmarks of faces that look ahead."""
    return np.repeat(template_landmarks("arcface", side)[2:3], count, axis=0)


def toned(given: Tensor, settings: DisguiseConfig, tone: float) -> Tensor:
    """Faces of one tone, without other features."""
    drawn = draw_disguises(settings, 0, range(len(given)))
    chosen = Disguises(np.full(len(given), tone, np.float32), drawn.shapes)
    changed, target = disguise(given, frontal(len(given)), chosen, settings, "arcface")
    assert torch.equal(target, given)
    return changed


def test_disguises_depend_on_seed_and_position_alone_and_stay_within_their_limits() -> None:
    settings = DisguiseConfig(tone=1.0, tint=0.5, shape=0.5)
    whole, part = draw_disguises(settings, 3, range(200)), draw_disguises(settings, 3, range(50, 60))
    assert (whole.tone[50:60] == part.tone).all()
    assert (whole.shapes.change[50:60] == part.shapes.change).all()
    assert (whole.shapes.colour[50:60] == part.shapes.colour).all()
    assert (draw_disguises(settings, 4, range(200)).tone != whole.tone).any()
    assert 0.0 <= whole.tone.min() < 0.1 < 0.9 < whole.tone.max() <= 1.0
    assert 0.45 < abs(whole.shapes.colour).max() <= 0.5
    assert (abs(whole.shapes.change).max(axis=(0, 1)) < [0.061, 0.071, 0.201, 0.301, 0.151]).all()
    assert (abs(whole.shapes.change).max(axis=(0, 1)) > [0.055, 0.064, 0.18, 0.28, 0.14]).all()


def test_a_tone_darkens_or_lightens_the_face_and_leaves_the_wall() -> None:
    settings = DisguiseConfig(tone=0.5)
    given = before_a_wall(torch.tensor([80, 80, 80], dtype=torch.uint8), 10, 54)
    for tone, sign in ((0.0, -1), (1.0, 1)):
        changed = toned(given, settings, tone)
        assert (changed[:, :, :4] == given[:, :, :4]).all()
        expected = 80 * np.exp(sign * 0.5 * np.array([0.97, 1.28, 1.45]))
        assert changed[FACE].float().mean(dim=(0, 2, 3)).numpy() == pytest.approx(expected, abs=2)


def test_a_tone_changes_skin_wherever_it_is_and_nothing_beside_it() -> None:
    """A face turned to the left: its ear lies outside the oval of a face, some of the wall inside."""
    given = before_a_wall(torch.tensor([200, 150, 120], dtype=torch.uint8), 2, 44)
    factor = toned(given, DisguiseConfig(tone=1.0), 0.0).float() / given.float()
    assert (factor[:, :, 20:54, 12:40] < 0.5).all(), "the face"
    assert (factor[:, :, 30:40, 4:8] < 0.75).all(), "its ear"
    assert (factor[:, :, :, 52:] > 0.97).all(), "the wall beside it"


@pytest.mark.parametrize("value", [3, 20, 128, 240, 255])
def test_no_face_burns_out_or_drowns_that_was_not_so_already(value: int) -> None:
    for tone in (0.0, 1.0):
        changed = toned(plain(value), DisguiseConfig(tone=2.0), tone)[FACE].float().mean(dim=(0, 2, 3))
        assert changed.min() >= min(value, 0.05 * 255) - 1
        assert changed.max() <= max(value, 0.81 * 255) + 1


def dotted(landmarks: Floats, side: int) -> Tensor:
    """Grey crops with a light dot at each landmark."""
    at = np.arange(side, dtype=np.float32)
    off = np.square(at[:, None] - landmarks[..., 1, None, None]) + np.square(at - landmarks[..., 0, None, None])
    dots = 100.0 + 150.0 * np.exp(-off / 8.0).sum(axis=1)  # [B, S, S]
    return torch.from_numpy(np.repeat(dots[:, None], 3, axis=1).clip(0, 255).astype(np.uint8))


def found_dots(crops: Tensor) -> Floats:
    """[B, 5, 2] centres of the dots of each crop, from the left eye to the right corner of the mouth."""
    found = []
    for crop in crops.numpy():
        light = (crop[0] > 160).astype(np.uint8)
        count, labels = cv2.connectedComponents(light)
        assert count == 6
        centres = []
        for number in range(1, 6):
            rows, columns = np.nonzero(labels == number)
            weight = crop[0][rows, columns].astype(float) - 100.0
            centres.append((np.average(columns, weights=weight), np.average(rows, weights=weight)))
        by_row = sorted(centres, key=lambda p: p[1])
        found.append([*sorted(by_row[:2]), by_row[2], *sorted(by_row[3:])])
    return np.array(found, np.float32)


def test_both_crops_are_aligned_to_the_landmarks_of_the_disguised_face() -> None:
    side, settings = 128, DisguiseConfig(shape=1.0)
    landmarks = frontal(12, side)
    given, target = disguise(
        dotted(landmarks, side), landmarks, draw_disguises(settings, 1, range(12)), settings, "arcface"
    )
    seen, true = found_dots(given), found_dots(target)
    anew = apply(frame_to_crop(seen, "arcface", side), seen)
    assert np.median(abs(anew - seen)) < 0.2
    assert abs(anew - seen).max() < 1.5, "nothing about its alignment says that a face is disguised"
    assert abs(seen - landmarks).max() > 3.0, "features went elsewhere"
    moved = apply(frame_to_crop(true, "arcface", side), true)
    assert abs(moved - landmarks).max() < 1.0, "the face as it was, and all of it alike"
    assert abs(true - landmarks).max() > 2.0, "as true swaps are: not where alignment puts a face"


def test_nothing_asked_for_changes_nothing() -> None:
    settings = DisguiseConfig()
    given, target = disguise(crops(), frontal(6), draw_disguises(settings, 0, range(6)), settings, "arcface")
    assert torch.equal(given, crops())
    assert torch.equal(target, crops())
