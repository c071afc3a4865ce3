"""Encoded parts of a video and everything else of the original to one file, without another encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from heapq import merge
from pathlib import PurePosixPath
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from pipeline.errors import RefusedInputError
from pipeline.media.video import VideoInfo, open_container, open_video
from pipeline.media.video_copying import parameter_sets

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Containers that hold every codec that is written here."""

_OPTIONS = {
    "mp4": {"movie_timescale": "90000", "movflags": "+faststart+use_metadata_tags"},
    "mov": {"movie_timescale": "90000"},
}

_ENCODED = frozenset({"h264", "hevc"})
"""Decoders whose name an encoder has too; others' streams (AV1: libdav1d) are made without looking for one."""

_OWN_TAGS = frozenset({"encoder"})
"""Tags that are not carried over: they would no longer be true."""


def result_name(item: str) -> str:
    """What the result of a video is called: the same, or .mkv where its container cannot hold the result."""
    path = PurePosixPath(item)
    return item if path.suffix.lower() in _FORMATS else f"{item}.mkv"


def join(
    original: str, item: str, info: VideoInfo, parts: Sequence[str], output: str, pictures: bool = True
) -> list[str]:
    """Write a video of encoded parts, with all other streams, chapters and tags of the original.

    Args:
        original: path of the video that was swapped.
        item: its name in errors.
        info: of the original.
        parts: MP4s from `encode`, in order; at least one.
        output: path to write; its suffix decides the container.
        pictures: whether further video streams, cover pictures and attached files come along.

    Returns:
        Notes on what could not be kept, whole sentences.

    Raises:
        RefusedInputError: the container refuses a stream's packets.
    """
    kind = _FORMATS[PurePosixPath(output).suffix.lower()]
    notes: list[str] = []
    with ExitStack() as stack:
        source, video = stack.enter_context(open_video(original, item))
        target = stack.enter_context(av.open(output, "w", format=kind, container_options=dict(_OPTIONS.get(kind, {}))))
        first = stack.enter_context(av.open(parts[0]))
        target.metadata.update(source.metadata)
        streams = _streams(original, source, video, target, first.streams.video[0], info, notes, pictures)
        _chapters(source, target, notes)
        try:
            for packet in _interleaved(source, video, parts, streams):
                target.mux(packet)
        except av.FFmpegError as error:
            problem = f"{kind} refuses a packet ({error.strerror})"
            raise RefusedInputError(
                item, problem, "Remux it as .mkv, which holds everything", "not_writable"
            ) from error
    return notes


def _streams(
    original: str,
    source: InputContainer,
    video: VideoStream,
    target: OutputContainer,
    encoded: VideoStream,
    info: VideoInfo,
    notes: list[str],
    pictures: bool,
) -> dict[int, Stream]:
    """Streams of the result by the original's index, in the original's order."""
    streams: dict[int, Stream] = {}
    for stream in source.streams:
        if stream.discard == Discard.all:  # the text of chapters, which are read as chapters
            continue
        if stream is not video and not pictures and stream.type in ("video", "attachment"):
            notes.append(f"Stream {stream.index} ({stream.type}) was left out: it may show the originals.")
            continue
        if isinstance(stream, VideoStream) and not stream.codec_context.width:
            notes.append(f"Stream {stream.index} (video) could not be kept: it holds no picture.")
            continue
        if target.format.name == "matroska" and stream.disposition & Disposition.attached_pic:
            _attach(original, stream, target)  # else it would become a track of one frame
            continue
        made: Stream
        if stream is video:
            picture = target.add_stream_from_template(encoded, opaque=encoded.codec_context.name not in _ENCODED)
            picture.time_base = info.time_base
            if info.rotation:
                picture.set_display_rotation(info.rotation)
            made = picture
        else:
            try:
                made = target.add_stream_from_template(stream, opaque=stream.type not in ("audio", "video", "subtitle"))
            except (av.FFmpegError, ValueError) as error:
                said = str(getattr(error, "strerror", None) or error)
                notes.append(f"Stream {stream.index} ({stream.type}) could not be kept: {said}.")
                continue
        made.metadata.update({k: v for k, v in stream.metadata.items() if k not in _OWN_TAGS})
        made.disposition = stream.disposition
        streams[stream.index] = made
    return streams


def _attach(path: str, cover: Stream, target: OutputContainer) -> None:
    """A cover picture as Matroska has it: a file."""
    with open_container(path) as again:
        data = bytes(next(again.demux(again.streams[cover.index])))
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    target.add_attachment(cover.metadata.get("filename", f"cover.{kind[:3]}"), f"image/{kind}", data)


def _chapters(source: InputContainer, target: OutputContainer, notes: list[str]) -> None:
    chapters = source.chapters()
    if chapters:
        try:
            target.set_chapters(chapters)
        except (av.FFmpegError, ValueError) as error:
            notes.append(f"Chapters could not be kept: {error}.")


def _interleaved(
    source: InputContainer, video: VideoStream, parts: Sequence[str], streams: dict[int, Stream]
) -> Iterator[Packet[Any]]:
    """Packets of all streams in the order of their decoding times."""

    def others() -> Iterator[tuple[Fraction, int, Packet[Any]]]:
        kept = [stream for stream in source.streams if stream.index in streams and stream is not video]
        last = Fraction(-1 << 40)
        for packet in source.demux(*kept) if kept else ():
            if packet.size == 0 and packet.dts is None:
                continue
            time = packet.dts if packet.dts is not None else packet.pts
            last = last if time is None else max(last, time * packet.time_base)
            index = packet.stream.index
            packet.stream = streams[index]
            yield last, 1, packet

    def encoded() -> Iterator[tuple[Fraction, int, Packet[Any]]]:
        for packet in _part_packets(parts):
            time = Fraction(packet.dts or 0) * packet.time_base
            packet.stream = streams[video.index]
            yield time, 0, packet

    for _, _, packet in merge(encoded(), others(), key=lambda entry: entry[:2]):
        yield packet


def _part_packets(parts: Sequence[str]) -> Iterator[Packet[Any]]:
    """All video packets with decoding times that rise over the borders of parts."""
    shown, delay = _times(parts)
    sorted_times = sorted(shown)
    step = max(sorted_times[1] - sorted_times[0], 1) if len(sorted_times) > 1 else 1
    number, mixed = 0, _mixed(parts)
    for part in parts:
        with av.open(part) as container:
            sets = parameter_sets(container.streams.video[0]) if mixed else None
            for packet in container.demux(container.streams.video[0]):
                if packet.size == 0:
                    continue
                at = number - delay
                packet.dts = sorted_times[at] if at >= 0 else sorted_times[0] + at * step
                number += 1
                yield packet if sets is None or not packet.is_keyframe else _with_sets(packet, sets)


def _mixed(parts: Sequence[str]) -> bool:
    """Whether the parts have other parameter sets, as copied and encoded ones do: then pictures must bring them."""
    held = set[bytes]()
    for part in parts:
        with av.open(part) as container:
            held.add(bytes(container.streams.video[0].codec_context.extradata or b""))
    return len(held) > 1


def _with_sets(packet: Packet[Any], sets: bytes) -> Packet[Any]:
    made: Packet[Any] = Packet(sets + bytes(packet))
    made.pts, made.dts, made.duration, made.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    made.is_keyframe = True
    return made


def _times(parts: Sequence[str]) -> tuple[list[int], int]:
    """Times at which the packets are shown, in decoding order, and by how many frames decoding must run ahead."""
    shown: list[int] = []
    for part in parts:
        with av.open(part) as container:
            shown += [p.pts for p in container.demux(container.streams.video[0]) if p.size and p.pts is not None]
    place = {tick: number for number, tick in enumerate(sorted(shown))}
    return shown, max(number - place[tick] for number, tick in enumerate(shown)) if shown else 0
