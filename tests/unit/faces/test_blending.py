from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.faces.alignment import cut_crops
from pipeline.faces.blending import blur, blur_all, paste
from pipeline.faces.masks import soft_square
from pipeline.types import Crops, Floats
from tests.factories import landmarks_at, textured_frame

SIZE = 64
MASK = soft_square(SIZE, 0.05, 0.1)


def crops_at(frame: Tensor, *places: tuple[float, float, float, float]) -> Crops:
    return cut_crops(frame, np.stack([landmarks_at(*place) for place in places]), "arcface", SIZE)


def masks(count: int) -> Floats:
    return np.stack([MASK] * count)


def flat(count: int, level: float) -> Tensor:
    return torch.full((count, 3, SIZE, SIZE), level)


@given(x=st.floats(-40, 360), y=st.floats(-40, 280), eyes=st.floats(6, 90), roll=st.floats(-180, 180))
@settings(max_examples=60)
def test_outside_the_mask_not_one_pixel_changes(x: float, y: float, eyes: float, roll: float) -> None:
    frame = textured_frame()
    before = frame.clone()
    crops = crops_at(frame, (x, y, eyes, roll))
    result, changed = paste(frame, flat(1, 1.0), crops.to_frame, masks(1))
    assert torch.equal(frame, before)
    assert torch.equal(result[:, ~torch.from_numpy(changed)], frame[:, ~torch.from_numpy(changed)])


@given(x=st.floats(60, 260), y=st.floats(60, 180), eyes=st.floats(10, 60), roll=st.floats(-180, 180))
@settings(max_examples=40)
def test_pasting_each_crop_back_gives_the_frame_to_40_db(x: float, y: float, eyes: float, roll: float) -> None:
    frame = textured_frame()
    crops = cut_crops(frame, landmarks_at(x, y, eyes, roll)[None], "arcface", 224)
    mask = soft_square(224, 0.05, 0.1)[None]
    result, changed = paste(frame, crops.pixels, crops.to_frame, mask)
    error = (result.float() - frame.float())[:, torch.from_numpy(changed)].square().mean()
    assert 10 * torch.log10(255**2 / error) > 40


def test_with_an_empty_mask_the_frame_stays() -> None:
    frame = textured_frame()
    crops = crops_at(frame, (160, 110, 40, 0))
    result, changed = paste(frame, flat(1, 0.0), crops.to_frame, np.zeros((1, SIZE, SIZE), np.float32))
    assert torch.equal(result, frame)
    assert not changed.any()


def test_in_the_middle_the_result_replaces_the_frame() -> None:
    frame = textured_frame()
    crops = crops_at(frame, (160, 110, 40, 30))
    result, _ = paste(frame, flat(1, 1.0), crops.to_frame, masks(1))
    x, y = (crops.to_frame[0] @ (SIZE / 2, SIZE / 2, 1)).astype(int)
    assert (result[:, y, x] == 255).all()


@pytest.mark.parametrize("gap", [20, 45, 70])
def test_neighbours_never_paste_each_other_back(gap: int) -> None:
    """Two faces side by side become white; each crop still shows the other's old, black face."""
    frame = torch.zeros(240, 320, 3, dtype=torch.uint8).permute(2, 0, 1)
    crops = crops_at(frame, (160 - gap / 2, 110, 30, 0), (160 + gap / 2, 110, 30, 0))
    for order in ([0, 1], [1, 0]):
        results = crops.pixels.clone()
        results[:, :, 14:50, 20:44] = 1.0  # the swapped face itself; around it the crop shows what was there
        result, _ = paste(frame, results[order], crops.to_frame[order], masks(2))
        for n in range(2):
            x, y = np.rint(crops.to_frame[n] @ (SIZE / 2, SIZE / 2, 1)).astype(int)
            assert (result[:, y, x] == 255).all()


def test_the_order_of_faces_does_not_matter() -> None:
    frame = textured_frame()
    crops = crops_at(frame, (120, 110, 40, 0), (170, 115, 45, 10), (200, 90, 30, -20))
    results = torch.stack([torch.full((3, SIZE, SIZE), level) for level in (0.1, 0.5, 0.9)])
    first, _ = paste(frame, results, crops.to_frame, masks(3))
    turned = [2, 0, 1]
    second, _ = paste(frame, results[turned], crops.to_frame[turned], masks(3))
    assert torch.equal(first, second)


def test_a_face_that_is_given_twice_is_pasted_once() -> None:
    frame = textured_frame()
    crops = crops_at(frame, (160, 110, 40, 0))
    once, _ = paste(frame, flat(1, 1.0), crops.to_frame, masks(1))
    twice, _ = paste(frame, flat(2, 1.0), crops.to_frame[[0, 0]], masks(2))
    assert torch.equal(once, twice)


def test_a_neighbour_that_stays_is_not_covered() -> None:
    frame = textured_frame()
    crops = crops_at(frame, (140, 110, 40, 0), (180, 110, 40, 0))
    result, changed = paste(frame, flat(1, 1.0), crops.to_frame[:1], masks(1), crops.to_frame[1:])
    x, y = np.rint(crops.to_frame[1] @ (SIZE / 2, SIZE / 2, 1)).astype(int)
    patch = (slice(None), slice(y - 10, y + 11), slice(x - 10, x + 11))
    assert torch.equal(result[patch], frame[patch])
    assert changed.any()


def test_a_blurred_face_keeps_no_detail_and_its_surroundings_stay() -> None:
    frame = textured_frame()
    frame[:, ::2] = 255 - frame[:, ::2]
    crops = crops_at(frame, (160, 110, 50, 0))
    result, changed = blur(frame, crops.to_frame, masks(1))
    inside = torch.from_numpy(changed & (np.abs(np.indices(changed.shape) - [[[120]], [[160]]]).max(axis=0) < 15))
    rows = result.float().diff(dim=1).abs()[:, inside[1:]].mean()
    assert rows < 0.1 * frame.float().diff(dim=1).abs()[:, inside[1:]].mean()
    assert torch.equal(result[:, ~torch.from_numpy(changed)], frame[:, ~torch.from_numpy(changed)])


def test_a_whole_frame_is_blurred() -> None:
    frame = textured_frame()
    blurred = blur_all(frame)
    assert blurred.shape == frame.shape
    assert blurred.float().diff(dim=2).abs().mean() < frame.float().diff(dim=2).abs().mean()


def test_blurred_faces_do_not_make_room_for_each_other() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (3, 200, 200)).astype(np.uint8) * 255
    frame, square = torch.from_numpy(noise), soft_square(64, 0.05, 0.1)
    one = np.array([[2.0, 0, 30], [0, 2.0, 30]], np.float32)
    for shift in (0.3, 1.0, 3.0):
        both = np.stack([one, one + np.array([[0, 0, shift], [0, 0, 0]], np.float32)])
        blurred, _ = blur(frame, both, np.broadcast_to(square, (2, 64, 64)))
        change = (blurred.float() - frame.float()).abs()[:, 60:130, 60:130]
        assert change.mean() > 100, f"what lies under two places {shift} px apart can be seen"
