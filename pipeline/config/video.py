"""Settings of reading and writing videos."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.config.base import Section


class SegmentsConfig(Section):
    """How a video is cut into the units that workers process at once. Cuts cost nothing of the picture."""

    seconds: PositiveFloat = 10.0
    """Longest length; cuts are made at the last key frame before it, or right there if it is far away."""
    frames: PositiveInt = 300
    """Most frames in a segment, which bounds the memory of a worker."""
    count: PositiveInt | None = None
    """Cut every video into so many equal parts instead."""


class EncoderConfig(Section):
    """How swapped videos are encoded."""

    codec: Literal["h264", "hevc", "av1"] = "h264"
    """Codec of the result."""
    crf: Annotated[float, Field(ge=0.0, le=63.0)] = 17.0
    """Constant quality, lower is better: 17 is visually lossless in h264; add 3 for hevc, 8 for av1."""
    preset: str = "fast"
    """Speed of the encoder, `ultrafast` … `veryslow`; 0 … 13 for av1."""
    pixel_format: str | None = None
    """FFmpeg's name of the pixel format, such as yuv420p. None keeps the video's own, or the nearest the codec has."""
    hardware: bool = False
    """Use NVIDIA's encoder where the machine has one; where not, the software encoder, and the log says so."""


class VideosConfig(Section):
    """Reading and writing videos."""

    segments: SegmentsConfig = SegmentsConfig()
    encoder: EncoderConfig = EncoderConfig()
