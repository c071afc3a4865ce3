from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from insightface.app.common import Face
from torch import nn

from pipeline.config import Template
from pipeline.errors import ModelPackError
from pipeline.faces.alignment import apply, cut_crops, frame_to_crop
from pipeline.faces.landmarks import LandmarkNetwork
from pipeline.faces.network_input import takes_raw_pixels
from pipeline.faces.packs import find_pack, load_face_analysis
from pipeline.portrait_pack import pack_folder
from tests.factories import scene
from tests.unit.model.test_onnx_module import one_node_onnx

JUDGE = pack_folder("judge")
EYES = 32.54  # of the frontal template at 112 px


def network(template: Template = "arcface") -> LandmarkNetwork:
    path = find_pack(JUDGE).landmarks
    assert path is not None
    return LandmarkNetwork(path, template)


def crops_of(made_seed: int, template: Template, size: int) -> torch.Tensor:
    made = scene(1, seed=made_seed)
    return cut_crops(torch.from_numpy(made.frame).permute(2, 0, 1), made.landmarks, template, size).pixels


def test_the_landmarks_are_those_that_insightface_finds_in_the_same_box() -> None:
    crops = crops_of(3, "arcface", 112)
    theirs = load_face_analysis(JUDGE, ["detection"], 1, ["landmark_2d_5"]).models["landmark_2d_5"]
    image = np.ascontiguousarray((crops[0] * 255 + 0.5).byte().flip(0).permute(1, 2, 0).numpy())
    box = np.array([57 - 49.25, 61 - 49.25, 57 + 49.25, 61 + 49.25], np.float32)
    points = theirs.get(image, Face(bbox=box))
    with torch.no_grad():
        found = network()(crops)[0].numpy() * EYES + (57, 61)
    assert np.abs(found - points).max() < 0.6
    assert np.abs((found - points).mean(0)).max() < 0.3


@pytest.mark.parametrize("size", [64, 112, 224])
def test_landmarks_are_where_they_are_at_any_size(size: int) -> None:
    made = scene(1, seed=4)
    true = apply(frame_to_crop(made.landmarks, "arcface", 112), made.landmarks)[0]
    with torch.no_grad():
        found = network()(crops_of(4, "arcface", size))[0].numpy() * EYES + (57, 61)
    assert np.linalg.norm(found - true, axis=1).mean() / EYES < 0.03


def test_both_templates_bring_a_face_to_one_place() -> None:
    with torch.no_grad():
        one, other = network()(crops_of(5, "arcface", 224)), network("ffhq")(crops_of(5, "ffhq", 512))
    assert (one - other).norm(dim=2).mean() < 0.03


def test_gradients_reach_the_crop_and_no_weight() -> None:
    parent = nn.Sequential(network())
    parent.train()
    assert not parent[0].training
    assert not any(p.requires_grad for p in parent.parameters())
    crops = crops_of(6, "arcface", 64).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        points = parent(crops)
    assert points.dtype == torch.float32
    points[0, 3, 0].backward()
    assert crops.grad is not None
    assert crops.grad.abs().sum() > 0


def test_networks_that_scale_their_pixels_themselves_are_known_by_insightfaces_names(tmp_path: Path) -> None:
    norm = {name: np.ones(2, np.float32) for name in ("scale", "shift", "mean", "variance")}
    named = one_node_onnx(tmp_path / "own.onnx", "BatchNormalization", 13, norm, name="bn_data")
    assert takes_raw_pixels(named, "bn_data")
    assert not takes_raw_pixels(named)
    assert not takes_raw_pixels(str(find_pack(JUDGE).landmarks), "bn_data")


def test_what_finds_no_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelPackError, match="not x and y of points"):
        LandmarkNetwork(one_node_onnx(tmp_path / "maps.onnx", "Relu", 13, {}), "arcface")
