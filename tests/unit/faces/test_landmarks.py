from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from insightface.app.common import Face
from torch import nn

from pipeline.config import Template
from pipeline.errors import ModelPackError
from pipeline.faces.alignment import apply, cut_crops, frame_to_crop, similarity, template_landmarks
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


PLACES: list[tuple[Template, int]] = [
    ("arcface", 64), ("arcface", 112), ("arcface", 224), ("ffhq", 128), ("ffhq", 512),
]  # fmt: skip


@pytest.mark.parametrize(("template", "size"), PLACES)
def test_landmarks_are_where_they_are_at_any_size_of_either_template(template: Template, size: int) -> None:
    """Six people's mean error tells half a pixel from none."""
    off = []
    for seed in range(4, 10):
        made = scene(1, seed=seed)
        true = apply(frame_to_crop(made.landmarks, "arcface", 112), made.landmarks)[0]
        crop = apply(frame_to_crop(made.landmarks, template, size), made.landmarks)
        with torch.no_grad():
            points = network(template)(crops_of(seed, template, size))
        if template == "arcface":
            off.append(points[0].numpy() * EYES + (57, 61) - true)
        else:  # the way from this crop to the square, through the points of the frontal template
            to_arcface = similarity(template_landmarks("ffhq", size), template_landmarks("arcface", 112)[2:3])
            off.append(points[0].numpy() * EYES + (57, 61) - apply(to_arcface, crop)[0])
    assert np.abs(np.mean(off, axis=(0, 1))).max() < 0.25
    assert np.linalg.norm(off, axis=2).mean() / EYES < 0.03


def test_the_size_of_a_crop_does_not_move_its_landmarks() -> None:
    crops = torch.cat([crops_of(seed, "arcface", 448) for seed in range(4, 10)])
    halves = torch.nn.functional.interpolate(crops, size=(224, 224), mode="area")
    with torch.no_grad():
        shift = (network()(crops) - network()(halves)) * EYES
    assert shift.mean(dim=(0, 1)).abs().max() < 0.05


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


def test_it_is_as_exact_as_its_weights() -> None:
    exact, crops = network().double(), crops_of(7, "arcface", 64)
    points = exact(crops.double())
    assert points.dtype == torch.float64
    assert torch.allclose(points.float(), network()(crops), atol=1e-4)


def test_networks_that_scale_their_pixels_themselves_are_known_by_insightfaces_names(tmp_path: Path) -> None:
    norm = {name: np.ones(2, np.float32) for name in ("scale", "shift", "mean", "variance")}
    named = one_node_onnx(tmp_path / "own.onnx", "BatchNormalization", 13, norm, name="bn_data")
    assert takes_raw_pixels(named, "bn_data")
    assert not takes_raw_pixels(named)
    assert not takes_raw_pixels(str(find_pack(JUDGE).landmarks), "bn_data")


def test_what_finds_no_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelPackError, match="not x and y of points"):
        LandmarkNetwork(one_node_onnx(tmp_path / "maps.onnx", "Relu", 13, {}), "arcface")
