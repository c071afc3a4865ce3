from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import AugmentationConfig
from pipeline.training.augmentation import augment, draw_changes
from tests.factories import textured_frame


def crops(count: int = 6, side: int = 64) -> Tensor:
    return torch.stack([textured_frame(side, side, seed) for seed in range(count)]).contiguous()


def test_nothing_asked_for_changes_nothing() -> None:
    settings = AugmentationConfig(flip=0.0)
    before = crops()
    assert torch.equal(augment(before, draw_changes(settings, 0, range(6)), settings), before)


def test_a_flip_is_exact_and_about_half_are_flipped() -> None:
    settings = AugmentationConfig(flip=0.5)
    changes = draw_changes(settings, 0, range(400))
    assert 150 < changes.flip.sum() < 250
    before = crops()
    after = augment(before, draw_changes(settings, 0, range(6)), settings)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other) or torch.equal(one.flip(-1), other)


def test_changes_depend_on_the_position_alone_and_stay_within_their_limits() -> None:
    settings = AugmentationConfig(brightness=0.1, rotate_degrees=5, scale=0.05, shift=0.02)
    whole, part = draw_changes(settings, 3, range(200)), draw_changes(settings, 3, range(50, 60))
    assert (whole.radians[50:60] == part.radians).all()
    assert abs(whole.radians).max() <= 0.0873
    assert 0.9 <= whole.brightness.min() < whole.brightness.max() <= 1.1
    assert abs(whole.shift).max() <= 0.02


def test_a_small_move_keeps_the_picture_and_a_colour_change_keeps_grey_grey() -> None:
    moving = AugmentationConfig(flip=0.0, shift=0.02, rotate_degrees=1, scale=0.01)
    before = crops().float()
    after = augment(crops(), draw_changes(moving, 0, range(6)), moving).float()
    assert 0.1 < (after - before).abs().mean() < 12
    saturating = AugmentationConfig(flip=0.0, saturation=0.5)
    grey = torch.randint(0, 255, (4, 1, 16, 16), dtype=torch.uint8).expand(4, 3, 16, 16)
    assert (augment(grey, draw_changes(saturating, 0, range(4)), saturating).int() - grey.int()).abs().max() <= 1
