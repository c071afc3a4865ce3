"""Frames of a span of a video, exactly: each frame of the file is in one span."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import av
import cv2
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.video import FOREVER, REMUX, Span, VideoInfo, open_video, probe

_FIRST_STEP_BACK_S = 1.0
"""How much earlier to look when a seek landed after the span's begin; doubled each time."""

_MISSING_S = 0.5
"""What may be missing at the end: containers round, and count the length of the sound."""

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def decode(path: str, item: str, info: VideoInfo, span: Span, threads: int = 1) -> Iterator[VideoFrame]:
    """The frames of a span, in the order they are shown, with their own times.

    Args:
        path: of the file.
        item: its name in errors.
        info: from `probe`.
        span: from `cut`.
        threads: of the decoder.

    Raises:
        ItemError: damaged in the span, times that do not rise, or pictures of another size or format than the first.
    """
    with open_video(path, item) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        last = None
        try:
            for frame in _from(container, stream, span.begin, info):
                _check(frame, info, last, item)
                last = cast(int, frame.pts)
                if last >= span.end:
                    return
                if last >= span.begin:
                    yield frame
            _check_end(last, info, item)
        except av.FFmpegError as error:
            at = "" if last is None else f" after {float((last - info.start) * info.time_base):.2f} s"
            raise UnreadableError(item, f"is damaged{at} ({error.strerror})", "Repair it or cut it there") from error


def _from(container: InputContainer, stream: VideoStream, begin: int, info: VideoInfo) -> Iterator[VideoFrame]:
    """All frames from a tick on, and a few before it: decoding begins at a key frame that is shown no later."""
    if begin == -FOREVER:
        yield from container.decode(stream)
        return
    back = 0.0
    while True:
        target = begin - int(back / float(info.time_base))
        if target <= info.start:
            container.seek(min(info.start, *info.keyframes[:1]) if info.keyframes else info.start, stream=stream)
        else:
            container.seek(target, stream=stream)
        frames = container.decode(stream)
        first = next(frames, None)
        if target <= info.start or (first is not None and first.pts is not None and first.pts <= begin):
            if first is not None:
                yield first
            yield from frames
            return
        back = max(2 * back, _FIRST_STEP_BACK_S)


def _check(frame: VideoFrame, info: VideoInfo, last: int | None, item: str) -> None:
    if frame.pts is None:
        raise RefusedInputError(item, "a frame has no time", REMUX, "no_times")
    if last is not None and frame.pts <= last:
        problem = f"its times go back from tick {last} to {frame.pts}"
        raise RefusedInputError(item, problem, REMUX, "bad_times")
    if (frame.width, frame.height, frame.format.name) != (info.width, info.height, info.pixel_format):
        seconds = float((frame.pts - info.start) * info.time_base)
        was, now = (
            f"{info.width}x{info.height} {info.pixel_format}",
            f"{frame.width}x{frame.height} {frame.format.name}",
        )
        raise RefusedInputError(item, f"changes from {was} to {now} at {seconds:.2f} s", "Cut it there", "size_changes")


def _check_end(last: int | None, info: VideoInfo, item: str) -> None:
    """FFmpeg takes a file that was cut off for one that ends."""
    missing = float((info.end - (info.start if last is None else last)) * info.time_base)
    if missing > _MISSING_S + (2.0 / float(info.rate) if info.rate else 0.0):
        problem = f"ends {missing:.1f} s before the {info.seconds:.1f} s that it promises"
        raise UnreadableError(item, problem, "Fetch it again: it was cut off", "truncated")


def shown(frame: VideoFrame, info: VideoInfo) -> Tensor:
    """[3, H, W] u8 RGB as a player shows it: upright, pixels square."""
    pixels = frame.to_ndarray(format="rgb24")
    if info.rotation in _TURNS:
        pixels = cv2.rotate(pixels, _TURNS[info.rotation])
    if info.sample_aspect != 1:
        pixels = cv2.resize(pixels, info.shown, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def spread_frames(path: str, item: str, count: int) -> Iterator[tuple[float, Tensor]]:
    """Frames spread evenly over a video, as a player shows them.

    Args:
        path: of the file.
        item: its name in errors.
        count: how many; a shorter video gives fewer.

    Yields:
        Seconds since the video's begin, and [3, H, W] u8 RGB.

    Raises:
        ItemError: the video cannot be read.
    """
    info, seen = probe(path, item), set[int]()
    for number in range(count):
        wanted = info.start + int((info.end - info.start) * (number + 0.5) / count)
        frame = next(decode(path, item, info, Span(wanted, FOREVER)), None)
        if frame is not None and frame.pts is not None and frame.pts not in seen:
            seen.add(frame.pts)
            yield float((frame.pts - info.start) * info.time_base), shown(frame, info)


def middle_frame(path: str, item: str) -> Tensor:
    """[3, H, W] u8 RGB: the first frame at or after the middle of a video, as a player shows it.

    Raises:
        ItemError: the video cannot be read.
    """
    info = probe(path, item)
    middle = Span((info.start + info.end) // 2, FOREVER)
    frame = next(decode(path, item, info, middle), None) or next(decode(path, item, info, Span(-FOREVER, FOREVER)))
    return shown(frame, info)
