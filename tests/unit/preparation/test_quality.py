from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.config import FilterConfig
from pipeline.faces.alignment import cut_crops
from pipeline.preparation.quality import sharpness
from tests.factories import scene


def portrait_crops(size: int) -> Tensor:
    made = [scene(1, seed, 300) for seed in range(6)]
    frames = [torch.from_numpy(one.frame).permute(2, 0, 1) for one in made]
    return torch.cat([cut_crops(f, m.landmarks, "arcface", size).pixels for f, m in zip(frames, made, strict=True)])


def blurred(crops: Tensor, sigma: float) -> Tensor:
    pictures = [cv2.GaussianBlur(crop.permute(1, 2, 0).numpy(), (0, 0), sigma) for crop in crops]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def test_every_blur_makes_every_crop_less_sharp() -> None:
    crops = portrait_crops(112)
    levels = np.stack([sharpness(crops), *(sharpness(blurred(crops, sigma)) for sigma in (0.7, 1.5, 3.0))])
    assert (np.diff(levels, axis=0) < 0).all()
    least = FilterConfig().min_sharpness
    assert (levels[0] > least).all()
    assert (levels[3] < least).all()


def test_neither_contrast_nor_brightness_nor_size_counts() -> None:
    crops = portrait_crops(112)
    assert np.allclose(sharpness(crops * 0.4 + 0.1), sharpness(crops), rtol=0.02)
    large = sharpness(blurred(portrait_crops(224), 3.0))
    assert np.allclose(large, sharpness(blurred(crops, 1.5)), rtol=0.1)


def test_the_range_is_from_nothing_to_noise() -> None:
    noise = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert 10 < sharpness(noise)[0] < 16
    assert sharpness(torch.full((1, 3, 64, 64), 0.5))[0] == 1.0
    assert sharpness(torch.zeros(0, 3, 64, 64)).shape == (0,)
