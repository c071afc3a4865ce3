"""What the shipped packs can do, on people and scenes whom they have never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import AnalysisConfig
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.landmarks import LandmarkNetwork
from pipeline.faces.packs import find_pack
from pipeline.portrait_pack import PackName, pack_folder
from pipeline.portrait_pack.album import Album, shot_album
from pipeline.portrait_pack.scoring import detection, placing, teaching, verification
from pipeline.portrait_pack.views import SOFT_PX
from tests.factories import scene

BOTH: tuple[PackName, ...] = ("portraits", "judge")
UNSEEN = 900


@pytest.fixture(scope="module")
def album() -> Album:
    return shot_album(UNSEEN, people=24, photos=3)


def encoder(name: PackName) -> IdentityEncoder:
    return IdentityEncoder(find_pack(pack_folder(name)).recogniser, "arcface")


def test_the_packs_are_small_and_complete() -> None:
    files = [file for name in BOTH for file in Path(pack_folder(name)).glob("*.onnx")]
    assert len(files) == 6
    assert sum(file.stat().st_size for file in files) < 8_000_000


@pytest.mark.parametrize(("name", "least"), [("portraits", 0.95), ("judge", 0.7)])
def test_a_recogniser_knows_people_again_with_other_hair_light_and_pose(
    name: PackName, least: float, album: Album
) -> None:
    figures = verification(encoder(name), album)
    assert figures["rank1"] > least
    assert figures["tar"] > least
    assert abs(figures["other"]) < 0.2


def test_the_judge_shares_nothing_with_the_encoder_that_is_trained_against() -> None:
    one, other = encoder("portraits"), encoder("judge")
    assert (one.embedding_size, other.embedding_size) == (256, 128)
    shapes = [{tuple(buffer.shape) for buffer in e.buffers() if buffer.ndim == 4} for e in (one, other)]
    assert not shapes[0] & shapes[1]


@pytest.mark.parametrize("name", BOTH)
def test_a_true_swap_is_as_near_to_its_source_as_another_photograph(name: PackName) -> None:
    cosines = teaching(encoder(name), pairs=20, seed=UNSEEN)
    assert cosines["swapped"] > cosines["own"] - 0.05
    assert cosines["swapped"] > cosines["owner"] + 0.5


def test_a_gradient_through_the_encoder_points_somewhere() -> None:
    made = scene(1, seed=UNSEEN)
    analyser = FaceAnalyser(pack_folder("portraits"), "arcface", 64, AnalysisConfig())
    faces, crops = analyser(torch.from_numpy(made.frame).permute(2, 0, 1))
    pixels = crops.pixels.clone().requires_grad_()
    cosine = (analyser.encoder(pixels) @ torch.nn.functional.normalize(torch.ones(256), dim=0)).sum()
    (gradient,) = torch.autograd.grad(cosine, pixels)
    assert len(faces) == 1
    assert gradient.isfinite().all()
    step = 0.02 * gradient / gradient.abs().max()
    moved = analyser.encoder(pixels + step) @ torch.nn.functional.normalize(torch.ones(256), dim=0)
    assert float(moved.detach()) > float(cosine.detach())


def test_every_face_of_a_scene_is_found_where_it_is() -> None:
    figures = detection(pack_folder("portraits"), scenes=10, seed=UNSEEN)
    assert figures["found"] == 1.0
    assert figures["false"] <= 0.1 * figures["faces"]
    assert figures["median"] < 0.05


def test_an_aligned_crop_shown_alone_is_found_too() -> None:
    figures = detection(pack_folder("judge"), scenes=10, seed=UNSEEN, close=True)
    assert (figures["found"], figures["false"]) == (1.0, 0)
    assert figures["median"] < 0.03


def test_a_face_as_soft_as_half_its_size_is_found_too() -> None:
    figures = detection(pack_folder("judge"), scenes=20, seed=UNSEEN, close=True, blur_px=SOFT_PX)
    assert (figures["found"], figures["false"]) == (1.0, 0)
    assert figures["median"] < 0.04


@pytest.mark.parametrize("name", BOTH)
def test_landmarks_are_placed_more_surely_than_by_the_detector_and_follow_single_features(name: PackName) -> None:
    by_network, by_detector = (placing(pack_folder(name), 40, UNSEEN, network=own) for own in (True, False))
    assert by_network["found"] == 1.0
    assert max(by_network[kind] for kind in ("sharp", "soft", "moved")) < 0.025
    assert by_network["follows"] > 0.9
    assert by_network["sharp"] < 0.8 * by_detector["sharp"]
    assert by_detector["follows"] < 0.6, "it sees a moved mouth where mouths are: no judge of swaps"


def test_the_judges_landmarks_are_not_those_that_are_trained_against() -> None:
    paths = [str(find_pack(pack_folder(name)).landmarks) for name in BOTH]
    networks = [LandmarkNetwork(path, "arcface") for path in paths]
    shapes = [{tuple(weight.shape) for weight in network.buffers() if weight.ndim == 4} for network in networks]
    assert shapes[0] != shapes[1]


def test_analysis_with_the_pack_gives_each_face_its_own_identity() -> None:
    made = scene(3, seed=UNSEEN + 1)
    faces, _ = FaceAnalyser(pack_folder("portraits"), "arcface", 64, AnalysisConfig())(
        torch.from_numpy(made.frame).permute(2, 0, 1)
    )
    assert faces.embedding.shape == (3, 256)
    assert np.abs(faces.landmarks - made.landmarks).max() < 6
    cosines = faces.embedding @ faces.embedding.T
    assert cosines[np.triu_indices(3, 1)].max() < 0.8
