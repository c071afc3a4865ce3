"""Packets of a span to a part of a video as they are, where they can be decoded without those around them."""

from __future__ import annotations

from typing import Any

import av
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.config import EncoderConfig
from pipeline.media.video import Span, VideoInfo, open_video
from pipeline.media.video_encoding import PART_OPTIONS, choose_pixel_format

_IDR = 5  # type of the H.264 unit that holds a picture after which nothing refers to earlier ones
_SETS = 7, 8  # sequence and picture parameter sets


def copy_span(
    path: str, item: str, info: VideoInfo, span: Span, part: str, settings: EncoderConfig, frames: int
) -> bool:
    """Copy the packets of a span, if they stand alone and fit the encoded parts beside them.

    That is so for H.264 of the result's pixel format from one IDR picture to the next, none of whose frames are shown
    beyond the span.

    Args:
        path: of the video.
        item: its name in errors.
        info: from `probe`.
        span: to copy.
        part: path of the MP4 to write.
        settings: of the encoded parts.
        frames: that the span has.

    Returns:
        Whether the part was written; if not, the span has to be encoded.

    Raises:
        ItemError: the video cannot be opened.
    """
    if (info.codec, settings.codec) != ("h264", "h264") or choose_pixel_format(settings, info)[0] != info.pixel_format:
        return False
    with open_video(path, item) as (container, stream):
        if parameter_sets(stream) is None:
            return False
        container.seek(max(span.begin, info.start), stream=stream)
        packets: list[Packet[Any]] = []
        for packet in container.demux(stream):
            if packet.size == 0:
                break
            if packet.is_keyframe and packet.pts is not None and packet.pts >= span.end:
                break
            packets.append(packet)
            if len(packets) > frames:
                return False
        if not _stand_alone(packets, span, frames):
            return False
        with av.open(part, "w", format="mp4", container_options=dict(PART_OPTIONS)) as target:
            made = target.add_stream_from_template(stream)
            for packet in packets:
                packet.stream = made
                target.mux(packet)
    return True


def _stand_alone(packets: list[Packet[Any]], span: Span, frames: int) -> bool:
    """Whether they are the whole span, no less and no more, from an IDR picture on."""
    inside = [p.pts is not None and span.begin <= p.pts < span.end for p in packets]
    return len(packets) == frames > 0 and all(inside) and _IDR in _units(bytes(packets[0]))


def _units(data: bytes) -> list[int]:
    """Types of the units of a picture, each with its length in 4 bytes before it."""
    kinds, at = list[int](), 0
    while at + 5 <= len(data):
        kinds.append(data[at + 4] & 0x1F)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return kinds if at == len(data) else []


def parameter_sets(stream: VideoStream) -> bytes | None:
    """The H.264 parameter sets of a stream, each with its length in 4 bytes before it, as they may go before a picture.

    None where the stream has none, or lays out its units otherwise. (ISO/IEC 14496-15, 5.3.3.1: `avcC`.)
    """
    box = bytes(stream.codec_context.extradata or b"")
    if len(box) < 7 or box[0] != 1 or box[4] & 3 != 3:
        return None
    sets, at = b"", 5
    for _ in ("sequence", "picture"):
        count, at = box[at] & 0x1F, at + 1
        for _ in range(count):
            unit = box[at + 2 : at + 2 + int.from_bytes(box[at : at + 2], "big")]
            if not unit or unit[0] & 0x1F not in _SETS or at + 2 + len(unit) > len(box):
                return None
            sets += len(unit).to_bytes(4, "big") + unit
            at += 2 + len(unit)
    return sets
