from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import DisguiseConfig
from pipeline.training.disguise import Disguises, disguise, draw_disguises
from tests.factories import textured_frame

FACE = (slice(None), slice(None), slice(24, 44), slice(22, 42))


def crops(count: int = 6, side: int = 64) -> Tensor:
    return torch.stack([textured_frame(side, side, seed) for seed in range(count)]).contiguous()


WALL = torch.tensor([60, 120, 70], dtype=torch.uint8)


def before_a_wall(skin: Tensor, left: int, right: int) -> Tensor:
    """A face of one colour from column to column of two crops, and a green wall around it."""
    given = WALL[:, None, None].expand(2, 3, 64, 64).clone()
    given[:, :, 8:62, left:right] = skin[:, None, None]
    return given


def plain(value: int, count: int = 2, side: int = 64) -> Tensor:
    return torch.full((count, 3, side, side), value, dtype=torch.uint8)


def disguises(settings: DisguiseConfig, tone: float, count: int = 2) -> Disguises:
    drawn = draw_disguises(settings, 0, range(count))
    return Disguises(np.full(count, tone, np.float32), drawn.moves, drawn.tints)


def test_disguises_depend_on_seed_and_position_alone_and_stay_within_their_limits() -> None:
    settings = DisguiseConfig(tone=1.0, tint=0.5, warp=0.05)
    whole, part = draw_disguises(settings, 3, range(200)), draw_disguises(settings, 3, range(50, 60))
    for name in ("tone", "moves", "tints"):
        assert (getattr(whole, name)[50:60] == getattr(part, name)).all()
    assert (draw_disguises(settings, 4, range(200)).tone != whole.tone).any()
    assert 0.0 <= whole.tone.min() < 0.1 < 0.9 < whole.tone.max() <= 1.0
    assert 0.03 < abs(whole.moves).max() <= 0.05
    assert 0.45 < abs(whole.tints).max() <= 0.5


def test_a_tone_darkens_or_lightens_the_face_and_leaves_the_wall() -> None:
    settings = DisguiseConfig(tone=0.5)
    given = before_a_wall(torch.tensor([80, 80, 80], dtype=torch.uint8), 10, 54)
    dark = disguise(given, disguises(settings, 0.0), settings, "arcface")
    light = disguise(given, disguises(settings, 1.0), settings, "arcface")
    for changed, sign in ((dark, -1), (light, 1)):
        assert (changed[:, :, :4] == given[:, :, :4]).all()
        expected = 80 * np.exp(sign * 0.5 * np.array([0.97, 1.28, 1.45]))
        assert changed[FACE].float().mean(dim=(0, 2, 3)).numpy() == pytest.approx(expected, abs=2)


def test_a_tone_changes_skin_wherever_it_is_and_nothing_beside_it() -> None:
    """A face turned to the left: its ear lies outside the oval of a face, some of the wall inside."""
    given = before_a_wall(torch.tensor([200, 150, 120], dtype=torch.uint8), 2, 44)
    settings = DisguiseConfig(tone=1.0)
    changed = disguise(given, disguises(settings, 0.0), settings, "arcface")
    factor = changed.float() / given.float()
    assert (factor[:, :, 20:54, 12:40] < 0.5).all(), "the face"
    assert (factor[:, :, 30:40, 4:8] < 0.75).all(), "its ear"
    assert (factor[:, :, :, 52:] > 0.97).all(), "the wall beside it"


@pytest.mark.parametrize("value", [3, 20, 128, 240, 255])
def test_no_face_burns_out_or_drowns_that_was_not_so_already(value: int) -> None:
    settings = DisguiseConfig(tone=2.0)
    for tone in (0.0, 1.0):
        changed = (
            disguise(plain(value), disguises(settings, tone), settings, "arcface")[FACE].float().mean(dim=(0, 2, 3))
        )
        assert changed.min() >= min(value, 0.05 * 255) - 1
        assert changed.max() <= max(value, 0.81 * 255) + 1


@pytest.mark.parametrize("template", ["arcface", "ffhq"])
def test_a_warp_moves_the_face_and_not_the_corners_of_the_crop(template: str) -> None:
    settings = DisguiseConfig(warp=0.05)
    before = crops(side=128)
    after = disguise(before, draw_disguises(settings, 0, range(6)), settings, template)  # type: ignore[arg-type]
    change = (after.float() - before.float()).abs()
    assert change[:, :, 56:80, 52:76].mean() > 3.0
    assert change[:, :, :3, :3].max() <= 1.0, "nothing but rounding"


def test_a_tint_changes_parts_of_the_face_each_in_its_own_way() -> None:
    settings = DisguiseConfig(tint=0.6)
    changed = disguise(plain(100), draw_disguises(settings, 0, range(2)), settings, "arcface").float()
    assert (changed[:, :, :3, :3] - 100).abs().max() <= 1
    inside = changed[FACE]
    assert 100 * np.exp(-0.9) < inside.min() < 75 < 130 < inside.max() < 100 * np.exp(0.9)
    assert (inside.std(dim=(2, 3)) > 8).all(), "in every channel"
    assert (inside[:, 0] - inside[:, 2]).abs().mean() > 10, "colour, not light alone"


def test_nothing_asked_for_changes_nothing() -> None:
    settings = DisguiseConfig()
    assert torch.equal(disguise(crops(), draw_disguises(settings, 0, range(6)), settings, "arcface"), crops())
