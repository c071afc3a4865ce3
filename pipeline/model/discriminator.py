"""The paper's discriminator: patches judged at several scales (SimSwap, section 3).

`projected.py` has the other one, and `build_discriminator`, which chooses. Both answer with a `DiscriminatorOutput`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import DiscriminatorConfig
from pipeline.errors import ConfigError, ModelPackError
from pipeline.media.copies import local_copy

_SLOPE = 0.2  # of every LeakyReLU
_SMALLEST_PX = 2  # of a layer: one pixel of one sample has no statistics to normalise by


class DiscriminatorOutput(NamedTuple):
    """What a discriminator says about a batch.

    Attributes:
        logits: per scale (`patch`) or feature map (`projected`), [B, 1, h, w]; above 0 means photograph.
        features: per scale, its layers shallow to deep, [B, C_i, h_i, w_i]; `features[scale][m:]` are the layers
            that weak feature matching from layer m on compares.
    """

    logits: list[Tensor]
    features: list[list[Tensor]]


class PatchNetwork(nn.Module):
    """One scale: 4x4 convolutions of stride 2, then two of stride 1, the last one to the logits.

    The two of stride 1 pad by 2 and by 1: together they keep side and centre.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(_SLOPE))
        halving = [_conv_norm(a, b, stride=2, padding=1) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList([first, *halving, _conv_norm(widths[-1], widths[-1], stride=1, padding=2)])
        self.last = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 3, S, S] RGB -1..1 to logits [B, 1, h, w] and the layers before them, shallow to deep."""
        features = []
        for layer in self.layers:
            images = layer(images)
            features.append(images)
        return self.last(images), features


class PatchDiscriminator(nn.Module):
    """The same network at full size, at half, at a quarter, …, each with weights of its own.

    Args:
        widths: channels of the layers of stride 2; every scale has `len(widths) + 1` feature layers.
        scales: how many sizes.
    """

    def __init__(self, widths: tuple[int, ...], scales: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(PatchNetwork(widths) for _ in range(scales))

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Judge.

        Args:
            images: [B, 3, S, S] RGB 0..1, targets or results.

        Returns:
            Logits and features, one entry per scale, full size first.
        """
        output = DiscriminatorOutput([], [])
        seen = images * 2.0 - 1.0
        for index, network in enumerate(self.networks):
            if index:
                seen = F.avg_pool2d(seen, 3, 2, 1, count_include_pad=False)
            logits, features = network(seen)
            output.logits.append(logits)
            output.features.append(features)
        return output


def _conv_norm(inputs: int, outputs: int, stride: int, padding: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 4, stride, padding, bias=False)  # BatchNorm subtracts any bias
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE))


def check_discriminator(config: DiscriminatorConfig, crop_size: int) -> None:
    """Whether a discriminator can judge crops of a size, before anything is built.

    Args:
        config: its settings.
        crop_size: side S of the crops in pixels.

    Raises:
        ConfigError: so many layers and scales leave nothing of such a crop.
        ModelPackError: the backbone of `projected` is missing.
    """
    if config.kind == "projected":
        _check_backbone(str(config.backbone))
    elif not config.widths:
        raise ConfigError("discriminator.widths", "is empty", "One width would do, four are the paper's")
    elif _smallest_side(crop_size, len(config.widths), config.scales) < _SMALLEST_PX:
        problem = f"{len(config.widths)} widths at {config.scales} scales leave nothing of crops of {crop_size} px"
        raise ConfigError("discriminator", problem, _smaller(config, crop_size))


def _check_backbone(path: str) -> None:
    mend = "Set discriminator.backbone to an ONNX file or a torch.export archive (.pt2)"
    if not Path(local_copy(path)).is_file():
        raise ModelPackError(path, "no such discriminator backbone", mend)
    if Path(path).suffix not in (".onnx", ".pt2"):
        raise ModelPackError(path, "is neither .onnx nor .pt2", mend)


def _smallest_side(crop_size: int, num_widths: int, scales: int) -> int:
    """Side of the deepest layer at the smallest scale."""
    for _ in range(scales - 1):
        crop_size = (crop_size + 1) // 2
    return crop_size >> num_widths


def _smaller(config: DiscriminatorConfig, crop_size: int) -> str:
    """The most widths at these scales, and the most scales with these widths, that would do."""
    widths = [n for n in range(1, len(config.widths)) if _smallest_side(crop_size, n, config.scales) >= _SMALLEST_PX]
    scales = [n for n in range(1, config.scales) if _smallest_side(crop_size, len(config.widths), n) >= _SMALLEST_PX]
    mends = [f"up to {widths[-1]} widths"] if widths else []
    mends += [f"discriminator.scales={scales[-1]}"] if scales else []
    return f"{' or '.join(mends)} would do" if mends else "Take larger crops"
