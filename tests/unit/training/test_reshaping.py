from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.faces.alignment import template_landmarks
from pipeline.training.reshaping import Features, Shapes, lattice, shapes_of
from pipeline.types import Floats

SIDE = 96
EYES, BROWS, NOSE, MOUTH = range(4)
AHEAD = template_landmarks("arcface", SIDE)[2:3]


def changed(kind: int, **what: float) -> Shapes:
    """One face of which one kind of feature is changed."""
    order = ("out", "down", "wider", "taller", "slant")
    change, colour = np.zeros((1, 4, 5), np.float32), np.zeros((1, 4, 3), np.float32)
    change[0, kind] = [what.get(name, 0.0) for name in order]
    colour[0, kind] = what.get("colour", 0.0)
    return Shapes(change, colour)


def drawn(count: int) -> Shapes:
    draws = np.random.default_rng(3).uniform(-1, 1, (count, 4, 9)).astype(np.float32)
    return shapes_of(draws, 1.0, 0.7)


def origins_of(features: Features, points: Floats) -> Floats:
    """Where [B, K, 2] points of changed faces come from."""
    return features.origins(torch.from_numpy(points)).numpy()


def unit(landmarks: Floats) -> float:
    return float(np.linalg.norm(landmarks[0, 3:].mean(axis=0) - landmarks[0, :2].mean(axis=0)))


def test_no_change_leaves_every_pixel_where_it_was() -> None:
    features = Features(AHEAD, shapes_of(np.ones((1, 4, 9), np.float32), 0.0, 0.0))
    assert torch.allclose(features.origins(lattice(SIDE, SIDE)[None])[0], lattice(SIDE, SIDE), atol=1e-3)
    assert np.allclose(features.moved(), AHEAD, atol=1e-4)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    assert torch.allclose(features.coloured(pixels), pixels, atol=1e-6)


def test_the_moved_landmarks_are_where_the_old_ones_went() -> None:
    landmarks = np.repeat(template_landmarks("arcface", SIDE)[1:4], 8, axis=0)
    features = Features(landmarks, drawn(24))
    assert abs(features.moved() - landmarks).max() > 3.0
    off = np.linalg.norm(origins_of(features, features.moved()) - landmarks, axis=2)
    assert np.median(off) < 0.3
    assert off.max() < 3.0, "where features are near each other one yields to the other"


@pytest.mark.parametrize(
    ("kind", "what", "expected"),
    [
        (EYES, {"out": 0.1}, [(-0.1, 0), (0.1, 0), (0, 0), (0, 0), (0, 0)]),
        (NOSE, {"down": 0.08}, [(0, 0), (0, 0), (0, 0.08), (0, 0), (0, 0)]),
        (MOUTH, {"down": -0.06}, [(0, 0), (0, 0), (0, 0), (0, -0.06), (0, -0.06)]),
        (BROWS, {"down": 0.08, "slant": 0.2}, [(0, 0)] * 5),
    ],
)
def test_a_move_is_a_part_of_the_distance_from_eyes_to_mouth(
    kind: int, what: dict[str, float], expected: list[tuple[float, float]]
) -> None:
    moved = Features(AHEAD, changed(kind, **what)).moved() - AHEAD
    assert moved[0] / unit(AHEAD) == pytest.approx(np.array(expected), abs=1e-3)


def test_a_wider_mouth_has_its_corners_farther_apart_and_a_taller_one_does_not() -> None:
    apart = [
        np.ptp(Features(AHEAD, changed(MOUTH, **what)).moved()[0, 3:, 0])
        for what in ({}, {"wider": 0.3}, {"taller": 0.3})
    ]
    assert apart[1] / apart[0] == pytest.approx(np.exp(0.3), rel=1e-3)
    assert apart[2] == pytest.approx(apart[0], rel=1e-3)


def test_sizes_change_about_the_middle_of_a_feature() -> None:
    features = Features(AHEAD, changed(EYES, wider=0.2, taller=-0.4))
    eye = AHEAD[0, 1]
    around = torch.from_numpy(eye) + torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, right, below = features.origins(around[None])[0].numpy()
    assert origin == pytest.approx(eye, abs=1e-3)
    assert (right - origin)[0] == pytest.approx(np.exp(-0.2), rel=0.01)
    assert (below - origin)[1] == pytest.approx(np.exp(0.4), rel=0.01)


def test_both_sides_of_a_face_change_alike() -> None:
    one = drawn(1)
    features = Features(AHEAD.repeat(2, axis=0), Shapes(one.change.repeat(2, axis=0), one.colour.repeat(2, axis=0)))
    middle = float(AHEAD[0, :2, 0].mean())
    places = torch.from_numpy(np.random.default_rng(0).uniform(20, 76, (50, 2)).astype(np.float32))
    mirrored = places * torch.tensor([-1.0, 1.0]) + torch.tensor([2 * middle, 0.0])
    here, there = features.origins(torch.stack([places, mirrored]))
    assert torch.allclose(here[:, 1], there[:, 1], atol=0.05)
    assert torch.allclose(here[:, 0] - middle, middle - there[:, 0], atol=0.05)


def test_the_edge_of_a_crop_stays_and_nothing_is_folded() -> None:
    features = Features(np.repeat(AHEAD, 40, axis=0), drawn(40))
    grid = features.origins(lattice(SIDE, SIDE).expand(40, -1, 2)).view(40, SIDE, SIDE, 2)
    still = lattice(SIDE, SIDE).view(SIDE, SIDE, 2)
    for edge in (grid[:, :4] - still[:4], grid[:, -4:] - still[-4:], grid[:, :, :4] - still[:, :4]):
        assert edge.abs().max() < 0.05
    right, down = grid.diff(dim=2)[:, :-1], grid.diff(dim=1)[:, :, :-1]
    area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
    assert (area <= 0).float().mean() < 0.002


def test_lips_stand_out_more_or_less_and_plain_skin_stays() -> None:
    pixels = torch.full((1, 3, SIDE, SIDE), 0.6)
    mouth = AHEAD[0, 3:].mean(axis=0).round().astype(int)
    lips = (..., slice(mouth[1] - 1, mouth[1] + 2), slice(mouth[0] - 5, mouth[0] + 6))
    pixels[lips] = 0.4

    def contrast(seen: Tensor) -> float:
        return float(0.6 - seen[lips].mean())

    for log in (-0.7, 0.7):
        seen = Features(AHEAD, changed(MOUTH, colour=log)).coloured(pixels)
        assert np.sign(log) * (contrast(seen) / contrast(pixels) - 1.0) > 0.3
        assert torch.allclose(seen[..., :20], pixels[..., :20])
    nose = Features(AHEAD, changed(NOSE, colour=0.7)).coloured(pixels)
    assert torch.allclose(nose, pixels), "a nose has the colour of skin"
