"""Albums: several photographs of each of many procedural people, rendered once; crops cut from them anew every time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.faces.alignment import cut_crops
from pipeline.faces.identity import ENCODER_SIDE
from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.synthetic.portraits import render
from pipeline.types import Floats

FRAME_SIDE = 160
AHEAD = 6
_OWN = [f for f in fields(Appearance) if f.metadata["identity"]]
MIRRORED = [1, 0, 2, 4, 3]

Pixels = NDArray[np.uint8]
Photo = tuple[Pixels, Floats]
Batch = tuple[Pixels, NDArray[np.int64], Floats]
"""Crops [B, 3, 112, 112], who [B], identity parameters [B, 22]."""


@dataclass(frozen=True, slots=True)
class Album:
    """Photographs of procedural people.

    Attributes:
        folder: where it lies, if it does.
        frames: [K, 160, 160, 3] u8 RGB, one head each.
        landmarks: [K, 5, 2] exact, frame pixels.
        person: [K] who it is, from 0.
        identity: [K, 22] the person's identity parameters, each scaled to -1..1.
    """

    folder: Path
    frames: Pixels
    landmarks: Floats
    person: NDArray[np.int64]
    identity: Floats

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True, slots=True)
class Wear:
    """How hard a crop is worn in training. Colour is never shifted in hue: skin tone and eye colour are identity.

    Attributes:
        landmark_noise: standard deviation over the distance between the eyes, like a detector's error.
        blur_px: largest standard deviation of the blur.
        noise: largest standard deviation of the grain, of 0..1.
        brightness: largest relative change.
        erase: how often a square of the crop is painted over, 0..1.
    """

    landmark_noise: float = 0.02
    blur_px: float = 1.0
    noise: float = 0.03
    brightness: float = 0.2
    erase: float = 0.0


NO_WEAR = Wear(landmark_noise=0.0, blur_px=0.0, noise=0.0, brightness=0.0)


_KEPT: list[Album] = []  # of the process that cuts batches


def person_of(seed: int, number: int) -> Appearance:
    """Somebody of an album: the same seed and number give the same person."""
    return Appearance.sample(np.random.default_rng([seed, number]))


def identity_of(person: Appearance) -> Floats:
    """[22] the identity parameters, each scaled to -1..1 over its span."""
    spans = [f.metadata["span"] for f in _OWN]
    values = [
        (getattr(person, f.name) - low) / (high - low) * 2 - 1 for f, (low, high) in zip(_OWN, spans, strict=True)
    ]
    return np.array(values, np.float32)


def load_album(folder: Path, seed: int, people: int, photos: int, processes: int = 1) -> Album:
    """An album from the cache, rendered first if it is not there.

    Args:
        folder: of the cache.
        seed: albums of two seeds share nobody.
        people: how many.
        photos: of each.
        processes: that render at the same time.
    """
    path = folder / f"album-{seed}-{people}x{photos}"
    if not (path / "facts.npz").exists():
        _render_album(path, seed, people, photos, processes)
    return open_album(path)


def open_album(folder: Path) -> Album:
    """A rendered album; its frames stay on the disk."""
    seed, size = folder.name.removeprefix("album-").split("-")
    people, photos = (int(n) for n in size.split("x"))
    with np.load(folder / "facts.npz") as facts:
        frames = np.load(folder / "frames.npy", mmap_mode="r")
        return Album(folder, frames, facts["landmarks"], *_who(int(seed), people, photos))


def shot_album(seed: int, people: int, photos: int) -> Album:
    """A small album, rendered here and now and kept in memory."""
    shots = [shot for number in range(people) for shot in _shoot((seed, number, photos))]
    frames, landmarks = np.stack([frame for frame, _ in shots]), np.stack([points for _, points in shots])
    return Album(Path(), frames, landmarks, *_who(seed, people, photos))


def _who(seed: int, people: int, photos: int) -> tuple[NDArray[np.int64], Floats]:
    person = np.repeat(np.arange(people), photos)
    return person, np.stack([identity_of(person_of(seed, number)) for number in range(people)])[person]


def _render_album(path: Path, seed: int, people: int, photos: int, processes: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shape = (people * photos, FRAME_SIDE, FRAME_SIDE, 3)
    frames = np.lib.format.open_memmap(path / "frames.npy", "w+", np.uint8, shape)
    landmarks = np.zeros((people * photos, 5, 2), np.float32)
    jobs = [(seed, number, photos) for number in range(people)]
    with get_context("spawn").Pool(processes) as pool:
        for number, shots in enumerate(pool.imap(_shoot, jobs, chunksize=8)):
            for k, (frame, points) in enumerate(shots, number * photos):
                frames[k], landmarks[k] = frame, points
    frames.flush()
    np.savez(path / "facts.npz", landmarks=landmarks)  # written last: says that the frames are complete


def _shoot(job: tuple[int, int, int]) -> list[Photo]:
    """Photographs of one person, each with other hair, head, clothes, pose, light and background."""
    seed, number, photos = job
    person, random = person_of(seed, number), np.random.default_rng([seed, number, 1])
    shots = []
    for _ in range(photos):
        look = Appearance.sample(random).with_identity_of(person)
        x, y = random.uniform(-4, 4, 2) + FRAME_SIDE / 2
        where = Placement(x, y, random.uniform(96, 118))
        scene = render(
            [(look, Attributes.sample(random), where)], FRAME_SIDE, FRAME_SIDE, int(random.integers(1 << 31))
        )
        shots.append((scene.frame, scene.landmarks[0]))
    return shots


def batch(album: Album, number: int, size: int, wear: Wear, seed: int) -> Batch:
    """Training batch `number`; the same arguments give the same batch, and every epoch shows each photograph once.

    All crops of a batch are cut at one side of 64..112 px, which changes from batch to batch.
    """
    per_epoch = max(len(album) // size, 1)
    order = np.random.default_rng([seed, number // per_epoch]).permutation(len(album))
    chosen = np.sort(order[number % per_epoch * size :][:size])
    random = np.random.default_rng([seed, number, 1])
    side = int(random.integers(64, ENCODER_SIDE + 1))
    crops = torch.stack([worn_crop(album.frames[k], album.landmarks[k], side, wear, random) for k in chosen])
    pixels = (to_encoder_square(crops) * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy()
    return pixels, album.person[chosen], album.identity[chosen]


def batches(album: Album, count: int, size: int, wear: Wear, seed: int) -> Iterator[Batch]:
    """Training batches 0..count, cut by a process of their own that stays a few ahead."""
    with ProcessPoolExecutor(1, get_context("spawn"), _keep_album, (album.folder,)) as pool:
        ahead: deque[Future[Batch]] = deque()
        for number in range(count + AHEAD):
            if number < count:
                ahead.append(pool.submit(_batch_of_kept, number, size, wear, seed))
            if number >= AHEAD and ahead:
                yield ahead.popleft().result()


def _keep_album(folder: Path) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _KEPT.append(open_album(folder))


def _batch_of_kept(number: int, size: int, wear: Wear, seed: int) -> Batch:
    return batch(_KEPT[0], number, size, wear, seed)


def worn_crop(frame: Pixels, landmarks: Floats, side: int, wear: Wear, random: np.random.Generator) -> Tensor:
    """[3, S, S] in 0..1: one crop, mirrored half of the time, worn by chance."""
    eye_distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    landmarks = landmarks + random.normal(0, wear.landmark_noise * eye_distance, (5, 2)).astype(np.float32)
    if wear != NO_WEAR and random.random() < 0.5:
        frame, landmarks = frame[:, ::-1], landmarks[MIRRORED]
        landmarks = np.stack([frame.shape[1] - 1 - landmarks[:, 0], landmarks[:, 1]], 1)
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)
    crop = cut_crops(pixels, landmarks[None], "arcface", side).pixels[0]
    if wear == NO_WEAR:
        return crop
    return torch.from_numpy(worn(crop.permute(1, 2, 0).numpy(), wear, random)).permute(2, 0, 1)


def worn(crop: Floats, wear: Wear, random: np.random.Generator) -> Floats:
    """[H, W, 3] in 0..1: brightness, blur, grain, JPEG, a painted square; each by chance."""
    crop = crop * np.float32(1 + random.uniform(-wear.brightness, wear.brightness))
    if random.random() < 0.4:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), max(wear.blur_px * random.random(), 0.05)), np.float32)
    if random.random() < 0.3:
        crop = crop + random.normal(0, wear.noise * random.random(), crop.shape).astype(np.float32)
    if random.random() < 0.2:
        crop = _through_jpeg(crop, int(random.integers(40, 95)))
    if random.random() < wear.erase:
        side = int(len(crop) * random.uniform(0.1, 0.3))
        x, y = random.integers(0, len(crop) - side, 2)
        crop = crop.copy()
        crop[y : y + side, x : x + side] = random.random(3)
    return np.ascontiguousarray(np.clip(crop, 0, 1), np.float32)


def _through_jpeg(crop: Floats, quality: int) -> Floats:
    pixels = np.clip(crop[..., ::-1] * 255 + 0.5, 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32)
    return decoded[..., ::-1] / np.float32(255)


def to_encoder_square(crops: Tensor) -> Tensor:
    """[B, 3, S, S] to [B, 3, 112, 112], as `IdentityEncoder` resizes."""
    if crops.shape[-1] == ENCODER_SIDE:
        return crops
    return F.interpolate(crops, (ENCODER_SIDE, ENCODER_SIDE), mode="bilinear", align_corners=False, antialias=True)
