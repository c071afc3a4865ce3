"""Small videos of every awkward kind, made when a test asks. Every frame carries its number as a row of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

BITS = 8
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class VideoKind:
    """What a test video is like.

    Attributes:
        frames: how many.
        size: width, height.
        codec: of FFmpeg.
        pixel_format: of FFmpeg.
        rate: frames a second.
        pts: times in ticks of `time_base`; None is one a frame.
        time_base: seconds of a tick; None is one over the rate.
        options: of the encoder.
        audio: how many streams of a tone.
        rotation: display rotation, degrees anticlockwise.
        aspect: width over height of a pixel.
        subtitles: whether a stream of subtitles goes along (Matroska).
        colours: range, matrix, primaries, transfer, as FFmpeg's numbers.
        chapters: whether there are two.
        attachment: whether a file is attached (Matroska).
    """

    frames: int = 30
    size: tuple[int, int] = (128, 96)
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    rate: Fraction = Fraction(25)
    pts: Sequence[int] | None = None
    time_base: Fraction | None = None
    options: tuple[tuple[str, str], ...] = (("crf", "10"), ("g", "12"), ("preset", "ultrafast"))
    audio: int = 0
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    subtitles: bool = False
    colours: tuple[int, int, int, int] | None = None
    chapters: bool = False
    attachment: bool = False


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: a drifting gradient, and the number as black and white blocks at the top left."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([(x + 2 * number) % 256, (y * 2 + number) % 256, (x + y) % 256], 2).astype(np.uint8)
    image = image // 2 + 64
    for bit in range(BITS):
        image[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 235 if number >> bit & 1 else 16
    return image


def number_of(frame: VideoFrame) -> int:
    """The number that a frame carries."""
    pixels = frame.to_ndarray(format="rgb24")
    blocks = [pixels[2 : _BLOCK - 2, bit * _BLOCK + 2 : (bit + 1) * _BLOCK - 2].mean() > 128 for bit in range(BITS)]
    return sum(int(block) << bit for bit, block in enumerate(blocks))


Draw = Callable[[int, int, int], NDArray[np.uint8]]


def make_video(path: Path, kind: VideoKind = VideoKind(), draw: Draw = picture) -> Path:
    """Write a video; the path's suffix decides the container.

    Args:
        path: of the file.
        kind: what it is like.
        draw: makes frame `number` of a width and a height, [H, W, 3] RGB.
    """
    base = kind.time_base or 1 / kind.rate
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(kind.codec, kind.rate, options=dict(kind.options)))
        stream.width, stream.height = kind.size
        stream.pix_fmt = kind.pixel_format
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.sample_aspect_ratio = kind.aspect
        if kind.colours is not None:
            context = stream.codec_context
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = kind.colours
        if kind.rotation:
            stream.set_display_rotation(kind.rotation)
        tones = [container.add_stream("aac", rate=48000) for _ in range(kind.audio)]
        if kind.subtitles:
            _say(container, path)
        if kind.attachment:
            container.add_attachment("note.txt", "text/plain", b"attached")
        if kind.chapters:
            half = Fraction(kind.frames, 2) / kind.rate * 1000
            marks = (0, int(half), int(2 * half))
            container.set_chapters(
                [
                    {"id": n, "start": marks[n], "end": marks[n + 1], "time_base": Fraction(1, 1000),
                     "metadata": {"title": f"part {n}"}}
                    for n in range(2)
                ]
            )  # fmt: skip
        container.metadata["title"] = "a test"
        for number in range(kind.frames):
            frame = VideoFrame.from_ndarray(draw(number, *kind.size), format="rgb24")
            frame = frame.reformat(format=kind.pixel_format)
            frame.pts, frame.time_base = (kind.pts[number] if kind.pts else number), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for index, tone in enumerate(tones):
            _sing(container, tone, float(kind.frames / kind.rate), 220 * (index + 1))
    return path


def _sing(container: OutputContainer, stream: AudioStream, seconds: float, hertz: int) -> None:
    for start in range(0, int(seconds * 48000), 1024):
        time = (start + np.arange(1024)) / 48000
        samples = (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[None]
        frame = AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _say(container: OutputContainer, path: Path) -> None:
    words = path.with_suffix(".srt")
    words.write_text("1\n00:00:00,100 --> 00:00:00,400\nhello\n\n2\n00:00:00,500 --> 00:00:00,900\nyou\n")
    with av.open(str(words)) as spoken:
        stream = container.add_stream_from_template(spoken.streams[0])
        for packet in spoken.demux():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    words.unlink()
