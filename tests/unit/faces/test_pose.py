from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.pose import MEAN_FACE, pose
from pipeline.synthetic.canvas import Head
from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.types import Floats


def turned(yaw: float, pitch: float, roll: float, scale: float = 30.0) -> Floats:
    """[1, 5, 2] the mean face turned and seen from far away."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    seen = MEAN_FACE @ (about_z @ about_x @ about_y).T
    return np.asarray(seen[None, :, :2] * scale + (200, 100), np.float32)


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 10, -40), (-60, 0, 10), (20, -30, 170), (80, 5, 0)])
def test_the_mean_face_comes_back_to_its_angles_at_any_place_and_size(angles: tuple[float, float, float]) -> None:
    assert pose(turned(*angles)) == pytest.approx(np.array([angles]), abs=0.01)
    assert pose(turned(*angles, scale=3.0)) == pytest.approx(np.array([angles]), abs=0.01)


def test_procedural_people_are_sorted_by_their_exact_angles() -> None:
    random = np.random.default_rng(0)
    how = [Attributes.sample(random) for _ in range(400)]
    heads = [Head(Appearance.sample(random), attributes, Placement(100, 90, 120)) for attributes in how]
    found = pose(np.array([head.landmarks() for head in heads], np.float32))
    exact = np.array([[a.yaw, a.pitch, a.roll] for a in how])
    yaw, pitch, roll = (np.corrcoef(found[:, i], exact[:, i])[0, 1] for i in range(3))
    assert (yaw > 0.99, pitch > 0.8, roll > 0.99) == (True, True, True)
    error = np.abs(found - exact).mean(axis=0)
    # Procedural noses are long and flat beside those of people, so these faces seem to look down by 7 degrees.
    assert error[0] < 4
    assert error[1] < 10
    assert error[2] < 1.5
    assert np.abs(found[:, 1] - exact[:, 1] - (found - exact)[:, 1].mean()).mean() < 6


def test_a_mirrored_face_has_the_opposite_yaw_and_roll() -> None:
    landmarks = turned(25, 8, -15) + np.random.default_rng(1).normal(0, 1, (1, 5, 2)).astype(np.float32)
    mirrored = (landmarks * (-1, 1))[:, [1, 0, 2, 4, 3]].astype(np.float32)
    assert pose(mirrored) == pytest.approx(pose(landmarks) * (-1, 1, -1), abs=0.01)


def test_no_faces_and_faces_without_size_have_an_answer() -> None:
    assert pose(np.zeros((0, 5, 2), np.float32)).shape == (0, 3)
    assert np.isfinite(pose(np.full((2, 5, 2), 7, np.float32))).all()
