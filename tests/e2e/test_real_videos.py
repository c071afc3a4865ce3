"""Real clips and a long film, through the command. Slow: `make test-slow`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipeline.config import SwapConfig
from pipeline.faces.tracking import overlaps
from pipeline.media.inputs import list_inputs
from pipeline.media.shots import shot_starts
from pipeline.runners.planning import plan_job
from pipeline.swapping.films.cast import Cast, Casting
from pipeline.swapping.films.film import open_film
from pipeline.swapping.films.look import Look, join_seen
from pipeline.swapping.people import People, choose_sources
from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.synthetic.portraits import render
from tests.e2e.test_swap_command import run, start
from tests.e2e.test_swap_films import wait_for
from tests.processes import family, title
from tests.unit.media.test_video import CLIPS
from tests.unit.swapping.test_films import job
from tests.videos import VideoKind, make_video

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.slow]


def ffprobe(path: Path, stream: str, *fields: str) -> list[dict[str, Any]]:
    """What FFmpeg's own tool says of every packet or of a stream, without what only encoders put there."""
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-of", "json", *fields, str(path)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = next((value for value in said.values() if isinstance(value, list) and value), [])
    return [{"sample_aspect_ratio": "1:1"} | {k: v for k, v in one.items() if k != "side_data_list"} for one in found]


def gray(path: Path) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def worst_psnr(one: Path, other: Path) -> float:
    errors = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(gray(one), gray(other), strict=True)]
    return float(10 * np.log10(255**2 / max(errors)))


@pytest.mark.timeout(3600)
def test_real_clips_are_the_same_to_an_outsider_and_nearly_so_to_the_eye(assets: Path, tmp_path: Path) -> None:
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe (Debian: ffmpeg)")
    (tmp_path / "in").mkdir()
    for name in CLIPS:
        shutil.copy(assets / "videos" / name, tmp_path / "in" / name)
    settings = job(
        tmp_path,
        models=str(assets / "models" / "buffalo_sc_dequant"),
        videos={"encoder": {"crf": 12, "preset": "veryfast"}, "segments": {"seconds": 2.5}},
        policy={"no_face": "copy", "low_confidence": "copy"},
    )
    write_settings(tmp_path, settings)
    code, result, stderr = run(tmp_path, timeout_s=3600)
    assert code == 0, stderr
    assert result["items"]["done"] == len(CLIPS), stderr
    for name in CLIPS:
        one, other = tmp_path / "in" / name, tmp_path / "out" / name
        times = ("-show_frames", "-show_entries", "frame=pts")
        assert ffprobe(one, "v:0", *times) == ffprobe(other, "v:0", *times), f"{name}: times of the frames"
        sound = ("-show_packets", "-show_data_hash", "sha256", "-show_entries", "packet=pts,dts,size,data_hash")
        assert ffprobe(one, "a", *sound) == ffprobe(other, "a", *sound), f"{name}: packets of sound"
        entries = "stream=sample_aspect_ratio,avg_frame_rate,width,height,time_base"
        picture = ("-show_entries", entries)
        assert ffprobe(one, "v:0", *picture) == ffprobe(other, "v:0", *picture), name
        assert worst_psnr(one, other) >= 38.0, name


def test_no_face_changes_its_source_inside_a_shot(assets: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(assets / "videos" / "five_faces_640x360_audio.mp4", tmp_path / "in" / "five.mp4")
    faces = sorted((assets / "photos" / "synthetic_sources").rglob("*.jpg"))[:5]
    for number, face in enumerate(faces):
        (tmp_path / "gallery" / f"g{number}").mkdir(parents=True)
        shutil.copy(face, tmp_path / "gallery" / f"g{number}" / face.name)
    models = str(assets / "models" / "buffalo_sc_dequant")
    plan = plan_job(
        job(tmp_path, models=models, source=str(tmp_path / "gallery"), policy={"low_confidence": "copy"})
    ).plan
    (file,) = list_inputs(plan.settings.inputs)
    film, look = open_film(plan.originals(), file, plan.settings.videos.segments), Look(plan)
    seen = join_seen([look(film, span) for span in film.spans])
    cast = Casting(plan)(film, seen)
    become = cast.become(choose_sources(plan, People(plan), "key", file.item, *cast.people()), "copy")[cast.track]
    starts = shot_starts(seen.signatures, plan.settings.videos.tracks.shot_change)
    compared, changes = follow(cast, become, starts)
    assert len(np.unique(cast.person)) >= 5
    assert compared > 4 * len(seen.ticks) / 2
    assert changes == []


def follow(cast: Cast, become: NDArray[np.int64], starts: NDArray[np.bool_]) -> tuple[int, list[int]]:
    """Faces that stay in their place from one frame to the next, and the frames in which one changes its source."""
    compared, changes = 0, list[int]()
    for frame in range(1, len(starts)):
        if starts[frame]:
            continue
        before, after = (np.flatnonzero(cast.faces.frame == n) for n in (frame - 1, frame))
        shared = overlaps(cast.faces.box[before], cast.faces.box[after])
        for one, other in zip(*np.nonzero(shared > 0.6), strict=True):
            compared += 1
            if become[before[one]] != become[after[other]]:
                changes.append(frame)
    return compared, changes


@pytest.mark.timeout(5400)
def test_a_ten_minute_film_needs_little_memory_and_is_not_begun_again(tmp_path: Path) -> None:
    """1080p; at 10 frames a second and in segments of 25 s, so that each holds as many frames as it does at 25."""
    frames, random = 6000, np.random.default_rng(5)
    face = (Appearance.sample(random), replace(Attributes.sample(random), yaw=0.0), Placement(500.0, 540.0, 420.0))
    scene = render([face], 1920 + 512, 1080, 9).frame

    def draw(number: int, width: int, height: int) -> NDArray[np.uint8]:
        left = abs(256 - number % 512)
        return np.ascontiguousarray(scene[:height, left : left + width])

    (tmp_path / "in").mkdir()
    options = (("preset", "ultrafast"), ("crf", "20"), ("g", "125"))
    kind = VideoKind(frames=frames, size=(1920, 1080), rate=Fraction(10), options=options, audio=1)
    make_video(tmp_path / "in" / "long.mp4", kind, draw)
    settings = job(tmp_path, videos={"segments": {"seconds": 25.0}}, tracking={"enabled": False}, ray={"num_cpus": 2})
    write_settings(tmp_path, settings)
    films = tmp_path / "out/_simswap/films"
    first = start(tmp_path)
    with memory_of(first.pid) as peak_before:
        wait_for(lambda: list(films.glob("*/part-*.npz"))[4:], 3600)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    parts = {path: path.stat().st_mtime_ns for path in films.glob("*/*.npz")}
    second = start(tmp_path)
    with memory_of(second.pid) as peak_after:
        untouched = wait_for(lambda: list(films.glob("*/part-*.npz"))[8:] and list(parts), 3600)
        assert all(path.stat().st_mtime_ns == parts[path] for path in untouched), "what was done is not done again"
        stdout, stderr = second.communicate()
    assert json.loads(stdout)["status"] == "done", stderr
    (row,) = pq.read_table(tmp_path / "out/_simswap/receipts.parquet").to_pylist()
    assert [face["action"] for face in row["faces"]] == ["swapped"]
    with av.open(str(tmp_path / "out" / "long.mp4")) as container:
        assert container.streams.video[0].frames == frames
    peaks = {name: max(p.get(name, 0) for p in (peak_before, peak_after)) for name in peak_before | peak_after}
    print({name: f"{size / 2**20:.0f} MB" for name, size in sorted(peaks.items(), key=lambda item: -item[1])})
    assert max(peaks.values()) < 1.5 * 2**30, peaks


@contextmanager
def memory_of(pid: int) -> Iterator[dict[str, int]]:
    """Most resident memory of each of a process's descendants, by name, without the object store that they share."""
    peaks, over = dict[str, int](), threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            for one in family(pid):
                try:
                    facts = dict(line.split(":", 1) for line in Path(f"/proc/{one}/status").read_text().splitlines())
                    name = title(one)[:40]
                except (OSError, ValueError):
                    continue
                size = sum(int(facts.get(kind, "0 kB").split()[0]) for kind in ("RssAnon", "RssFile"))
                peaks[name] = max(peaks.get(name, 0), 1024 * size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def write_settings(root: Path, settings: SwapConfig) -> None:
    (root / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
