"""What every step of a 1080p frame with one face costs on one core, the generator left out, in one run.

    python -m benchmarks.video [--models PACK] [--frames N] [--repeats N] [--json FILE]

The clip is a procedural portrait (134 px between the eyes) that drifts over a 1080p frame, H.264. Process time: the
mean over its frames, of which the median over the repeats. The baseline is what published scripts do with a frame: all
of it to RGB, a paste over the full frame, all of it back.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from benchmarks.stages import ASSETS, paste_full_frame
from pipeline.config import AnalysisConfig, EncoderConfig, ModelConfig, SwapConfig
from pipeline.faces.alignment import frame_to_crop, invert
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.masks import soft_square
from pipeline.media.inputs import InputFile
from pipeline.media.shots import signature
from pipeline.media.video import FOREVER, Span, VideoInfo, probe
from pipeline.media.video_decoding import decode, shown
from pipeline.media.video_encoding import encode
from pipeline.media.video_joining import join
from pipeline.model.checkpoint import CheckpointHeader, EncoderReference
from pipeline.portrait_pack import pack_folder
from pipeline.swapping import Plan, Work
from pipeline.swapping.films.cut import crops_of
from pipeline.swapping.films.render import Render
from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.synthetic.portraits import render
from pipeline.types import Faces, Floats

SIZE = (1920, 1080)
EVERYTHING = Span(-FOREVER, FOREVER)


def make_clip(path: str, frames: int) -> None:
    """A 1080p clip of one face that drifts to the right."""
    random = np.random.default_rng(5)
    face = (Appearance.sample(random), replace(Attributes.sample(random), yaw=0.0), Placement(400.0, 540.0, 420.0))
    picture = render([face], SIZE[0] + 2 * frames, SIZE[1], 9).frame
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "18", "preset": "veryfast", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            left = 2 * (frames - number)
            image = np.ascontiguousarray(picture[:, left : left + SIZE[0]])
            frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def per_frame(work: Callable[[], object], count: int, repeats: int) -> float:
    """Milliseconds of a core a frame, the median of the repeats after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times) / count


def drain(frames: Iterable[object]) -> int:
    """Take everything."""
    return sum(1 for _ in frames)


def work_of(faces: Faces, ticks: NDArray[np.int64], size: int) -> Work:
    """The work of the clip, as after the generator."""
    to_frame = invert(frame_to_crop(faces.landmarks, "arcface", size))
    return replace(
        Work.of(InputFile("clip.mp4", 1, 1)),
        faces=faces,
        to_frame=to_frame,
        become=np.zeros(len(faces), np.int64),
        crops=torch.randint(0, 256, (len(faces), 3, size, size), dtype=torch.uint8),
        ticks=ticks,
        weight=np.ones(len(faces), np.float32),
    )


def copies(frames: list[VideoFrame]) -> list[VideoFrame]:
    """Frames that may be changed; making them is not timed."""
    made = []
    for frame in frames:
        copy = VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
        copy.pts, copy.time_base = frame.pts, frame.time_base
        made.append(copy)
    return made


def steps(path: str, models: str, repeats: int) -> list[dict[str, Any]]:
    """A row for each step: milliseconds a frame."""
    info = probe(path, "clip.mp4")
    frames = list(decode(path, "clip.mp4", info, EVERYTHING))
    pictures = [shown(frame, info) for frame in frames]
    analyser = FaceAnalyser(models, "arcface", 224, AnalysisConfig())
    found = [analyser(picture)[0] for picture in pictures]
    if any(len(faces) != 1 for faces in found):
        raise SystemExit(f"{models}: does not find the one face in every frame of the clip")
    faces = replace(Faces.joined(found), frame=np.arange(len(found)))
    ticks = np.array([frame.pts for frame in frames], np.int64)
    work = work_of(faces, ticks, 224)
    tree = {"inputs": "in", "output": "out", "source": "s", "models": models, "swapper": {"passthrough": True}}
    plan = Plan(SwapConfig.model_validate(tree), CheckpointHeader(ModelConfig(), EncoderReference("", "")), (), (), "")
    count = len(frames)

    def timed(name: str, step: Callable[[], object]) -> dict[str, Any]:
        return {"step": name, "ms a frame": per_frame(step, count, repeats)}

    rows = [
        timed("decode", lambda: drain(decode(path, "clip.mp4", info, EVERYTHING))),
        timed("whole frame to RGB", lambda: [shown(frame, info) for frame in frames]),
        timed("shot signature", lambda: [signature(p.permute(1, 2, 0).numpy()) for p in pictures]),
        timed("detect and embed", lambda: [analyser(picture) for picture in pictures]),
        timed(
            "align: crop from the planes",
            lambda: [crops_of(f, work.to_frame[n : n + 1], 224) for n, f in enumerate(frames)],
        ),
        {"step": "paste: into the planes", "ms a frame": pasting(frames, work, plan, repeats)},
    ]
    encoder = EncoderConfig(preset="veryfast")
    with tempfile.TemporaryDirectory() as folder:
        part, whole = f"{folder}/part.mp4", f"{folder}/whole.mp4"
        rows.append(timed("encode veryfast crf 17", lambda: encode(part, frames, info, encoder)))
        rows.append(timed("join", lambda: join(path, "clip.mp4", info, [part], whole)))
    rows.append(
        timed(
            "baseline: RGB, paste over the full frame, back",
            lambda: [_full(f, info, work, n) for n, f in enumerate(frames)],
        )
    )
    return rows


def pasting(frames: list[VideoFrame], work: Work, plan: Plan, repeats: int) -> float:
    """The paste changes its frames, so every repeat has new ones."""
    blend, times = Render(plan), []
    place = np.arange(len(work.become))
    for _ in range(repeats + 1):
        fresh = copies(frames)
        start = time.process_time()
        for number, frame in enumerate(fresh):
            blend.blend(frame, work, np.array([number]), place)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times[1:]) / len(frames)


def _full(frame: VideoFrame, info: VideoInfo, work: Work, number: int) -> VideoFrame:
    mask: Floats = soft_square(224, 0.05, 0.10)
    image = paste_full_frame(shown(frame, info), work.crops[number].float() / 255, work.to_frame[number], mask)
    return VideoFrame.from_ndarray(image.permute(1, 2, 0).numpy(), format="rgb24").reformat(format="yuv420p")


def main() -> None:
    """Print a table, or write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = ASSETS / "models" / "buffalo_sc_dequant"
    parser.add_argument("--models", default=str(real) if real.is_dir() else pack_folder("portraits"))
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mp4")
        make_clip(path, given.frames)
        rows = steps(path, given.models, given.repeats)
    costs = {row["step"]: row["ms a frame"] for row in rows}
    ours = costs["align: crop from the planes"] + costs["paste: into the planes"]
    print(f"{platform.processor() or platform.machine()}, one thread, {given.frames} frames of 1080p, {given.models}")
    for row in rows:
        print(f"{row['ms a frame']:8.2f} ms  {row['step']}")
    print(f"{ours:8.2f} ms  align and paste: 1 / {costs[rows[-1]['step']] / ours:.1f} of the baseline")
    if given.json:
        Path(given.json).write_text(json.dumps({"rows": rows, "machine": platform.platform()}, indent=1))


if __name__ == "__main__":
    main()
