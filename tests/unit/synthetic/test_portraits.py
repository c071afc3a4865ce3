"""Laws of the procedural portraits: the ground truth is exact, a swap changes the inner face and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.synthetic.people import HAIR_STYLES, Appearance, Attributes, Placement, Scene
from pipeline.synthetic.portraits import embedding, render, swap

SIZE = 160
MIDDLE = Placement(80, 72, 110)


def _who(seed: int) -> Appearance:
    return Appearance.sample(np.random.default_rng(seed))


def _how(seed: int) -> Attributes:
    return Attributes.sample(np.random.default_rng(seed))


def _changed(one: Scene, other: Scene) -> NDArray[np.float64]:
    """[H, W] how much each pixel differs."""
    return np.asarray(np.abs(one.frame.astype(float) - other.frame).sum(2))


def _centroid(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    y, x = np.mgrid[0 : weights.shape[0], 0 : weights.shape[1]]
    return np.array([(x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()])


@pytest.mark.parametrize("seed", range(3))
def test_same_arguments_give_the_same_bytes(seed: int) -> None:
    faces = [(_who(seed), _how(seed), MIDDLE)]
    one, again = render(faces, SIZE, SIZE, seed), render(faces, SIZE, SIZE, seed)
    assert one.frame.tobytes() == again.frame.tobytes()
    assert one.landmarks.tobytes() == again.landmarks.tobytes()
    assert one.box.tobytes() == again.box.tobytes()


def test_another_background_seed_leaves_the_face_as_it_was() -> None:
    faces = [(_who(1), _how(1), MIDDLE)]
    one, other = render(faces, SIZE, SIZE, 1), render(faces, SIZE, SIZE, 2)
    changed = _changed(one, other)
    x, y = one.landmarks[0].round().astype(int).T
    assert (changed[y, x] == 0).all()
    assert changed[0].mean() > 0


def test_shapes_and_types_are_the_promised_ones() -> None:
    scene = render([(_who(n), _how(n), Placement(60 + 60 * n, 50, 60)) for n in range(3)], 240, 120, 0)
    assert [array.shape for array in (scene.frame, scene.landmarks, scene.box)] == [(120, 240, 3), (3, 5, 2), (3, 4)]
    assert [array.dtype.name for array in (scene.frame, scene.landmarks, scene.box)] == ["uint8", "float32", "float32"]


def test_a_scene_without_faces_is_its_background() -> None:
    scene = render([], 64, 48, 3)
    assert scene.frame.shape == (48, 64, 3)
    assert scene.landmarks.shape == (0, 5, 2)
    assert scene.box.shape == (0, 4)


@pytest.mark.parametrize(("x", "y"), [(-300, 40), (500, 40), (40, -300), (-10, 40), (170, 150)])
def test_a_face_may_reach_outside_the_frame(x: float, y: float) -> None:
    scene = render([(_who(2), _how(2), Placement(x, y, 100))], SIZE, SIZE, 0)
    assert np.isfinite(scene.landmarks).all()
    assert scene.frame.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("style", range(len(HAIR_STYLES)))
@pytest.mark.parametrize("extreme", [0, 1])
def test_every_hair_style_renders_at_the_ends_of_all_ranges(style: int, extreme: int) -> None:
    who = Appearance(**{f.name: float(f.metadata["span"][extreme]) for f in fields(Appearance)})
    how = Attributes(**{f.name: float(f.metadata["span"][extreme]) for f in fields(Attributes)})
    scene = render([(replace(who, hair_style=float(style)), how, MIDDLE)], SIZE, SIZE, 0)
    left, top, right, bottom = scene.box[0]
    assert (scene.landmarks[0] > (left, top)).all()
    assert (scene.landmarks[0] < (right, bottom)).all()


@pytest.mark.parametrize("seed", range(4))
def test_sampled_values_lie_within_their_spans(seed: int) -> None:
    for sample in (_who(seed), _how(seed)):
        for f in fields(sample):
            low, high = f.metadata["span"]
            assert low <= getattr(sample, f.name) <= high


@pytest.mark.parametrize("seed", range(4))
def test_embedding_has_length_one(seed: int) -> None:
    vector = embedding(_who(seed))
    assert vector.shape == (512,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_embedding_depends_on_identity_alone() -> None:
    who, other = _who(0), _who(1)
    assert np.array_equal(embedding(other.with_identity_of(who)), embedding(who))
    for f in fields(who):
        moved = embedding(replace(who, **{f.name: getattr(other, f.name)}))
        assert np.array_equal(moved, embedding(who)) != f.metadata["identity"], f.name


def test_embeddings_of_strangers_are_nearly_orthogonal() -> None:
    vectors = np.stack([embedding(_who(seed)) for seed in range(60)])
    cosines = (vectors @ vectors.T)[np.triu_indices(60, 1)]
    assert abs(cosines.mean()) < 0.05
    assert cosines.max() < 0.85


def test_a_swap_with_oneself_changes_nothing() -> None:
    who = _who(5)
    scene = render([(who, _how(5), MIDDLE)], SIZE, SIZE, 5)
    assert np.array_equal(swap(scene.spec, 0, who).frame, scene.frame)


@pytest.mark.parametrize("seed", range(8))
def test_true_swap_keeps_background_pixels(seed: int) -> None:
    scene = render([(_who(seed), _how(seed), MIDDLE)], SIZE, SIZE, seed)
    changed = _changed(scene, swap(scene.spec, 0, _who(seed + 50)))
    left, top, right, bottom = scene.box[0]
    ears, crown = 0.2 * (right - left), 0.4 * (bottom - top)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    head = (x > left - ears) & (x < right + ears) & (y > top - crown) & (y < bottom + 2)
    assert (changed[~head] == 0).all()
    assert changed[head].mean() > 5


def test_true_swap_keeps_hair_pixels() -> None:
    long = replace(_who(3), hair_style=2.0, hair_volume=0.2, hairline=-0.52)
    scene = render([(long, Attributes(), MIDDLE)], SIZE, SIZE, 0)
    changed = _changed(scene, swap(scene.spec, 0, _who(9)))
    assert (changed[: int(scene.box[0, 1]) - 2] == 0).all()


def test_true_swap_leaves_the_other_faces_alone() -> None:
    faces = [(_who(n), _how(n), Placement(70 + 150 * n, 60, 80)) for n in range(2)]
    scene = render(faces, 300, 140, 0)
    swapped = swap(scene.spec, 1, _who(20))
    assert np.array_equal(swapped.landmarks[0], scene.landmarks[0])
    assert not np.array_equal(swapped.landmarks[1], scene.landmarks[1])
    assert (_changed(scene, swapped)[:, :130] == 0).all()


def test_true_swap_takes_identity_and_keeps_the_rest() -> None:
    target, source = _who(0), _who(1)
    scene = render([(target, _how(0), MIDDLE)], SIZE, SIZE, 0)
    who, how, where = swap(scene.spec, 0, source).spec.faces[0]
    assert (how, where) == scene.spec.faces[0][1:]
    for f in fields(who):
        assert getattr(who, f.name) == getattr(source if f.metadata["identity"] else target, f.name)


@pytest.mark.parametrize("roll", [-30.0, 12.5, 90.0])
def test_landmarks_follow_roll_and_placement(roll: float) -> None:
    who, how = _who(4), replace(_how(4), roll=0.0)
    plain = render([(who, how, Placement(0, 0, 100))], 8, 8, 0).landmarks[0]
    moved = render([(who, replace(how, roll=roll), Placement(31.5, -7.25, 250))], 8, 8, 0).landmarks[0]
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    expected = 2.5 * plain @ np.array([[cos, sin], [-sin, cos]]) + (31.5, -7.25)
    np.testing.assert_allclose(moved, expected, atol=1e-3)


@pytest.mark.parametrize("roll", [0.0, 25.0])
@pytest.mark.parametrize("x", [80.0, 80.5])
def test_eye_landmarks_sit_where_eye_color_shows(roll: float, x: float) -> None:
    who = replace(_who(6), hair_style=0.0)
    how = Attributes(roll=roll, gaze_y=4 / 15, eye_open=1.1)  # this gaze puts the iris on the eye's centre
    brown, blue = (
        render([(replace(who, eye_color=color), how, Placement(x, 72, 130))], SIZE, SIZE, 0) for color in (0.0, 0.75)
    )
    changed = _changed(brown, blue)
    for eye in brown.landmarks[0, :2]:
        around = np.zeros_like(changed)
        cv2.circle(around, tuple(int(n) for n in eye.round()), 15, 1.0, -1)
        assert np.abs(_centroid(changed * around) - eye).max() < 1.0


@pytest.mark.parametrize("smile", [-0.5, 0.0, 0.9])
def test_mouth_landmarks_are_the_ends_of_the_lips(smile: float) -> None:
    who, how = replace(_who(6), beard=-1.0, upper_lip=0.08), Attributes(smile=smile)
    pale, red = (
        render([(replace(who, lip_color=color), how, Placement(200, 180, 300))], 400, 400, 0) for color in (0.0, 1.0)
    )
    lips = np.argwhere(_changed(pale, red) > 8)[:, ::-1]
    left, right = pale.landmarks[0, 3:]
    assert np.abs(lips[lips[:, 0].argmin()] - left).max() < 3
    assert np.abs(lips[lips[:, 0].argmax()] - right).max() < 3


def test_turning_to_the_right_moves_the_nose_to_the_right_of_the_eyes() -> None:
    who = _who(8)
    noses = []
    for yaw in (-30.0, 0.0, 30.0):
        points = render([(who, Attributes(yaw=yaw), MIDDLE)], 8, 8, 0).landmarks[0]
        noses.append(points[2, 0] - points[:2, 0].mean())
    assert noses[0] < -2
    assert noses[1] == pytest.approx(0, abs=1e-3)
    assert noses[2] > 2


def test_light_from_the_right_brightens_the_right_side() -> None:
    who = replace(_who(8), hair_style=0.0)
    left, right = (
        render([(who, Attributes(light_azimuth=azimuth), MIDDLE)], SIZE, SIZE, 0).frame.astype(float)
        for azimuth in (-60.0, 60.0)
    )
    difference = (right - left)[30:100, 40:120].mean((0, 2))
    assert difference[:30].mean() < -10
    assert difference[-30:].mean() > 10


def test_a_later_face_covers_an_earlier_one() -> None:
    near, far = (_who(1), Attributes(), MIDDLE), (_who(2), Attributes(), MIDDLE)
    both, alone = render([far, near], SIZE, SIZE, 0), render([near], SIZE, SIZE, 0)
    x, y = both.landmarks[1].round().astype(int).T
    assert np.array_equal(both.frame[y, x], alone.frame[y, x])
