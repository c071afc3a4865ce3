"""Videos at a glance: what a file holds, learnt without decoding it, and the spans that it is worked on in.

All times are ticks of the video stream's own time base, as the file has them: nothing is rounded to frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePosixPath

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.config import SegmentsConfig
from pipeline.errors import RefusedInputError, StoreError, UnreadableError
from pipeline.media.addresses import absolute, is_local
from pipeline.media.stretch import is_stretch, open_anywhere
from pipeline.types import Floats

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"}
)

_ONLY = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,dv"}
"""What FFmpeg may take a file for: containers. Others, as its text files that name further files, are unreadable."""

FOREVER = 1 << 62
"""Tick that no video reaches."""

REMUX = "Remux it with ffmpeg -fflags +genpts"
"""What mends times that are missing or wrong."""

_PROBED_BYTES = 1 << 20  # read at once: few requests where files are far away


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before it is decoded.

    Attributes:
        width: of the coded picture, pixels.
        height: of the coded picture, pixels.
        rotation: degrees anticlockwise that a player turns it by: 0, 90, 180 or 270.
        sample_aspect: width over height of one pixel.
        time_base: seconds of one tick.
        start: presentation time of the first frame, ticks.
        end: where the container says it ends, ticks; `start` where it says nothing.
        frames: how many there are by the container; 0 where it says nothing.
        rate: mean frames a second, or None.
        codec: name of the video codec.
        pixel_format: of the decoded frames, in FFmpeg's words.
        interlaced: whether frames hold two fields.
        keyframes: ascending ticks of frames that decoding can begin at (decoding time).
    """

    width: int
    height: int
    rotation: int
    sample_aspect: Fraction
    time_base: Fraction
    start: int
    end: int
    frames: int
    rate: Fraction | None
    codec: str
    pixel_format: str
    interlaced: bool
    keyframes: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Length; 0 where unknown."""
        return float((self.end - self.start) * self.time_base)

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height in square pixels as a player shows it, upright."""
        wide = max(round(self.width * self.sample_aspect), 1)
        return (self.height, wide) if self.rotation in (90, 270) else (wide, self.height)

    def to_shown(self) -> Floats:
        """[2, 3] affine that takes coded pixels (x, y, 1) to shown pixels; pixel areas scale, not pixel centres."""
        scale = round(self.width * self.sample_aspect) / self.width
        width, height = round(self.width * self.sample_aspect) - 1.0, self.height - 1.0
        move = scale * 0.5 - 0.5
        rows = {
            0: [[scale, 0, move], [0, 1, 0]],
            90: [[0, 1, 0], [-scale, 0, width - move]],
            180: [[-scale, 0, width - move], [0, -1, height]],
            270: [[0, -1, height], [scale, 0, move]],
        }
        return np.array(rows[self.rotation], np.float32)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a video: the frames with `begin <= pts < end`, ticks."""

    begin: int
    end: int


def is_video(item: str) -> bool:
    """Whether a file is taken for a video: by its suffix."""
    return PurePosixPath(item).suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def open_video(path: str, item: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream that is no cover picture.

    Args:
        path: of the file, or its address in a store.
        item: its name in errors.

    Raises:
        ItemError: it cannot be read, or has no video.
    """
    try:
        container = open_container(path)
    except StoreError as error:
        raise UnreadableError(item, f"cannot be read: {error.problem}", error.mend, code="store_error") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(item, error) from error
    with container:
        pictures = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
        if not streams:
            raise RefusedInputError(item, "has no video stream", code="no_video", status="skipped")
        yield container, streams[0]


def open_container(path: str) -> InputContainer:
    """A file on this machine or in a store, as FFmpeg reads it; large reads, since each may be a request."""
    file = absolute(path) if is_local(path) and not is_stretch(path) else open_anywhere(path)
    return av.open(file, "r", metadata_errors="replace", buffer_size=_PROBED_BYTES, container_options=_ONLY)


def unreadable(item: str, error: Exception) -> UnreadableError:
    """What FFmpeg says of a file, in one line."""
    said = str(getattr(error, "strerror", None) or error).splitlines()[0]
    return UnreadableError(item, f"cannot be read as a video ({said})", "Check the file with a player")


def probe(path: str, item: str) -> VideoInfo:
    """Learn what a video is; one frame is decoded.

    Raises:
        ItemError: it cannot be read, has no video, or no frame.
    """
    with open_video(path, item) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise unreadable(item, error) from error
        if first is None:
            raise RefusedInputError(item, "has no frame", code="no_frame")
        if first.pts is None or stream.time_base is None:
            raise RefusedInputError(
                item, "its frames have no times", "Remux it with ffmpeg -fflags +genpts", "no_times"
            )
        duration = stream.duration
        if duration is None and container.duration is not None:
            duration = int(Fraction(container.duration, av.time_base) / stream.time_base)
        return VideoInfo(
            width=first.width,
            height=first.height,
            rotation=round(first.rotation) % 360,
            sample_aspect=stream.sample_aspect_ratio or Fraction(1),
            time_base=stream.time_base,
            start=first.pts,
            end=first.pts + (duration or 0),
            frames=stream.frames,
            rate=stream.average_rate,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            interlaced=first.interlaced_frame,
            keyframes=tuple(_keyframes(container, stream)),
        )


def _keyframes(container: InputContainer, stream: VideoStream) -> list[int]:
    """From the container's index; where it has none, from one look at all packets."""
    index = [entry.timestamp for entry in stream.index_entries if entry.is_keyframe]
    if len(stream.index_entries) > 1 or stream.frames == 1:
        return index
    container.seek(0)
    return [packet.dts for packet in container.demux(stream) if packet.is_keyframe and packet.dts is not None]


def cut(info: VideoInfo, path: str, item: str, settings: SegmentsConfig) -> list[Span]:
    """Cut a video into spans, at key frames where there are some near enough.

    Together they hold every frame once, whatever the container says of the length: the first begins before and the last
    ends after any tick.

    Args:
        info: from `probe`.
        path: of the file; the times of the chosen key frames are read from it.
        item: its name in errors.
        settings: how long a span is.
    """
    if settings.count is not None:
        borders = np.linspace(info.start, max(info.end, info.start + 1), settings.count + 1)[1:-1]
        middle = [int(border) for border in borders]
    else:
        middle = _exact(_borders(info, settings), path, item)
    ticks = [-FOREVER, *sorted(set(middle)), FOREVER]
    return [Span(begin, end) for begin, end in pairwise(ticks)]


def _borders(info: VideoInfo, settings: SegmentsConfig) -> list[tuple[int, bool]]:
    """Ticks to cut at, and whether each is a key frame's."""
    seconds = settings.seconds
    if info.rate:
        seconds = min(seconds, settings.frames / float(info.rate))
    length = max(int(Fraction(seconds) / info.time_base), 1)
    borders, last = list[tuple[int, bool]](), info.start
    keyframes = [tick for tick in info.keyframes if tick > info.start]
    while last + 1.5 * length < info.end:
        near = [tick for tick in keyframes if last + 0.5 * length <= tick <= last + length]
        last = near[-1] if near else last + length
        borders.append((last, bool(near)))
    return borders


def _exact(borders: list[tuple[int, bool]], path: str, item: str) -> list[int]:
    """Index entries hold decoding times; a cut wants the time at which the key frame is shown."""
    ticks = []
    with open_video(path, item) as (container, stream):
        for tick, is_keyframe in borders:
            if is_keyframe:
                container.seek(tick, stream=stream)
                packet = next(container.demux(stream), None)
                tick = packet.pts if packet is not None and packet.pts is not None else tick
            ticks.append(tick)
    return ticks
