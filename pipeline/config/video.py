"""Settings of reading and writing videos."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.config.base import Cosine, Section, unit


class SegmentsConfig(Section):
    """How a video is cut into the units that workers process at once. Cuts cost nothing of the picture."""

    seconds: Annotated[PositiveFloat, unit("s")] = 10.0
    """Longest length; cuts are made at the last key frame before it, or right there if it is far away."""
    frames: PositiveInt = 300
    """Most frames in a segment, before the faces are counted."""
    crop_bytes: PositiveInt = 128 * 1024 * 1024
    """Most bytes of crops in a segment, which are in a worker's memory together: 0.15 MB a face at 224 px."""
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


class TracksConfig(Section):
    """Following people from frame to frame."""

    max_gap_s: NonNegativeFloat = 0.5
    """Longest time that a face may be missed and still be the same track; its place is interpolated meanwhile."""
    min_overlap: Annotated[float, Field(gt=0.0, le=1.0), unit("fraction")] = 0.3
    """Overlap (intersection over union) with where a track expects its face, from which on they belong together."""
    different_cosine: Cosine = -0.1
    """Cosine of embeddings below which overlapping faces are two people all the same."""
    same_cosine: Cosine = 0.4
    """Cosine from which on faces that do not overlap are one person, within `reach`."""
    reach: Annotated[PositiveFloat, unit("face sizes")] = 1.5
    """How far a face may jump between two frames, in its own size."""
    person_cosine: Cosine = 0.4
    """Mean cosine of tracks' embeddings from which on they show one person."""
    shot_change: Annotated[float, Field(gt=0.0, le=1.0), unit("fraction")] = 0.12
    """Mean change of all pixels, 0..1, from which on a frame may begin a new shot; a shot ends all tracks."""


class SmoothingConfig(Section):
    """Steadying landmarks over time (One Euro filter, in both directions, so that nothing lags)."""

    enabled: bool = True
    """Off: landmarks as the detector found them."""
    cutoff_hz: PositiveFloat = 0.8
    """Cutoff frequency for a face that keeps still; lower is steadier."""
    speed_gain: Annotated[NonNegativeFloat, unit("Hz per face height a second")] = 3.0
    """How much a moving face raises the cutoff: hertz for each face height (eyes to mouth) a second."""
    speed_cutoff_hz: PositiveFloat = 1.0
    """Cutoff frequency for the speed itself."""


class VideosConfig(Section):
    """Reading and writing videos, and following people through them."""

    segments: SegmentsConfig = SegmentsConfig()
    encoder: EncoderConfig = EncoderConfig()
    tracks: TracksConfig = TracksConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    ease_s: NonNegativeFloat = 0.12
    """Time in which a result fades in and out where a track begins or ends in the middle of a shot."""
    copy_untouched: bool = False
    """Copy the packets of segments in which nothing changes, where the codec is the result's and they can be decoded
    alone, instead of encoding them again."""
