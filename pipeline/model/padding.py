"""Convolution of a picture that is reflected at its edges, quick in the memory layout that GPUs convolve in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReflectConv2d(nn.Conv2d):
    """`Conv2d` with `padding_mode="reflect"`.

    torch's own reflection on CUDA (2.11) gives up channels_last: each convolution then copies its input there and back,
    and the gradients of both layouts are added slowly.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, padding_mode="reflect")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """[B, C, h, w] to [B, outputs, h', w']."""
        ours = input.is_cuda and input.is_contiguous(memory_format=torch.channels_last)
        if not ours or torch.compiler.is_compiling():
            return super().forward(input)
        return F.conv2d(reflected(input, int(self.padding[0])), self.weight, self.bias, self.stride)


def reflected(pictures: Tensor, width: int) -> Tensor:
    """[B, C, h, w] to [B, C, h + 2 width, w + 2 width] in channels_last, mirrored at the edges; differentiable once."""
    padded: Tensor = _Reflect.apply(pictures, width)  # type: ignore[no-untyped-call]
    return padded


class _Reflect(torch.autograd.Function):
    """Copies and sums of whole rows and columns."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, width: int) -> Tensor:
        """Middle and rows from the pictures, columns from what is there then."""
        ctx.width = width
        batch, channels, rows, columns = pictures.shape
        shape = batch, channels, rows + 2 * width, columns + 2 * width
        out = torch.empty(
            shape, dtype=pictures.dtype, device=pictures.device, memory_format=torch.channels_last
        )  # fmt: skip
        inside = out[..., width:-width]
        inside[:, :, width:-width] = pictures
        for n in range(1, width + 1):
            inside[:, :, width - n] = pictures[:, :, n]
            inside[:, :, width + rows - 1 + n] = pictures[:, :, rows - 1 - n]
        for n in range(1, width + 1):
            out[..., width - n] = out[..., width + n]
            out[..., width + columns - 1 + n] = out[..., width + columns - 1 - n]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """What was copied from a pixel comes back to it."""
        width, (gradient,) = ctx.width, gradients
        out = _fold_columns(gradient[:, :, width:-width], width)
        rows = out.shape[2]
        for n in range(1, width + 1):
            above, below = width - n, width + rows - 1 + n
            out[:, :, n : n + 1] += _fold_columns(gradient[:, :, above : above + 1], width)
            out[:, :, rows - 1 - n : rows - n] += _fold_columns(gradient[:, :, below : below + 1], width)
        return out, None


def _fold_columns(gradient: Tensor, width: int) -> Tensor:
    out = gradient[..., width:-width].clone(memory_format=torch.channels_last)
    columns = out.shape[3]
    for n in range(1, width + 1):
        out[..., n] += gradient[..., width - n]
        out[..., columns - 1 - n] += gradient[..., width + columns - 1 + n]
    return out
