from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Template
from pipeline.faces.alignment import apply, cut_crops, frame_to_crop, invert, similarity, template_landmarks
from pipeline.types import Floats
from tests.factories import landmarks_at, textured_frame

TEMPLATES: list[tuple[Template, int]] = [("arcface", 64), ("arcface", 224), ("ffhq", 512), ("ffhq", 1024)]

placements = st.tuples(st.floats(0.2, 5.0), st.floats(-180, 180), st.floats(-500, 500), st.floats(-500, 500))


def placed(points: Floats, placement: tuple[float, float, float, float]) -> Floats:
    scale, degrees, x, y = placement
    turn = np.deg2rad(degrees)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points @ rotation.T + (x, y)).astype(np.float32)


@pytest.mark.parametrize(("template", "size"), TEMPLATES)
@given(placement=placements, pose=st.integers(0, 4))
@settings(max_examples=40)
def test_any_placement_of_the_template_comes_back_to_it(
    template: Template, size: int, placement: tuple[float, float, float, float], pose: int
) -> None:
    poses = template_landmarks(template, size)
    wanted = poses[pose % len(poses)]
    landmarks = placed(wanted, placement)[None]
    back = apply(frame_to_crop(landmarks, template, size), landmarks)[0]
    assert np.abs(back - wanted).max() < 2e-3 * size


@given(placement=placements)
@settings(max_examples=60)
def test_a_similarity_and_its_inverse_cancel(placement: tuple[float, float, float, float]) -> None:
    points = landmarks_at(100, 120, 40)[None]
    forward = similarity(points, placed(points[0], placement)[None])
    assert np.abs(apply(invert(forward), apply(forward, points)) - points).max() < 0.05


def test_a_similarity_is_the_least_squares_one() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(1, 5, 2)).astype(np.float32) for _ in range(2))
    best = similarity(a, b)
    error = np.square(apply(best, a) - b).sum()
    for _ in range(200):
        c, s, x, y = (float(v) for v in random.normal(size=4) * 0.1)
        other = best + np.array([[[c, -s, x], [s, c, y]]], np.float32)
        assert np.square(apply(other, a) - b).sum() >= error


def test_a_mirrored_face_is_turned_not_mirrored() -> None:
    points = landmarks_at(100, 100, 40)[None]
    mirrored = points * np.array([-1, 1], np.float32)
    assert np.linalg.det(similarity(mirrored, points)[0, :, :2]) > 0


def test_golden_transform() -> None:
    """Against scikit-image's SimilarityTransform, computed once."""
    matrix = frame_to_crop(landmarks_at(100, 100, 60, 10)[None], "arcface", 224)[0]
    golden = np.array([[1.067801, 0.188282, -13.108284], [-0.188282, 1.067801, 14.942961]])
    assert np.abs(matrix - golden).max() < 1e-4


@pytest.mark.parametrize(("template", "size"), TEMPLATES)
def test_the_middle_of_a_crop_shows_the_middle_of_the_face(template: Template, size: int) -> None:
    frame = torch.zeros(3, 600, 600, dtype=torch.uint8)
    landmarks = landmarks_at(300, 280, 60, 20)
    nose = np.rint(landmarks[2]).astype(int)
    frame[:, nose[1] - 3 : nose[1] + 4, nose[0] - 3 : nose[0] + 4] = 255
    crops = cut_crops(frame.permute(1, 2, 0).contiguous().permute(2, 0, 1), landmarks[None], template, size)
    assert crops.pixels.shape == (1, 3, size, size)
    bright = np.argwhere(crops.pixels[0, 0].numpy() > 0.5).mean(axis=0)[::-1]
    expected = apply(invert(crops.to_frame), landmarks[None])[0, 2]
    assert np.abs(bright - expected).max() < 0.02 * size


def test_a_face_cut_at_another_scale_gives_the_same_crop() -> None:
    frame = textured_frame(300, 300)
    double = torch.nn.functional.interpolate(frame[None].float(), scale_factor=4, mode="bicubic", align_corners=False)
    large = double[0].clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    points = landmarks_at(150, 140, 40)
    small_crop = cut_crops(frame, points[None], "arcface", 64).pixels
    large_crop = cut_crops(large, (points[None] + 0.5) * 4 - 0.5, "arcface", 64).pixels
    assert (small_crop - large_crop).abs().mean() < 0.01


def test_no_face_gives_no_crop() -> None:
    crops = cut_crops(textured_frame(), np.zeros((0, 5, 2), np.float32), "arcface", 64)
    assert crops.pixels.shape == (0, 3, 64, 64)
    assert crops.to_frame.shape == (0, 2, 3)


def test_a_face_beyond_the_frame_repeats_the_edge() -> None:
    frame = torch.full((3, 50, 50), 77, dtype=torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for x, y in ((0, 0), (49, 49), (-30, 20), (200, 200)):
        crops = cut_crops(frame, landmarks_at(x, y, 30)[None], "arcface", 64)
        assert torch.allclose(crops.pixels, torch.tensor(77 / 255.0))
