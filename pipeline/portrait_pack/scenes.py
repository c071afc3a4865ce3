"""Scenes with several procedural people, rendered once and kept on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.portrait_pack.album import Pixels
from pipeline.synthetic.people import Appearance, Attributes, Face, Placement, Scene
from pipeline.synthetic.portraits import render
from pipeline.types import Floats

MOST_FACES = 4


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture and its faces.

    Attributes:
        frame: [H, W, 3] u8 RGB.
        boxes: [F, 4] frame pixels.
        landmarks: [F, 5, 2] frame pixels.
    """

    frame: Pixels
    boxes: Floats
    landmarks: Floats


@dataclass(frozen=True, slots=True)
class Scenes:
    """Rendered scenes on the disk: all pixels in one file, [start, height, width] of each beside it."""

    folder: Path
    pixels: Pixels
    places: NDArray[np.int64]
    boxes: Floats
    landmarks: Floats
    crowd: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Shot:
        start, height, width = (int(n) for n in self.places[index])
        frame = np.array(self.pixels[start : start + height * width * 3]).reshape(height, width, 3)
        count = int(self.crowd[index])
        return Shot(frame, self.boxes[index, :count], self.landmarks[index, :count])


def make_scene(seed: int, number: int) -> Scene:
    """Nobody to four people side by side, heads of 90..260 px; the same arguments give the same scene."""
    random = np.random.default_rng([seed, number])
    crowd = int(random.choice(MOST_FACES + 1, p=(0.05, 0.4, 0.2, 0.15, 0.2)))
    head = 90 * (260 / 90) ** random.random() if crowd < 3 else random.uniform(90, 230)
    column, height = int(head * random.uniform(1.15, 1.9)), int(head * random.uniform(1.3, 2.3))
    people: list[Face] = []
    for place in range(crowd):
        size = head * random.uniform(0.85, 1.05)
        x = column * (place + 0.5 + random.uniform(-0.06, 0.06))
        y = random.uniform(min(0.56 * size, height / 2), max(height - 0.56 * size, height / 2))
        people.append((Appearance.sample(random), Attributes.sample(random), Placement(x, y, size)))
    return render(people, max(column * max(crowd, 1), 128), height, int(random.integers(1 << 31)))


def load_scenes(folder: Path, seed: int, count: int, processes: int = 1) -> Scenes:
    """Scenes from the cache, rendered first if they are not there."""
    path = folder / f"scenes-{seed}-{count}"
    if not (path / "facts.npz").exists():
        _render_scenes(path, seed, count, processes)
    return open_scenes(path)


def open_scenes(folder: Path) -> Scenes:
    """Rendered scenes; the pixels stay on the disk."""
    with np.load(folder / "facts.npz") as facts:
        pixels = np.memmap(folder / "pixels.bin", np.uint8, "r")
        return Scenes(folder, pixels, facts["places"], facts["boxes"], facts["landmarks"], facts["crowd"])


def _render_scenes(path: Path, seed: int, count: int, processes: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    places, crowd = np.zeros((count, 3), np.int64), np.zeros(count, np.int64)
    boxes = np.zeros((count, MOST_FACES, 4), np.float32)
    landmarks = np.zeros((count, MOST_FACES, 5, 2), np.float32)
    start = 0
    with get_context("spawn").Pool(processes) as pool, (path / "pixels.bin").open("wb") as file:
        for n, scene in enumerate(pool.imap(_make, [(seed, number) for number in range(count)], chunksize=4)):
            places[n], crowd[n] = (start, *scene.frame.shape[:2]), len(scene.box)
            boxes[n, : crowd[n]], landmarks[n, : crowd[n]] = scene.box, scene.landmarks
            start += file.write(scene.frame.tobytes())
    np.savez(path / "facts.npz", places=places, boxes=boxes, landmarks=landmarks, crowd=crowd)  # last: all is there


def _make(job: tuple[int, int]) -> Scene:
    return make_scene(*job)
