"""Frames to an encoded part of a video, which joins other parts without another encoding."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import cast

import av
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from pipeline.config import EncoderConfig
from pipeline.errors import ConfigError
from pipeline.media.scheduling import ordinary_threads
from pipeline.media.video import VideoInfo

SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
_HARDWARE = {"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"}
_JPEG_FORMATS = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p"}
_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_IN_ORDER = 2
"""So few frames are decoded as they are shown. libx265 4.2 gives them what memory held as their decoding times."""
PART_OPTIONS = {"movie_timescale": "90000"}
"""Of the MP4 that holds a part: with it, start times survive exactly."""


def check_encoder(settings: EncoderConfig) -> str:
    """The encoder that will be used, by FFmpeg's name.

    Raises:
        ConfigError: a preset or a pixel format that it does not have.
    """
    name = SOFTWARE[settings.codec]
    allowed = [str(n) for n in range(14)] if settings.codec == "av1" else list(_PRESETS)
    if settings.preset not in allowed:
        raise ConfigError(f"videos.encoder.preset: {settings.preset}", f"not one of {', '.join(allowed)}")
    formats = [f.name for f in av.Codec(name, "w").video_formats or ()]
    if settings.pixel_format is not None and settings.pixel_format not in formats:
        problem = f"{name} has {', '.join(formats)}"
        raise ConfigError(f"videos.encoder.pixel_format: {settings.pixel_format}", problem)
    if settings.hardware and _opens(_HARDWARE[settings.codec]):
        return _HARDWARE[settings.codec]
    return name


def _opens(name: str) -> bool:
    """Whether an encoder works on this machine; being compiled in is not enough."""
    try:
        context = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"  # type: ignore[attr-defined]
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def choose_pixel_format(settings: EncoderConfig, info: VideoInfo) -> tuple[str, str]:
    """The pixel format of the result, and a note where it is not the video's own."""
    own = _JPEG_FORMATS.get(info.pixel_format, info.pixel_format)
    formats = [f.name for f in av.Codec(SOFTWARE[settings.codec], "w").video_formats or ()]
    wanted = settings.pixel_format or (own if own in formats else _nearest(own, formats))
    odd = bool(info.width % 2 or info.height % 2)
    if odd and "420" in wanted and settings.codec != "av1":
        wanted = wanted.replace("420", "444")
    elif odd and "422" in wanted:
        wanted = wanted.replace("422", "444")
    if wanted == own:
        return wanted, ""
    why = f"{settings.codec} cannot hold {own} of {info.width}x{info.height}"
    return wanted, f"Pixel format {own} became {wanted}{'' if settings.pixel_format else f': {why}'}."


def _nearest(own: str, formats: list[str]) -> str:
    """No less depth and no less colour, where the encoder has that."""
    theirs = av.VideoFormat(own)
    depth = max(component.bits for component in theirs.components)
    wants = ["yuv420p"]
    if depth > 8:
        wants = ["yuv420p10le", "yuv420p"]
    elif theirs.is_rgb or "444" in own:
        wants = ["yuv444p", "yuv420p"]
    elif "422" in own:
        wants = ["yuv422p", "yuv444p", "yuv420p"]
    return next(name for name in [*wants, *formats] if name in formats)


def encode(path: str, frames: Iterable[VideoFrame], info: VideoInfo, settings: EncoderConfig, threads: int = 1) -> int:
    """Encode frames with the times that they have.

    Args:
        path: of the MP4 to write.
        frames: of one span, in the order they are shown, in the video's pixel format.
        info: of the video.
        settings: codec and quality.
        threads: of the encoder.

    Returns:
        How many frames were written. Without any, no file is written.
    """
    count, container, stream = 0, None, None
    pixel_format, _ = choose_pixel_format(settings, info)
    try:
        for frame in frames:
            if stream is None or container is None:
                container = av.open(path, "w", format="mp4", container_options=dict(PART_OPTIONS))
                stream = _stream(container, frame, info, settings, pixel_format, threads)
                with ordinary_threads():
                    container.start_encoding()
            ready = frame if frame.format.name == pixel_format else _converted(frame, pixel_format)
            ready.pict_type = PictureType.NONE  # the original's choice would be forced on the encoder
            container.mux(stream.encode(ready))
            count += 1
        if stream is not None and container is not None:
            rest = stream.encode()
            for packet in rest if count <= _IN_ORDER else ():
                packet.dts = packet.pts
            container.mux(rest)
    finally:
        if container is not None:
            container.close()
    return count


def _converted(frame: VideoFrame, pixel_format: str) -> VideoFrame:
    ready = frame.reformat(format=pixel_format)
    ready.pts, ready.time_base = frame.pts, frame.time_base
    return ready


def _stream(
    container: OutputContainer,
    first: VideoFrame,
    info: VideoInfo,
    settings: EncoderConfig,
    pixel_format: str,
    threads: int,
) -> VideoStream:
    name = check_encoder(settings)
    stream = cast(VideoStream, container.add_stream(name, info.rate or 25, options=_options(name, settings, info)))
    context = stream.codec_context
    stream.width, stream.height, stream.pix_fmt = info.width, info.height, pixel_format
    stream.time_base = context.time_base = info.time_base
    context.sample_aspect_ratio = info.sample_aspect
    context.thread_count = threads
    context.color_range, context.colorspace = int(first.color_range), int(first.colorspace)
    context.color_primaries, context.color_trc = int(first.color_primaries), int(first.color_trc)
    return stream


def _options(name: str, settings: EncoderConfig, info: VideoInfo) -> dict[str, str]:
    quality = {"cq": str(settings.crf), "rc": "vbr"} if "nvenc" in name else {"crf": f"{settings.crf:g}"}
    options = quality | ({"preset": settings.preset} if "nvenc" not in name else {})
    if info.interlaced and name == "libx264":
        options["x264-params"] = "interlaced=1"
    if name == "libx265":
        options["x265-params"] = "log-level=error" + (":interlace=tff" if info.interlaced else "")
    if name == "libsvtav1":
        options["crf"] = str(round(settings.crf))
    return options
