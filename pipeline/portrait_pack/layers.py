"""What the pack's networks are built of."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        moved: Tensor = self.body(x)
        return x + moved


def conv(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and batch norm; sides are divided by the stride."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outside)]


def basic(width: int) -> Residual:
    """Two convolutions round a PReLU, added to what came in."""
    return Residual(*conv(width, width, 3), nn.PReLU(width), *conv(width, width, 3))
