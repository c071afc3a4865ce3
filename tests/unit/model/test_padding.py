from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.model.padding import ReflectConv2d, reflected


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_values_and_gradients_are_torchs_own(width: int, layout: torch.memory_format) -> None:
    pictures = torch.randn(2, 5, 6, 9, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 5, 6 + 2 * width, 9 + 2 * width, dtype=torch.float64)
    mine, theirs = reflected(pictures, width), F.pad(pictures, (width,) * 4, "reflect")
    assert torch.equal(mine, theirs)
    assert mine.is_contiguous(memory_format=torch.channels_last), "or the convolution copies it"
    (one,) = torch.autograd.grad((mine * weights).sum(), pictures)
    (other,) = torch.autograd.grad((theirs * weights).sum(), pictures)
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_a_convolution_is_torchs_own() -> None:
    mine, theirs = ReflectConv2d(3, 4, 7, padding=3), nn.Conv2d(3, 4, 7, padding=3, padding_mode="reflect")
    assert list(mine.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(mine.state_dict())
    pictures = torch.randn(1, 3, 16, 16)
    assert torch.equal(mine(pictures), theirs(pictures))


@pytest.mark.gpu
def test_channels_last_stays_on_a_gpu() -> None:
    convolution = ReflectConv2d(8, 8, 3, padding=1).cuda()
    pictures = torch.randn(2, 8, 12, 12).cuda().contiguous(memory_format=torch.channels_last)
    result = convolution(pictures)
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = nn.Conv2d.forward(convolution.cpu(), pictures.cpu())
    torch.testing.assert_close(result.cpu(), expected, atol=2e-3, rtol=2e-3)  # TF32
