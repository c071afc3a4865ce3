"""A generator's architecture and pixel convention, and the published shapes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config.base import Section, Template, unit

Variant = Literal["inference-224", "inference-512", "trained-224", "trained-512"]


class ModelConfig(Section):
    """A generator's architecture and pixel convention; travels inside its checkpoint."""

    crop_size: Annotated[PositiveInt, unit("px")] = 224
    """Side S of the aligned crop, pixels; a multiple of 2 to the power of the number of down stages."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256, 512)
    """Channels at full resolution, then after each stride-2 down stage; the last is the bottleneck's. With one width
    the injection blocks work at full resolution: for crops so small that halving them would blur the result."""
    blocks: PositiveInt = 9
    """Number of ID injection blocks in the bottleneck (the paper uses 9)."""
    embedding_size: PositiveInt = 512
    """Length E of the identity embedding that drives the injection."""
    convention: Literal["unit", "imagenet"] = "unit"
    """`unit`: RGB 0..1 in, (tanh + 1) / 2 out. `imagenet`: ImageNet-normalised in, linear ImageNet-normalised out."""
    mask: bool = False
    """The last layer draws a mask beside the pixels, and what it leaves out stays the target's: sharp after few steps
    where nothing is to change. It is for a generator that draws well (`initial`; one without a mask is given one): from
    nothing, copying is soon better than what can be drawn, the mask closes, and nothing is swapped while it is shut.
    Ours; the paper draws everything anew."""
    positions: bool = False
    """A learned map is added to the bottleneck's features, so that the injection blocks know where in the aligned crop
    they are: they place the source's features where those belong instead of finding out how far to push the target's.
    Identity comes so easily then that `losses.identity` should be lower: results may stop looking at their target.
    Ours; the paper has none. A generator without one (`initial`) is given one of zeros."""
    template: Template = "arcface"
    """Alignment of the crops: `arcface` (five pose templates) up to 224 px, `ffhq` from 512 px."""

    @model_validator(mode="after")
    def _crop_fits_stages(self) -> Self:
        step = 2 ** (len(self.widths) - 1)
        if self.crop_size % step:
            fit = max(step, round(self.crop_size / step) * step)
            raise ValueError(f"crop_size: {self.crop_size} is not a multiple of {step}; {fit} would do")
        return self


VARIANTS: dict[Variant, ModelConfig] = {
    "inference-224": ModelConfig(),
    "inference-512": ModelConfig(crop_size=512, widths=(32, 64, 128, 256, 512), template="ffhq"),
    "trained-224": ModelConfig(convention="imagenet"),
    "trained-512": ModelConfig(crop_size=512, widths=(64, 128, 256, 512, 512), convention="imagenet", template="ffhq"),
}
"""The four published shapes of the SimSwap generator."""


class ImportConfig(Section):
    """Settings of `simswap import-checkpoint`."""

    variant: Variant
    """Which published shape and pixel convention the file has: two of them share their keys, so it must be said."""
    encoder: str
    """insightface pack whose recogniser trained the generator: a folder, or a name that insightface downloads."""


class ExportConfig(Section):
    """Settings of `simswap export`."""

    tolerance: PositiveFloat = 1e-3
    """Largest absolute difference (RGB 0..1) to torch that the exported network may show in onnxruntime."""
