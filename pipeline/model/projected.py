"""A discriminator on the features of a frozen network, and the one place that chooses a discriminator.

Heads that see a pretrained network's features learn faster than a network of their own. What they see is mixed by
frozen random 1x1 convolutions, so that no head can rely on a few channels alone (the idea of Sauer et al., 2021,
*Projected GANs Converge Faster*).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.config import DiscriminatorConfig
from pipeline.model.backbone import FrozenBackbone
from pipeline.model.discriminator import DiscriminatorOutput, PatchDiscriminator, check_discriminator

_INITIAL_STD = 0.02  # of a patch discriminator's convolutions
_PROBE_IMAGES = 4
_SLOPE = 0.2


class RandomMixing(nn.Module):
    """Frozen random 1x1 mixing of every feature map to one width, deep maps added to shallow ones (top down).

    The weights are buffers: saved, never trained. They are scaled so that the maps of a probe get unit variance.

    Args:
        maps: [B, C_i, h_i, w_i] of a probe, shallow to deep.
        width: channels P of every mixed map.
    """

    def __init__(self, maps: list[Tensor], width: int) -> None:
        super().__init__()
        for index, values in enumerate(maps):
            power = values.float().square().sum(dim=1).mean().clamp_min(1e-12)
            self.register_buffer(f"weight_{index}", torch.randn(width, values.shape[1], 1, 1) * power.rsqrt())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[B, C_i, h_i, w_i], shallow to deep, to [B, P, h_i, w_i]."""
        mixed: list[Tensor] = []
        for index in reversed(range(len(maps))):
            own = F.conv2d(maps[index], self.get_buffer(f"weight_{index}"))
            if mixed:
                deeper = F.interpolate(mixed[0], own.shape[-2:], mode="bilinear", align_corners=False)
                own = (own + deeper) * math.sqrt(0.5)
            mixed.insert(0, own)
        return mixed


class ProjectedDiscriminator(nn.Module):
    """Small heads on the randomly mixed feature maps of a frozen network.

    Args:
        backbone: the frozen network.
        crop_size: side S of the crops it will judge, pixels; decides how often each head halves its map.
        width: channels P of the mixed maps and of the heads.
    """

    def __init__(self, backbone: FrozenBackbone, crop_size: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        maps = backbone.probe(_smooth_noise(crop_size))
        self.mixing = RandomMixing(maps, width)
        deepest = maps[-1].shape[-1]
        self.heads = nn.ModuleList(_head(width, round(math.log2(m.shape[-1] / deepest))) for m in maps)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Judge.

        Args:
            images: [B, 3, S, S] RGB 0..1, targets or results.

        Returns:
            Logits, one entry per feature map, shallow to deep; features: one scale, the backbone's maps.
        """
        maps = self.backbone(images)
        logits = [head(mixed) for head, mixed in zip(self.heads, self.mixing(maps), strict=True)]
        return DiscriminatorOutput(logits, [maps])


def _head(width: int, halvings: int) -> nn.Sequential:
    """Down to the deepest map's side, one layer more, then the logits; every convolution by spectral norm."""
    layers: list[nn.Module] = []
    for kernel, stride in [*[(4, 2)] * halvings, (3, 1)]:
        layers += [spectral_norm(nn.Conv2d(width, width, kernel, stride, 1)), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(width, 1, 1)))


def _smooth_noise(side: int) -> Tensor:
    """[B, 3, S, S] 0..1 of structure at every scale, roughly as photographs have."""
    layers = [torch.rand(_PROBE_IMAGES, 3, n, n) for n in (2, 4, 8, 16, 32, side)]
    grown = [F.interpolate(layer, (side, side), mode="bilinear", align_corners=False) for layer in layers]
    return torch.stack(grown).mean(dim=0)


def build_discriminator(config: DiscriminatorConfig, crop_size: int, seed: int) -> nn.Module:
    """An untrained discriminator whose weights depend on the seed alone; the global random numbers stay as they are.

    Args:
        config: which one, and its settings.
        crop_size: side S of the crops it will judge, pixels.
        seed: of weights and of the frozen random mixing.

    Returns:
        [B, 3, S, S] RGB 0..1 to `DiscriminatorOutput`.

    Raises:
        ConfigError: it does not fit such crops.
        ModelPackError: the backbone of `projected` cannot be used.
    """
    check_discriminator(config, crop_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.kind == "projected":
            return ProjectedDiscriminator(FrozenBackbone(config), crop_size, config.projection_width)
        return _initialise(PatchDiscriminator(config.widths, config.scales))


def _initialise(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, _INITIAL_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
