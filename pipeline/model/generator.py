"""The SimSwap generator: encoder, ID injection blocks, decoder (SimSwap, section 3).

The encoder turns the target crop into features, the ID injection blocks replace the identity in
them by AdaIN driven by the source's embedding, the decoder renders the result. Scale and shift of
the AdaIN depend on the source alone: `Generator.styles` computes them once per identity, and
`Generator.render` uses them for any number of crops.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from pipeline.config import ModelConfig
from pipeline.model.padding import ReflectConv2d

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EXTRAS = ("mask", "positions")
"""Switches of `ModelConfig` for what the paper's generator lacks, and one that is trained already can be given."""

_DRAWN = 2.0  # logit of the mask at first: a generator that begins by copying its target is slow to learn to swap
_EPSILON = 1e-8  # of the instance norm, as the published weights were trained


class InstanceAdaIN(nn.Module):
    """Instance norm without own parameters, then the scale and shift of an identity (AdaIN)."""

    def __init__(self, channels: int, embedding_size: int) -> None:
        super().__init__()
        self.style = nn.Linear(embedding_size, 2 * channels)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        """Normalise each channel of each sample, then apply one identity's style.

        Args:
            features: [B, C, h, w].
            style: [B, 2C] from `self.style`: first half scale (around 0), second half shift.

        Returns:
            [B, C, h, w] in the dtype of `features`; statistics are taken in float32 at least.
        """
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        mean = wide.mean(dim=(2, 3), keepdim=True)
        # Deviations from the mean add up to nothing, so the mean needs no gradient here. On a CPU this is faster by a
        # third than torch.var_mean; instance_norm has wrong gradients for one sample in channels_last (torch 2.13).
        deviation = wide - mean.detach()
        variance = (deviation * deviation).mean(dim=(2, 3), keepdim=True)
        scale, shift = style.to(wide.dtype)[:, :, None, None].chunk(2, dim=1)
        gain = (scale + 1.0) * torch.rsqrt(variance + _EPSILON)
        return torch.addcmul((shift - mean * gain).to(features.dtype), features, gain.to(features.dtype))


class IDInjectionBlock(nn.Module):
    """A residual block whose two normalisations carry the source's identity (the paper's ID-Block)."""

    def __init__(self, channels: int, embedding_size: int) -> None:
        super().__init__()
        self.conv1 = ReflectConv2d(channels, channels, 3, padding=1)
        self.adain1 = InstanceAdaIN(channels, embedding_size)
        self.conv2 = ReflectConv2d(channels, channels, 3, padding=1)
        self.adain2 = InstanceAdaIN(channels, embedding_size)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """[B, C, h, w] features and [B, 2, 2C] styles to [B, C, h, w]."""
        inner = F.relu(self.adain1(self.conv1(features), styles[:, 0]))
        injected: Tensor = self.adain2(self.conv2(inner), styles[:, 1])
        return features + injected


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, reflect: bool = False) -> nn.Sequential:
    kind = ReflectConv2d if reflect else nn.Conv2d
    conv = kind(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Generator(nn.Module):
    """Target crop and source identity in, swapped crop out; any shape that `ModelConfig` describes.

    `forward`, `render` and `styles` speak RGB 0..1 whatever convention the weights were trained
    with; `network` is the bare network in the weights' own pixel space.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        widths = config.widths
        pairs = list(itertools.pairwise(widths))
        self.first = _conv_norm(3, widths[0], 7, reflect=True)
        self.down = nn.ModuleList(_conv_norm(a, b, 3, stride=2) for a, b in pairs)
        if config.positions:
            side = config.crop_size // 2 ** len(pairs)
            self.positions = nn.Parameter(torch.zeros(1, widths[-1], side, side))
        self.blocks = nn.ModuleList(IDInjectionBlock(widths[-1], config.embedding_size) for _ in range(config.blocks))
        self.up = nn.ModuleList(_conv_norm(b, a, 3) for a, b in reversed(pairs))
        self.last = ReflectConv2d(widths[0], 4 if config.mask else 3, 7, padding=3)
        if config.mask:
            nn.init.constant_(cast(Tensor, self.last.bias)[3:], _DRAWN)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, target: Tensor, embedding: Tensor) -> Tensor:
        """Swap.

        Args:
            target: [B, 3, S, S] RGB 0..1.
            embedding: [B, E] unit length, the sources.

        Returns:
            [B, 3, S, S] RGB 0..1; in training mode the imagenet convention may reach outside.
        """
        return self.render(target, self.styles(embedding))

    def styles(self, embedding: Tensor) -> Tensor:
        """Scale and shift of every AdaIN for each source: [B, E] to [B, blocks, 2, 2C]."""
        per_block = [
            torch.stack([block.adain1.style(embedding), block.adain2.style(embedding)], dim=1)
            for block in self.blocks
            if isinstance(block, IDInjectionBlock)
        ]
        return torch.stack(per_block, dim=1)

    def render(self, target: Tensor, styles: Tensor) -> Tensor:
        """Swap with styles computed before: [B, 3, S, S] RGB 0..1 and [B, blocks, 2, 2C] to [B, 3, S, S] RGB 0..1."""
        if self.config.convention == "unit":
            return self.network(target, styles)
        result = self.network((target - self.mean) / self.std, styles) * self.std + self.mean
        return result if self.training else result.clamp(0.0, 1.0)  # a clamped pixel would learn nothing

    def network(self, target: Tensor, styles: Tensor) -> Tensor:
        """The bare network: target and result in the weights' own pixel space (see `ModelConfig.convention`)."""
        features = self._run(self.first, target)
        for stage in self.down:
            features = self._run(stage, features)
        if self.config.positions:
            features = features + self.positions.to(features.dtype)
        for index, block in enumerate(self.blocks):
            features = self._run(block, features, styles[:, index])
        for stage in self.up:
            features = self._run(stage, _doubled(features))
        last = self.last(features)
        pixels = (torch.tanh(last[:, :3]) + 1.0) / 2.0 if self.config.convention == "unit" else last[:, :3]
        return target + torch.sigmoid(last[:, 3:]) * (pixels - target) if self.config.mask else pixels

    def compile_stages(self) -> None:
        """Compile every stage by itself (torch.compile): the blocks share their code, so all of them cost one."""
        for stage in [self.first, *self.down, *self.blocks, *self.up]:
            stage.compile()

    def _run(self, stage: nn.Module, *inputs: Tensor) -> Tensor:
        """One stage; with activation checkpointing its inside is computed again going back instead of kept."""
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return cast(Tensor, stage(*inputs))
        again = checkpoint(stage, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _unrecorded(stage)))
        return cast(Tensor, again)

    def fuse(self) -> Generator:
        """Fold every BatchNorm into its convolution, in place; for inference only.

        Raises:
            RuntimeError: the generator is in training mode.
        """
        if self.training:
            raise RuntimeError("Generator.fuse: only in eval mode")
        for stage in [self.first, *self.down, *self.up]:
            if isinstance(stage, nn.Sequential) and isinstance(stage[1], nn.BatchNorm2d):
                stage[0] = fuse_conv_bn_eval(cast(nn.Conv2d, stage[0]), stage[1])
                stage[1] = nn.Identity()
        return self


def extended(generator: Generator, config: ModelConfig) -> Generator:
    """A copy with those of `EXTRAS` that `config` asks for: a mask, at first nearly open; positions, at first zeros."""
    copy = Generator(config).train(generator.training)
    weights = copy.state_dict() | generator.state_dict()
    if config.mask and not generator.config.mask:
        for name, start in (("last.weight", 0.0), ("last.bias", _DRAWN)):
            weights[name] = torch.cat([weights[name], torch.full_like(weights[name][:1], start)])
    copy.load_state_dict(weights)
    return copy


def _doubled(features: Tensor) -> Tensor:
    """[B, C, h, w] to [B, C, 2h, 2w] in one dtype: autocast would widen it, for a convolution to narrow it again."""
    with torch.autocast(features.device.type, enabled=False):
        return F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


@contextmanager
def _unrecorded(stage: nn.Module) -> Iterator[None]:
    """Leave the running statistics of BatchNorm as they are: they were recorded the first time."""
    norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, count in before:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def initialised(config: ModelConfig, seed: int = 0) -> Generator:
    """A generator with untrained weights that depend on the seed alone, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config).eval()
