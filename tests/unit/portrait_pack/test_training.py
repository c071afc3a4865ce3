"""How the packs come about: albums, views, targets, a few steps of each training, export."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from insightface.app.common import Face
from insightface.model_zoo import get_model
from insightface.utils import face_align
from torch import nn

from pipeline.faces.alignment import frame_to_crop
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.landmarks import LANDMARK_SIDE
from pipeline.portrait_pack.album import MIRRORED, NO_WEAR, Album, Wear, batch, identity_of, person_of, shot_album
from pipeline.portrait_pack.detector import RANGES, STRIDES, Detector, assign, train_detector
from pipeline.portrait_pack.export import export_detector, export_landmarker, export_recogniser
from pipeline.portrait_pack.face_views import FaceViews, cut_face, make_face_views, stirred
from pipeline.portrait_pack.landmarker import Landmarker, LandmarkerRecipe, train_landmarker
from pipeline.portrait_pack.recogniser import (
    JUDGE,
    PORTRAITS,
    Recipe,
    residual_network,
    separable_network,
    train_recogniser,
)
from pipeline.portrait_pack.scenes import Shot, load_scenes, make_scene
from pipeline.portrait_pack.views import Views, close_up, fitted, framed, mirrored, softened, stacked


@pytest.fixture(scope="module")
def album() -> Album:
    return shot_album(seed=5, people=4, photos=4)


@pytest.fixture(scope="module")
def shot() -> Shot:
    made = next(s for s in (make_scene(6, n) for n in range(99)) if len(s.box) == 2)
    return Shot(made.frame, made.box, made.landmarks)


def with_lived_in_norms(network: nn.Module) -> None:
    """Batch norms as after a training, so that folding them can go wrong."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, std=0.1)  # type: ignore[arg-type]
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
    network.eval()


def test_a_persons_photographs_share_the_identity_and_nothing_else(album: Album) -> None:
    assert np.array_equal(album.person, np.repeat(np.arange(4), 4))
    assert np.array_equal(album.identity[4], identity_of(person_of(5, 1)))
    assert np.abs(album.identity).max() <= 1
    assert len({frame.tobytes() for frame in album.frames}) == 16


def test_a_batch_can_be_made_again_and_an_epoch_shows_each_photograph_once(album: Album) -> None:
    seen = [batch(album, number, 4, Wear(), seed=1) for number in range(4)]
    again = batch(album, 2, 4, Wear(), seed=1)
    assert np.array_equal(seen[2][0], again[0])
    assert np.array_equal(seen[2][1], again[1])
    assert np.array_equal(np.bincount(np.concatenate([who for _, who, _ in seen])), [4, 4, 4, 4])
    assert seen[0][0].shape == (4, 3, 112, 112)


def test_a_picture_is_fitted_as_insightface_reads_it_back(shot: Shot) -> None:
    small = fitted(shot, 128)
    scale = 128 / max(shot.frame.shape)
    assert small.frame.shape == (128, 128, 3)
    assert np.allclose(small.landmarks / scale, shot.landmarks, atol=1.5 / scale)
    assert (small.frame[int(shot.frame.shape[0] * scale) + 1 :] == 0).all()


def test_mirroring_twice_changes_nothing_and_once_keeps_the_eyes_apart(shot: Shot) -> None:
    once, twice = mirrored(shot), mirrored(mirrored(shot))
    assert np.array_equal(twice.frame, shot.frame)
    assert np.allclose(twice.landmarks, shot.landmarks, atol=1e-3)
    assert (once.landmarks[:, 1, 0] > once.landmarks[:, 0, 0]).all()
    assert np.allclose(once.landmarks[:, MIRRORED, 1], shot.landmarks[..., 1])


def test_a_close_up_is_the_aligned_crop(shot: Shot) -> None:
    alone = close_up(shot, 1, 80)
    assert alone.frame.shape == (80, 80, 3)
    already = frame_to_crop(alone.landmarks, "arcface", 80)[0]
    assert np.allclose(already, [[1, 0, 0], [0, 1, 0]], atol=1e-2)


def test_a_close_up_aligned_by_landmarks_to_one_side_shows_the_face_on_the_other(shot: Shot) -> None:
    straight, astray = close_up(shot, 0, 80), close_up(shot, 0, 80, np.array([0.25, 0.0]))
    eyes = np.linalg.norm(straight.landmarks[0, 1] - straight.landmarks[0, 0])
    moved = (astray.landmarks - straight.landmarks)[0] / eyes
    along = shot.landmarks[0, 1] - shot.landmarks[0, 0]
    tilt = np.arctan2(along[1], along[0]) - np.arctan2(*(straight.landmarks[0, 1] - straight.landmarks[0, 0])[::-1])
    assert np.allclose(moved, [-0.25 * np.cos(tilt), 0.25 * np.sin(tilt)], atol=1e-3)


def test_a_soft_crop_is_the_same_one_without_its_finest_lines(shot: Shot) -> None:
    sharp = close_up(shot, 0, 80)
    soft = softened(sharp, 1.5)
    assert softened(sharp, 0.0) is sharp
    assert np.array_equal(soft.landmarks, sharp.landmarks)
    assert abs(soft.frame.mean() - sharp.frame.mean()) < 1.0
    fine, rough = (np.abs(np.diff(s.frame.astype(float), axis=1)).mean() for s in (sharp, soft))
    assert rough < 0.7 * fine


def test_what_is_stirred_moves_with_its_landmark_and_the_rest_stays() -> None:
    places = np.array([[20, 20], [44, 20], [32, 34], [24, 46], [40, 46]], np.float32)
    image = np.zeros((64, 64, 3), np.uint8)
    for x, y in places.astype(int):
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
    shot = Shot(image, np.zeros((1, 4), np.float32), places[None])
    assert np.array_equal(stirred(shot, np.zeros((5, 2), np.float32)).frame, image)
    by = np.zeros((5, 2), np.float32)
    by[0], by[3] = (0.1, -0.05), (-0.08, 0.08)
    moved = stirred(shot, by)
    for true, landed in zip(places, moved.landmarks[0], strict=True):
        weight = moved.frame[..., 0].astype(float)
        weight[np.hypot(*(np.mgrid[:64, :64] - landed[::-1, None, None])) > 5] = 0
        y, x = (float((at * weight).sum() / weight.sum()) for at in np.mgrid[:64, :64])
        assert np.allclose(landed, (x, y), atol=0.2)  # of up to 2.7; a mark is stretched a little too
        assert np.linalg.norm(landed - true) < 0.13 * 24
    assert np.allclose(moved.landmarks[0, 0] - places[0], by[0] * 24, atol=0.1)
    assert np.allclose(moved.landmarks[0, 1], places[1], atol=0.05)


def test_a_face_is_cut_as_insightface_cuts_it(shot: Shot) -> None:
    cut = cut_face(shot)
    left, top, right, bottom = shot.boxes[0]
    scale = LANDMARK_SIDE / (max(right - left, bottom - top) * 1.5)
    theirs, matrix = face_align.transform(shot.frame, ((left + right) / 2, (top + bottom) / 2), LANDMARK_SIDE, scale, 0)
    assert np.abs(cut.frame.astype(int) - theirs).max() <= 1
    assert np.allclose(cut.landmarks[0], face_align.trans_points(shot.landmarks[0], matrix), atol=1e-3)


def test_views_of_faces_can_be_made_again(tmp_path: Path) -> None:
    scenes = load_scenes(tmp_path, seed=6, count=3)
    one, again, other = (make_face_views(scenes, number, 4, seed=1) for number in (0, 0, 1))
    assert one.pixels.shape == (4, 3, LANDMARK_SIDE, LANDMARK_SIDE)
    assert torch.equal(one.pixels, again.pixels)
    assert torch.equal(one.landmarks, again.landmarks)
    assert not torch.equal(one.landmarks, other.landmarks)


def test_points_of_a_framed_crop_stay_on_what_they_mark(shot: Shot) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[20, 40] = 255
    for part in (0.75, 0.875, 1.0):
        seen = framed(
            Shot(image, np.zeros((1, 4), np.float32), np.full((1, 5, 2), (40.0, 20.0), np.float32)), 128, part
        )
        weight = seen.frame[..., 0].astype(float)
        y, x = (float((at * weight).sum() / weight.sum()) for at in np.mgrid[:128, :128])
        assert np.allclose(seen.landmarks[0], (x, y), atol=0.1)


def test_the_cells_that_answer_for_a_face_are_asked_for_that_face(shot: Shot) -> None:
    views = [stacked([fitted(shot, 640)]), stacked([fitted(shot, 128)])]
    for view, level in itertools.product(views, range(len(STRIDES))):
        targets, stride = assign(view, level), STRIDES[level]
        columns = view.pixels.shape[3] // stride
        for cell in targets.positive[0].nonzero()[:, 0].tolist():
            at = torch.tensor([cell // 2 % columns, cell // 2 // columns])
            points = (targets.landmarks[0, cell].reshape(5, 2) + at) * stride
            assert min(float((points - true).abs().max()) for true in view.landmarks[0]) < 1e-2
            low, high = RANGES[level][cell % 2]
            assert low / 1.2 < float(targets.height[0, cell]) * stride < high * 1.2
    answered = [sum(int(assign(view, level).positive.sum()) for level in range(3)) for view in views]
    assert min(answered) > 0


@pytest.mark.parametrize("recipe", [PORTRAITS, JUDGE])
def test_a_few_steps_teach_a_recogniser_its_batch(recipe: Recipe, album: Album) -> None:
    brief = replace(recipe, steps=12, batch_size=8, margin=0.0)
    one, losses = batch(album, 0, 8, NO_WEAR, seed=0), list[float]()
    train_recogniser(brief, itertools.repeat(one, 12), 4, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_a_few_steps_teach_the_detector_its_views(shot: Shot) -> None:
    losses: list[float] = []
    views: list[Views] = [stacked([fitted(shot, 128)])]
    train_detector(32, itertools.repeat(views, 32), 0, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_a_few_steps_teach_the_landmark_network_its_views(shot: Shot) -> None:
    cut = cut_face(close_up(shot, 0, 80))
    pixels, landmarks = torch.from_numpy(cut.frame).permute(2, 0, 1), torch.from_numpy(cut.landmarks[:1])
    views = FaceViews(pixels.expand(2, -1, -1, -1), landmarks.expand(2, -1, -1))
    losses: list[float] = []
    brief = LandmarkerRecipe(widths=(8, 16, 24), seed=0, steps=40)
    train_landmarker(brief, itertools.repeat(views, 40), lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("network", [residual_network(48), separable_network(24)])
def test_an_exported_recogniser_is_the_network(network: nn.Module, tmp_path: Path) -> None:
    with_lived_in_norms(network)
    export_recogniser(network, tmp_path / "rec.onnx")
    crops = torch.rand(3, 3, 112, 112)
    with torch.no_grad():
        there, here = IdentityEncoder(str(tmp_path / "rec.onnx"), "arcface")(crops), network(crops * 2 - 1)
    assert torch.allclose(there, nn.functional.normalize(here), atol=1e-5)


def test_an_exported_detector_is_the_network_in_the_order_of_insightface(tmp_path: Path) -> None:
    detector = Detector()
    with_lived_in_norms(detector)
    export_detector(detector, tmp_path / "det.onnx")
    pixels = torch.rand(1, 3, 96, 160) * 2 - 1
    found = onnxruntime.InferenceSession(str(tmp_path / "det.onnx")).run(None, {"pixels": pixels.numpy()})
    with torch.no_grad():
        outputs = detector(pixels)
    for level, (logits, box, landmarks) in enumerate(outputs):
        for kind, values in enumerate((logits.sigmoid(), box, landmarks)):
            assert np.allclose(found[kind * 3 + level], values[0].numpy(), rtol=0.01, atol=0.01)  # 16-bit weights


def test_an_exported_landmark_network_is_the_network_in_insightface_s_hands(shot: Shot, tmp_path: Path) -> None:
    landmarker = Landmarker((8, 16, 24))
    with_lived_in_norms(landmarker)
    export_landmarker(landmarker, tmp_path / "lmk.onnx")
    theirs = get_model(str(tmp_path / "lmk.onnx"), providers=["CPUExecutionProvider"])
    assert theirs.taskname == "landmark_2d_5"
    image = np.ascontiguousarray(shot.frame[..., ::-1])  # insightface's are BGR
    found = theirs.get(image, Face(bbox=shot.boxes[0]))
    cut = cut_face(shot)
    pixels = (torch.from_numpy(cut.frame).permute(2, 0, 1)[None].float() - 127.5) / 128
    with torch.no_grad():
        points = (landmarker(pixels).reshape(5, 2).numpy() + 1) * (LANDMARK_SIDE / 2)
    to_cut = (cut.landmarks[0, 0] - cut.landmarks[0, 1]) / (shot.landmarks[0, 0] - shot.landmarks[0, 1])
    expected = shot.landmarks[0, 0] + (points - cut.landmarks[0, 0]) / to_cut
    assert np.allclose(found, expected, atol=0.2)  # 16-bit weights
