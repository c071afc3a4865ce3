from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import AttachmentStream

from pipeline.config import EncoderConfig, SegmentsConfig
from pipeline.errors import ItemError
from pipeline.media.video import FOREVER, Span, cut, probe
from pipeline.media.video_decoding import decode, shown
from pipeline.media.video_encoding import encode
from pipeline.media.video_joining import join, result_name
from tests.videos import VideoKind, make_video, number_of

ENCODER = EncoderConfig(crf=10, preset="ultrafast")
CLIPS = (
    "dance_no_audio.mp4", "five_faces_640x360_audio.mp4", "one_face_audio.mp4", "one_face_sar15x16_audio.mp4",
    "one_face_tiny_audio.mp4", "three_faces_23.976fps_audio.mp4",
)  # fmt: skip
LARGE = ("one_face_sar15x16_audio.mp4", "three_faces_23.976fps_audio.mp4")

VFR = [0, 3, 4, 9, 10, 11, 30, 31, 33, 60, 61, 62, 90, 95, 96, 99, 120, 121, 122, 123, 124, 125, 140, 150]
KINDS: dict[str, tuple[str, VideoKind]] = {
    "plain": ("mp4", VideoKind(audio=1)),
    "b_frames": ("mp4", VideoKind(options=(("preset", "medium"), ("g", "12"), ("crf", "10")))),
    "open_gop": (
        "mp4",
        VideoKind(options=(("preset", "medium"), ("g", "10"), ("x264-params", "open-gop=1:bframes=3"))),
    ),
    "one_gop": ("mp4", VideoKind(options=(("preset", "medium"), ("g", "1000"), ("crf", "10")))),
    "vfr": ("mp4", VideoKind(frames=len(VFR), pts=VFR, time_base=Fraction(1, 100))),
    "late": ("mp4", VideoKind(pts=[n + 40 for n in range(30)], audio=1)),
    "rotated": ("mp4", VideoKind(rotation=90)),
    "wide_pixels": ("mp4", VideoKind(aspect=Fraction(4, 3))),
    "ten_bits": ("mkv", VideoKind(pixel_format="yuv420p10le", colours=(1, 9, 9, 16))),
    "full_range": ("mp4", VideoKind(pixel_format="yuvj420p", colours=(2, 6, 6, 6))),
    "odd": ("mkv", VideoKind(size=(127, 95), pixel_format="yuv444p")),
    "two_tones": ("mp4", VideoKind(audio=2)),
    "subtitles": ("mkv", VideoKind(subtitles=True, audio=1)),
    "chapters": ("mp4", VideoKind(chapters=True, audio=1)),
    "attachment": ("mkv", VideoKind(chapters=True, attachment=True)),
    "interlaced": (
        "mp4",
        VideoKind(options=(("preset", "ultrafast"), ("g", "12"), ("crf", "10"), ("x264-params", "interlaced=1"))),
    ),
    "one_frame": ("mp4", VideoKind(frames=1)),
    "two_frames": ("mov", VideoKind(frames=2)),
    "transport": ("ts", VideoKind(audio=1)),
    "old": ("avi", VideoKind(codec="mpeg4", options=())),
    "vp9": ("webm", VideoKind(codec="libvpx-vp9", options=(("deadline", "realtime"), ("cpu-used", "8")))),
    "ntsc": ("mp4", VideoKind(rate=Fraction(30000, 1001), audio=1)),
}


def rebuild(
    path: Path, segments: SegmentsConfig, folder: Path, encoder: EncoderConfig = ENCODER
) -> tuple[Path, list[str]]:
    """Through all of it and back, nothing swapped."""
    info = probe(str(path), path.name)
    parts = []
    for number, span in enumerate(cut(info, str(path), path.name, segments)):
        part = folder / f"part-{number}.mp4"
        if encode(str(part), decode(str(path), path.name, info, span), info, encoder):
            parts.append(str(part))
    output = folder / "out" / result_name(path.name)
    output.parent.mkdir(exist_ok=True)
    return output, join(str(path), path.name, info, parts, str(output))


def frames(path: Path) -> tuple[list[float], list[int]]:
    """Times in seconds and numbers of all frames."""
    info = probe(str(path), path.name)
    found = list(decode(str(path), path.name, info, Span(-FOREVER, FOREVER)))
    return [float((frame.pts or 0) * info.time_base) for frame in found], [number_of(frame) for frame in found]


def payload(packet: bytes) -> bytes:
    """Transport streams put a header of 7 bytes before every packet of AAC, other containers have it once."""
    return packet[7:] if packet[:2] == b"\xff\xf1" else packet


def packets(path: Path) -> list[tuple[str, list[tuple[float, bytes]]]]:
    """Kind, and times and bytes of all packets, of every stream but the first picture."""
    with av.open(str(path)) as container:
        rest = [stream for stream in container.streams if stream is not container.streams.video[0]]
        found: dict[int, list[tuple[float, bytes]]] = {stream.index: [] for stream in rest}
        for packet in container.demux(*rest) if rest else ():
            if packet.size:
                found[packet.stream.index].append((float((packet.pts or 0) * packet.time_base), payload(bytes(packet))))
        return [(stream.type, found[stream.index]) for stream in rest]


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_through_once_at_its_time_and_everything_else_untouched(
    name: str, count: int, tmp_path: Path
) -> None:
    suffix, kind = KINDS[name]
    path = make_video(tmp_path / f"{name}.{suffix}", kind)
    output, notes = rebuild(path, SegmentsConfig(count=count), tmp_path)
    before, after = frames(path), frames(output)
    assert after[1] == before[1] == list(range(kind.frames))
    assert after[0] == pytest.approx(before[0], abs=0.0011 if output.suffix == ".mkv" else 1e-9)  # Matroska: 1 ms
    old, new = packets(path), packets(output)
    assert [(k, [data for _, data in found]) for k, found in new] == [(k, [d for _, d in found]) for k, found in old]
    for (_, found), (_, expected) in zip(new, old, strict=True):
        assert [t for t, _ in found] == pytest.approx([t for t, _ in expected], abs=0.0011)
    assert notes == []


@pytest.mark.parametrize(("codec", "preset"), [("hevc", "ultrafast"), ("av1", "12")])
def test_other_codecs_keep_every_frame_and_time_too(codec: str, preset: str, tmp_path: Path) -> None:
    encoder = EncoderConfig.model_validate({"codec": codec, "preset": preset, "crf": 15})
    for name in ("b_frames", "vfr", "ten_bits", "rotated", "subtitles", "one_frame"):
        folder, (suffix, kind) = tmp_path / name, KINDS[name]
        folder.mkdir()
        path = make_video(folder / f"{name}.{suffix}", kind)
        output, notes = rebuild(path, SegmentsConfig(count=3), folder, encoder)
        before, after = frames(path), frames(output)
        assert after[1] == before[1]
        assert after[0] == pytest.approx(before[0], abs=0.0011)
        assert packets(path) == packets(output) or output.suffix == ".mkv"
        assert notes == []
        info = probe(str(output), output.name)
        assert info.codec in (codec, "libdav1d")
        assert info.rotation == kind.rotation


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_so_few_frames_that_none_is_reordered_have_their_times_too(codec: str, tmp_path: Path) -> None:
    encoder = EncoderConfig.model_validate({"codec": codec, "preset": "12" if codec == "av1" else "ultrafast"})
    for count in (1, 2, 3):
        path = str(make_video(tmp_path / f"{count}.mp4", VideoKind(frames=count)))
        info, part = probe(path, "a.mp4"), str(tmp_path / "part.mp4")
        for _ in range(8):  # what memory holds is not always wrong
            assert encode(part, decode(path, "a.mp4", info, Span(-FOREVER, FOREVER)), info, encoder) == count
            with av.open(part) as container:
                found = [
                    [float((tick or 0) * packet.time_base * (info.rate or 0)) for tick in (packet.dts, packet.pts)]
                    for packet in container.demux(video=0)
                    if packet.size
                ]
            assert sorted(at for _, at in found) == pytest.approx(list(range(count)))
            assert [decoded for decoded, _ in found] == sorted(decoded for decoded, _ in found)
            assert all(-3 < decoded < at + 0.01 for decoded, at in found)


@pytest.mark.parametrize("name", ["rotated", "wide_pixels", "ten_bits", "full_range", "odd", "ntsc", "interlaced"])
def test_what_a_picture_is_stays(name: str, tmp_path: Path) -> None:
    suffix, kind = KINDS[name]
    path = make_video(tmp_path / f"{name}.{suffix}", kind)
    output, _ = rebuild(path, SegmentsConfig(count=3), tmp_path)
    one, other = (probe(str(p), p.name) for p in (path, output))
    for field in ("width", "height", "rotation", "sample_aspect", "interlaced"):
        assert getattr(other, field) == getattr(one, field), field
    assert other.pixel_format.replace("yuvj", "yuv") == one.pixel_format.replace("yuvj", "yuv")
    colours = []
    for p in (path, output):
        with av.open(str(p)) as container:
            frame = next(container.decode(video=0))
            colours.append(
                [int(c) for c in (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)]
            )
            assert container.metadata["title"] == "a test"
    assert colours[0] == colours[1]


@pytest.mark.parametrize("name", ["chapters", "attachment"])
def test_chapters_and_attached_files_come_along(name: str, tmp_path: Path) -> None:
    suffix, kind = KINDS[name]
    path = make_video(tmp_path / f"{name}.{suffix}", kind)
    output, notes = rebuild(path, SegmentsConfig(count=2), tmp_path)
    held = []
    for p in (path, output):
        with av.open(str(p)) as container:
            chapters = [(c["start"] * float(c["time_base"] or 0), c["metadata"]["title"]) for c in container.chapters()]
            files = [(s.name, s.mimetype, s.data) for s in container.streams if isinstance(s, AttachmentStream)]
            held.append((chapters, files))
    assert held[0] == held[1]
    assert len(held[0][0]) == 2
    assert notes == []


@pytest.mark.parametrize("count", [1, 3])
def test_an_edit_list_that_leaves_frames_out_still_does(count: int, tmp_path: Path) -> None:
    whole, trimmed = make_video(tmp_path / "whole.mp4", VideoKind()), tmp_path / "trimmed.mp4"
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(whole)) as source, av.open(str(trimmed), "w", container_options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size and packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                back = round(Fraction(5, 25) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - back, packet.dts - back, stream
                target.mux(packet)
    before = frames(trimmed)
    assert before[1] == list(range(5, 30)), "players do not show the first five"
    output, _ = rebuild(trimmed, SegmentsConfig(count=count), tmp_path)
    assert frames(output) == before


def test_a_frame_is_shown_upright_and_geometry_goes_along(tmp_path: Path) -> None:
    """The corner with the number's blocks is where `to_shown` says."""
    for rotation in (0, 90, 180, 270):
        kind = VideoKind(frames=1, rotation=rotation, aspect=Fraction(3, 2), size=(128, 96))
        path = make_video(tmp_path / f"{rotation}.mp4", kind)
        info = probe(str(path), path.name)
        (frame,) = decode(str(path), path.name, info, Span(-FOREVER, FOREVER))
        coded, upright = frame.to_ndarray(format="rgb24"), shown(frame, info).permute(1, 2, 0).numpy()
        assert upright.shape[:2] == info.shown[::-1] == ((96, 192) if rotation in (0, 180) else (192, 96))
        for x, y in ((20, 40), (100, 80), (64, 20)):
            u, v = info.to_shown() @ np.array([x, y, 1.0])
            assert np.abs(upright[round(v), round(u)].astype(int) - coded[y, x]).max() < 24


@pytest.mark.parametrize("count", [1, 7])
def test_a_truncated_or_damaged_video_has_a_reason(count: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.mp4", VideoKind(frames=100))
    front = tmp_path / "front.mp4"
    with av.open(str(path)) as source, av.open(str(front), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    half, rest = front.read_bytes()[: front.stat().st_size // 2], front.stat().st_size - front.stat().st_size // 2
    cases = {
        "cut": path.read_bytes()[:4000], "empty": b"", "noise": bytes(range(256)) * 40,
        "half": half, "hole": half + bytes(rest),
    }  # fmt: skip
    for name, data in cases.items():
        bad = tmp_path / f"{name}.mp4"
        bad.write_bytes(data)
        with pytest.raises(ItemError, match=name):
            rebuild(bad, SegmentsConfig(count=count), tmp_path)


def test_a_sound_has_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    whole = make_video(tmp_path / "whole.mp4", VideoKind(audio=1))
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(ItemError, match="no video stream") as caught:
        probe(str(path), path.name)
    assert caught.value.status == "skipped"


@pytest.mark.parametrize(
    ("sizes", "code"), [(((128, 96), (96, 64)), "size_changes"), (((128, 96), (128, 96)), "bad_times")]
)
@pytest.mark.parametrize("count", [1, 2])
def test_two_recordings_in_one_file_are_refused(
    sizes: tuple[tuple[int, int], tuple[int, int]], code: str, count: int, tmp_path: Path
) -> None:
    """Transport streams can be put one after the other: the size changes, or the times start again."""
    parts = [make_video(tmp_path / f"{n}.ts", VideoKind(size=size)) for n, size in enumerate(sizes)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(ItemError) as caught:
        rebuild(both, SegmentsConfig(count=count), tmp_path)
    assert caught.value.code in (code, "bad_times")


def test_spans_hold_every_tick_once_and_are_no_longer_than_asked(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long.mp4", VideoKind(frames=200))
    info = probe(str(path), path.name)
    spans = cut(info, str(path), path.name, SegmentsConfig(seconds=2.0))
    assert (spans[0].begin, spans[-1].end) == (-FOREVER, FOREVER)
    assert all(one.end == other.begin for one, other in pairwise(spans))
    numbers = [[number_of(f) for f in decode(str(path), "long", info, s)] for s in spans]
    assert [n for part in numbers for n in part] == list(range(200))
    assert max(map(len, numbers)) <= 75
    assert all(n[0] % 12 == 0 for n in numbers), "cuts are at key frames"
    assert len(cut(info, str(path), path.name, SegmentsConfig(frames=30))) > len(spans)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in LARGE else n for n in CLIPS])
def test_real_clips_come_through_frame_by_frame(name: str, assets: Path, tmp_path: Path) -> None:
    path = assets / "videos" / name
    one, other = probe(str(path), name), rebuild(path, SegmentsConfig(seconds=3.0), tmp_path)[0]
    info = probe(str(other), name)
    assert (info.sample_aspect, info.rate, info.time_base) == (one.sample_aspect, one.rate, one.time_base)
    assert frames(path)[0] == frames(other)[0]
    assert packets(path) == packets(other)
