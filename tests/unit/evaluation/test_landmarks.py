from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.config import AnalysisConfig, ImagesConfig
from pipeline.evaluation.landmarks import LandmarkFinder
from pipeline.evaluation.metrics import landmark_errors
from pipeline.faces.alignment import apply, cut_crops, frame_to_crop
from pipeline.faces.analysis import FaceAnalyser
from pipeline.media.images import read_image
from pipeline.portrait_pack import pack_folder
from pipeline.portrait_pack.face_views import stirred
from pipeline.portrait_pack.scenes import Shot
from pipeline.portrait_pack.views import close_up
from pipeline.types import Floats
from tests.factories import scene


def crops_of_people(assets: Path, pack: str, size: int, people: int = 12) -> tuple[torch.Tensor, Floats]:
    """Crops [K, 3, S, S] and the landmarks [K, 5, 2] in them that were found in the whole photographs."""
    analyser = FaceAnalyser(pack, "arcface", size, AnalysisConfig())
    crops, landmarks = [], []
    for photo in sorted((assets / "photos" / "people").glob("*/01.jpg"))[:people]:
        frame = read_image(photo.read_bytes(), photo.name, ImagesConfig()).frame
        faces = analyser.find(frame)
        largest = int(np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1).argmax())
        points = faces.landmarks[largest : largest + 1]
        crops.append(cut_crops(frame, points, "arcface", size).pixels)
        landmarks.append(apply(frame_to_crop(points, "arcface", size), points))
    return torch.cat(crops), np.concatenate(landmarks)


@pytest.mark.assets
@pytest.mark.parametrize("size", [64, 112, 224])
def test_the_landmarks_of_a_crop_are_those_of_its_photograph(assets: Path, pack: str, size: int) -> None:
    crops, wanted = crops_of_people(assets, pack, size)
    errors = landmark_errors(LandmarkFinder(pack)(crops), wanted)
    assert np.isfinite(errors).all()
    assert np.median(errors) < 0.06
    assert errors.max() < 0.2


@pytest.mark.assets
def test_the_size_of_a_crop_does_not_move_its_landmarks(assets: Path, pack: str) -> None:
    """Pixel areas scale: a point x of a crop of 224 px is (x + 0.5) / 2 - 0.5 in the crop of 112."""
    crops, _ = crops_of_people(assets, pack, 224)
    finder = LandmarkFinder(pack)
    small = finder(F.interpolate(crops, size=(112, 112), mode="area"))
    shift = (finder(crops) + 0.5) / 2 - 0.5 - small
    assert np.abs(shift.mean(axis=(0, 1))).max() < 0.15
    assert np.abs(shift).max() < 1.0


@pytest.mark.assets
def test_a_crop_without_a_face_has_no_landmarks(pack: str) -> None:
    finder = LandmarkFinder(pack)
    assert np.isnan(finder(torch.full((2, 3, 64, 64), 0.5))).all()
    assert finder(torch.zeros(0, 3, 64, 64)).shape == (0, 5, 2)


def test_a_packs_landmark_network_follows_a_feature_that_moves_alone() -> None:
    made = scene(1, seed=8)
    sharp = close_up(Shot(made.frame, made.box, made.landmarks), 0, 112)
    by = np.zeros((5, 2), np.float32)
    by[3:] = (0.0, 0.12)  # the mouth, downwards
    moved = stirred(sharp, by)
    crops = torch.from_numpy(np.stack([sharp.frame, moved.frame])).permute(0, 3, 1, 2).float() / 255
    way = {}
    for own in (True, False):
        before, after = LandmarkFinder(pack_folder("judge"), network=own)(crops)
        way[own] = float((after - before)[3:, 1].mean() / (moved.landmarks - sharp.landmarks)[0, 3:, 1].mean())
    assert 0.85 < way[True] < 1.15
    assert way[False] < 0.75
