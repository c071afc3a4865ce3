from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import PreviewConfig, SwapConfig
from pipeline.errors import ConfigError
from pipeline.media.inputs import list_inputs
from pipeline.media.video import FOREVER, Span, probe
from pipeline.media.video_decoding import decode, shown
from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.runners.planning import plan_job
from pipeline.runners.previewing import run_preview
from pipeline.swapping import Plan
from pipeline.swapping.films import FilmState, FilmSwapper, LookStep, open_step
from pipeline.swapping.films.cast import Cast, Casting
from pipeline.swapping.films.film import open_film
from pipeline.swapping.films.look import Look, join_seen
from pipeline.synthetic.people import Appearance, Attributes, Face, Placement
from pipeline.synthetic.portraits import render
from pipeline.types import Receipt
from tests.factories import scene
from tests.videos import VideoKind, make_video, picture

KIND = VideoKind(frames=24, size=(320, 208), audio=1, options=(("crf", "4"), ("g", "8"), ("preset", "ultrafast")))
SHORT = replace(KIND, frames=8)
CUT = 16  # frame at which the second shot begins


@cache
def drawn(number: int) -> NDArray[np.uint8]:
    """Two people who drift apart; after the cut the other way round, before another background."""
    random = np.random.default_rng(3)
    people = [(Appearance.sample(random), replace(Attributes.sample(random), yaw=0.0)) for _ in range(2)]
    places = (95 - number, 225 + number) if number < CUT else (225.0, 95.0)
    faces: list[Face] = [(a, b, Placement(x, 100.0, 130.0)) for (a, b), x in zip(people, places, strict=True)]
    return render(faces, 320, 208, 5 if number < CUT else 77).frame


def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(drawn(number), (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def job(root: Path, **changes: Any) -> SwapConfig:
    """Films to swap into two sources, with the pack for procedural portraits."""
    (root / "sources").mkdir(parents=True, exist_ok=True)
    for number in range(2):
        (root / "sources" / f"s{number}").mkdir(exist_ok=True)
        Image.fromarray(scene(1, seed=40 + number).frame).save(root / "sources" / f"s{number}" / "one.png")
    tree = {
        "inputs": str(root / "in"), "output": str(root / "out"), "source": str(root / "sources"),
        "models": pack_folder("portraits"), "swapper": {"passthrough": True}, "tracking": {"enabled": False},
        "videos": {"encoder": {"crf": 4, "preset": "ultrafast"}},
    }  # fmt: skip
    return SwapConfig.model_validate(tree | changes)


def film(root: Path, name: str = "film.mp4", kind: VideoKind = KIND) -> Path:
    path = root / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_video(path, replace(kind, codec="mpeg4", options=()) if path.suffix == ".avi" else kind, draw)


def swap_all(settings: SwapConfig) -> list[Receipt]:
    swapper = FilmSwapper(plan_job(settings).plan)
    return [swapper(file) for file in list_inputs(settings.inputs)]


def frames(path: Path) -> tuple[list[int], NDArray[np.uint8]]:
    info = probe(str(path), path.name)
    found = list(decode(str(path), path.name, info, Span(-FOREVER, FOREVER)))
    return [f.pts or 0 for f in found], np.stack([f.to_ndarray(format="rgb24") for f in found])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The worst frame's."""
    errors = np.square(a.astype(np.float32) - b).mean(axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / np.maximum(errors, 1e-6)).min())


def cast_of(plan: Plan, count: int) -> Cast:
    settings = plan.settings.videos.segments.model_copy(update={"count": count})
    (file,) = list_inputs(plan.settings.inputs)
    made = open_film(plan.originals(), file, settings)
    look = Look(plan)
    return Casting(plan)(made, join_seen([look(made, span) for span in made.spans]))


def test_the_faces_of_a_film_are_swapped_and_everything_else_stays(tmp_path: Path) -> None:
    path = film(tmp_path)
    (receipt,) = swap_all(job(tmp_path, checkpoint=shipped_generator(), swapper={}))
    assert (receipt.status, receipt.output, receipt.detail) == ("done", "film.mp4", "")
    before, after = frames(path), frames(tmp_path / "out" / "film.mp4")
    assert before[0] == after[0]
    change = np.abs(before[1].astype(int) - after[1]).mean(axis=3)
    assert change[:, :12].mean() < 2.5, "above the heads, encoding alone"
    for number in range(KIND.frames):
        places = (95 - number, 225 + number) if number < CUT else (225, 95)
        for x in places:
            assert change[number, 80:140, x - 25 : x + 25].mean() > 8, f"frame {number}: a face was copied through"
    assert {face.action for face in receipt.faces} == {"swapped"}
    assert [face.source for face in receipt.faces] == ["s0", "s1", "s1", "s0"], "two shots; each person keeps a source"
    left = {path.name for path in (tmp_path / "out" / "_simswap").rglob("*") if path.is_file()}
    assert left == {"people.parquet"}


@pytest.mark.parametrize(
    "kind",
    [
        KIND,
        replace(KIND, rotation=90, size=(208, 320)),
        replace(KIND, aspect=Fraction(4, 3), size=(240, 208)),
        replace(KIND, pixel_format="yuv420p10le"),
        replace(KIND, pixel_format="yuv444p", size=(319, 207)),
    ],
    ids=["plain", "rotated", "wide_pixels", "ten_bits", "odd"],
)
def test_crops_that_are_put_back_as_they_were_leave_the_film_as_it_was(kind: VideoKind, tmp_path: Path) -> None:
    upright = cv2.ROTATE_90_CLOCKWISE  # as stored; a player turns it back

    def stored(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return cv2.rotate(drawn(number), upright) if kind.rotation else draw(number, width, height)

    (tmp_path / "in").mkdir()
    path = make_video(tmp_path / "in" / "film.mp4", kind, stored)
    (receipt,) = swap_all(job(tmp_path))
    before, after = frames(path), frames(tmp_path / "out" / "film.mp4")
    assert receipt.status == "done"
    assert len(receipt.faces) == 4
    assert (receipt.width, receipt.height) == ((319, 207) if kind.size[0] % 2 else (320, 208))
    assert before[0] == after[0]
    assert psnr(before[1], after[1]) > 38


def test_the_spans_that_a_film_is_worked_on_in_change_nothing(tmp_path: Path) -> None:
    film(tmp_path)
    plan = plan_job(job(tmp_path)).plan
    one, *others = (cast_of(plan, count) for count in (1, 2, 7))
    assert len(one.person) == 4
    for other in others:
        for name in ("ticks", "track", "bridged", "person", "fate", "weight"):
            assert (getattr(one, name) == getattr(other, name)).all(), name
        assert np.allclose(one.faces.landmarks, other.faces.landmarks, atol=1e-3)


def test_results_fade_in_where_somebody_appears_in_a_shot_and_not_at_its_start(tmp_path: Path) -> None:
    def appears(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return (
            draw(number if number >= 6 else 0, width, height)
            if number >= 6
            else np.full((height, width, 3), 90, np.uint8)
        )

    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "film.mp4", replace(KIND, frames=CUT), appears)
    settings = job(tmp_path, videos={"tracks": {"shot_change": 1.0}, "ease_s": 0.2})
    cast = cast_of(plan_job(settings).plan, 1)
    first = cast.weight[cast.track == 0]
    assert first[0] == pytest.approx(0.2, abs=0.01)
    assert (np.diff(first[:5]) > 0.1).all()
    assert first[-1] == 1.0, "the film's end is no reason to fade"


def test_policies_speak_for_films_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "empty.mp4", replace(KIND, frames=5))
    (tmp_path / "in" / "broken.mp4").write_bytes(b"nothing")
    reasons = {receipt.item: (receipt.status, receipt.reason) for receipt in swap_all(job(tmp_path))}
    assert reasons == {"empty.mp4": ("failed", "no_face"), "broken.mp4": ("failed", "unreadable")}
    copied = swap_all(job(tmp_path, policy={"no_face": "copy"}, output=str(tmp_path / "copied")))[1]
    assert (copied.status, copied.output) == ("done", "empty.mp4")
    assert not (tmp_path / "out" / "broken.mp4").exists()
    blurred = swap_all(job(tmp_path, policy={"no_face": "blur"}, output=str(tmp_path / "blurred")))[1]
    assert (blurred.status, blurred.reason) == ("done", "no_face: blurred")
    before, after = frames(tmp_path / "in" / "empty.mp4")[1], frames(tmp_path / "blurred" / "empty.mp4")[1]
    assert np.abs(np.diff(after.astype(int), axis=2)).max() < np.abs(np.diff(before.astype(int), axis=2)).max() / 2


def blank(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """The scene without its people, for a moment in the middle of the first shot."""
    frame = draw(number, width, height)
    return frame if not 6 <= number < 12 else np.full_like(frame, 90)


ANONYMOUS = {"selection": {"mode": "anonymise"}, "policy": {"leak": "copy"}}


def test_a_face_that_is_lost_between_two_finds_is_hidden_when_anonymising(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = make_video(tmp_path / "in" / "film.mp4", replace(KIND, frames=CUT), blank)
    tracks = {"shot_change": 1.0, "max_gap_s": 0.05}
    videos = {"encoder": {"crf": 4, "preset": "ultrafast"}, "tracks": tracks}
    (receipt,) = swap_all(job(tmp_path, videos=videos, **ANONYMOUS))
    before, after = frames(path)[1], frames(tmp_path / "out" / "film.mp4")[1]
    assert receipt.status == "done", receipt.detail
    assert "In 6 frames the place of a face was blurred that was not found there." in receipt.detail
    assert len(before) == len(after)
    cast = cast_of(plan_job(job(tmp_path, videos=videos, output=str(tmp_path / "o"), **ANONYMOUS)).plan, 2)
    covered = {int(frame) for frame in cast.faces.frame}
    assert covered == set(range(CUT)), "no frame between two finds is without its faces"


def test_a_copy_of_a_face_is_a_leak_and_the_policy_decides(tmp_path: Path) -> None:
    film(tmp_path, kind=SHORT)  # pasted back as they were, everybody can be recognised
    failed = swap_all(job(tmp_path, selection={"mode": "anonymise"}))[0]
    assert (failed.status, failed.reason) == ("failed", "leak")
    assert "16 faces of the result could be recognised" in failed.detail
    assert not (tmp_path / "out" / "film.mp4").exists()
    told = swap_all(job(tmp_path, output=str(tmp_path / "told"), **ANONYMOUS))[0]
    assert (told.status, told.reason) == ("done", "leak: copied")
    blurred = swap_all(job(tmp_path, output=str(tmp_path / "blurred"), **ANONYMOUS | {"policy": {"leak": "blur"}}))[0]
    assert (blurred.status, blurred.reason) == ("done", "leak: blurred"), blurred.detail
    assert {face.action for face in blurred.faces} == {"blurred"}
    checked = Look(plan_job(job(tmp_path, output=str(tmp_path / "x"))).plan)
    path = tmp_path / "blurred" / "film.mp4"
    made = probe(str(path), path.name)
    owners = cast_of(plan_job(job(tmp_path, output=str(tmp_path / "y"))).plan, 1).likeness
    for frame in decode(str(path), path.name, made, Span(-FOREVER, FOREVER)):
        found = checked.faces(shown(frame, made), path.name).embedding
        assert not len(found) or (found @ owners.T).max() < 0.4


def test_pictures_beside_the_film_do_not_go_along_when_anonymising(tmp_path: Path) -> None:
    path, other = film(tmp_path, "other.mkv", SHORT), tmp_path / "in" / "film.mkv"
    with av.open(str(path)) as source, av.open(str(other), "w") as target:
        target.add_attachment("cover.jpg", "image/jpeg", cv2.imencode(".jpg", drawn(0))[1].tobytes())
        streams = [target.add_stream_from_template(source.streams.video[0]) for _ in range(2)]
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                data, times = bytes(packet), (packet.pts, packet.dts, packet.time_base)
                for stream in streams:
                    copy: av.Packet[Any] = av.Packet(data)
                    copy.pts, copy.dts, copy.time_base = times
                    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                    target.mux(copy)
    path.unlink()
    for name, changes in {"plain": {}, "anonymous": ANONYMOUS}.items():
        (receipt,) = swap_all(job(tmp_path, output=str(tmp_path / name), **changes))
        assert receipt.status == "done", receipt.detail
        with av.open(str(tmp_path / name / "film.mkv")) as container:
            covers = [bool(s.disposition & av.stream.Disposition.attached_pic) for s in container.streams]
        assert sorted(covers) == ([False] if changes else [False, False, True])
        assert receipt.detail.count("was left out: it may show the originals") == (2 if changes else 0)


def test_a_bystander_who_is_not_sure_enough_stops_nothing(tmp_path: Path) -> None:
    film(tmp_path)
    one = str(tmp_path / "one.png")
    Image.fromarray(drawn(0)[:, :150]).save(one)
    analysis = {"min_face_px": 1000}
    mapping = {"mode": "mapping", "mapping": {one: "s0"}, "min_cosine": 0.7}
    policies = {}
    for policy in ("fail", "blur", "copy"):
        changes = {"analysis": analysis, "selection": mapping, "policy": {"low_confidence": policy}}
        (receipt,) = swap_all(job(tmp_path, output=str(tmp_path / policy), **changes))
        policies[policy] = (receipt.status, receipt.reason, [face.action for face in receipt.faces])
    assert policies["fail"] == ("failed", "low_confidence", [])
    assert policies["blur"] == ("done", "low_confidence: blurred", ["blurred", "kept", "kept", "blurred"])
    assert policies["copy"] == ("done", "low_confidence: copied", ["kept"] * 4)
    nobody = {"mode": "mapping", "mapping": {str(tmp_path / "sources/s0/one.png"): "s0"}, "min_cosine": 0.95}
    (receipt,) = swap_all(job(tmp_path, output=str(tmp_path / "no"), analysis=analysis, selection=nobody))
    assert (receipt.status, receipt.reason) == ("done", "not_selected")


def test_segments_without_a_face_are_copied_packet_by_packet(tmp_path: Path) -> None:
    def half(number: int, width: int, height: int) -> NDArray[np.uint8]:
        return draw(number, width, height) if number < 8 else picture(number, width, height)

    (tmp_path / "in").mkdir()
    path = make_video(tmp_path / "in" / "film.mp4", KIND, half)
    encoder = {"crf": 4, "preset": "ultrafast"}
    segments = {"seconds": 0.32, "frames": 8}
    for copies in (False, True):
        videos = {"encoder": encoder, "segments": segments, "copy_untouched": copies}
        (receipt,) = swap_all(job(tmp_path, videos=videos, output=str(tmp_path / f"out{copies}")))
        assert receipt.status == "done", receipt.detail
    before, copied = frames(path), frames(tmp_path / "outTrue" / "film.mp4")
    assert before[0] == copied[0]
    assert (before[1][8:] == copied[1][8:]).all(), "the same packets give the same pixels"
    assert psnr(before[1], copied[1]) > 38
    again = frames(tmp_path / "outFalse" / "film.mp4")
    assert not (before[1][8:] == again[1][8:]).all()
    packets = [
        [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
        for container in (av.open(str(path)), av.open(str(tmp_path / "outTrue" / "film.mp4")))
    ]
    assert packets[0][9:16] == packets[1][9:16], "byte for byte, but for the parameter sets before key frames"
    with av.open(str(tmp_path / "outTrue" / "film.mp4")) as container:
        container.seek(before[0][16], stream=container.streams.video[0])
        assert next(container.decode(video=0)).pts == before[0][16], "seeking into a copied segment works"


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path: Path) -> None:
    film(tmp_path)
    plan = plan_job(job(tmp_path, videos={"segments": {"count": 3}, "encoder": {"crf": 4, "preset": "ultrafast"}})).plan
    (file,) = list_inputs(plan.settings.inputs)
    look, state = LookStep(plan), FilmState(plan, file)
    assert open_step(plan, file) == 3
    look(file, 0)
    look(file, 2)
    folder = tmp_path / "out" / "_simswap" / "films" / state.key
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert state.done().seen == {0, 2}
    receipt = FilmSwapper(plan)(file)
    assert receipt.status == "done"
    assert not folder.exists()
    look(file, 0)
    assert not folder.exists(), "without the film's probe there is nothing to look at"
    assert len(written) == 3


def test_a_film_that_changes_meanwhile_gets_a_reason(tmp_path: Path) -> None:
    path = film(tmp_path)
    plan = plan_job(job(tmp_path)).plan
    (file,) = list_inputs(plan.settings.inputs)
    open_step(plan, file)
    path.write_bytes(path.read_bytes() + b"more")
    receipt = FilmSwapper(plan)(file)
    assert (receipt.status, receipt.reason) == ("failed", "changed")


def test_a_segment_holds_no_more_faces_than_asked(tmp_path: Path) -> None:
    film(tmp_path)
    settings = {"segments": {"crop_bytes": 10 * 3 * 224 * 224}, "encoder": {"crf": 4, "preset": "ultrafast"}}
    plan = plan_job(job(tmp_path, videos=settings)).plan
    cast = cast_of(plan, 1)
    counts = [len(cast.between(piece)) for piece in cast.pieces]
    assert sum(counts) == len(cast.faces) == 48
    assert max(counts) <= 10
    (receipt,) = swap_all(job(tmp_path, videos=settings))
    assert receipt.status == "done"
    assert frames(tmp_path / "in" / "film.mp4")[0] == frames(tmp_path / "out" / "film.mp4")[0]


def test_a_preview_shows_the_original_beside_the_result(tmp_path: Path) -> None:
    film(tmp_path)
    settings = job(tmp_path, checkpoint=shipped_generator(), swapper={}).model_dump(mode="json")
    result = run_preview(PreviewConfig.model_validate(settings | {"seconds": 0.4, "frames": 5}))
    assert result["status"] == "done"
    assert result["sheet_frames"] == 5
    assert result["sheet_faces"] == {"found": 10, "changed": 10}
    sheet = np.asarray(Image.open(result["contact_sheet"]))
    assert sheet.shape[1] == 2 * (2 * 320 + 20)
    times, clip = frames(Path(result["clip"]))
    assert len(times) == result["frames"] == 10
    assert times == [512 * n for n in range(10)], "at its speed"
    left, right = clip[:, :, :320].astype(int), clip[:, :, 324:644].astype(int)
    change = np.abs(left - right).mean(axis=3)
    assert change[:, :12].mean() < 3
    assert change.max(axis=(1, 2)).min() > 40, "every frame shows a swapped face"
    assert list((tmp_path / "out").rglob("*.parquet")) == []
    with pytest.raises(ConfigError, match=r"film: other\.mp4: no such video below .* There are film\.mp4"):
        run_preview(PreviewConfig.model_validate(settings | {"film": "other.mp4"}))
