from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.config import SmoothingConfig, TracksConfig
from pipeline.faces.smoothing import smooth
from pipeline.faces.tracking import Tracks, track_faces
from pipeline.types import Faces
from tests.factories import unit_vectors

RATE = 25.0
WHO = unit_vectors(6, 32, seed=4)
POINTS = np.array([[-17, -13], [17, -13], [0, 8], [-13, 23], [13, 23]], np.float32)

Row = tuple[int, float, float, int]  # frame, x, y, person


def make(rows: list[Row], size: float = 60.0, noise: float = 0.0, likeness: float = 1.0) -> Faces:
    """Faces at places; embeddings of a person are alike by `likeness`."""
    random = np.random.default_rng(0)
    rows = sorted(rows, key=lambda row: row[0])
    middle = np.array([[x, y] for _, x, y, _ in rows], np.float32).reshape(-1, 2)
    landmarks = middle[:, None] + POINTS + random.normal(0, noise, (len(rows), 5, 2)).astype(np.float32)
    embedding = likeness * WHO[np.array([who for *_, who in rows], np.int64)] + np.sqrt(1 - likeness**2) * unit_vectors(
        len(rows), 32, 9
    )
    embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    half = np.full((len(rows), 2), size / 2, np.float32)
    box = np.concatenate([middle - half, middle + half], axis=1)
    frame = np.array([row[0] for row in rows], np.int64)
    return Faces(frame, box, landmarks, np.full(len(rows), 0.9, np.float32), embedding.astype(np.float32))


def follow(rows: list[Row], frames: int, starts: tuple[int, ...] = (0,), **changes: Any) -> Tracks:
    begins = np.zeros(frames, np.bool_)
    begins[list(starts)] = True
    settings = TracksConfig(**changes.pop("settings", {}))
    return track_faces(make(rows, **changes), np.arange(frames, dtype=np.float32) / np.float32(RATE), begins, settings)


def people_of(tracks: Tracks, rows: list[Row]) -> dict[int, set[int]]:
    """Which people each track shows."""
    who = np.array([row[3] for row in sorted(rows, key=lambda row: row[0])])
    found = tracks.track[~tracks.bridged]
    return {int(t): set(who[found == t].tolist()) for t in np.unique(found)}


def test_two_people_who_cross_stay_who_they_are() -> None:
    rows = [row for n in range(60) for row in ((n, 100 + 4.0 * n, 100.0, 0), (n, 340 - 4.0 * n, 104.0, 1))]
    tracks = follow(rows, 60, likeness=0.8)
    assert people_of(tracks, rows) == {0: {0}, 1: {1}}


def test_a_turned_face_that_looks_like_nobody_stays_on_its_track() -> None:
    rows = [(n, 100.0 + n, 100.0, 0 if not 20 <= n < 30 else 5) for n in range(50)]
    tracks = follow(rows, 50, settings={"different_cosine": -0.9})
    assert np.unique(tracks.track).tolist() == [0]


def test_somebody_else_in_the_same_place_is_another_track() -> None:
    rows = [(n, 100.0, 100.0, 0 if n < 20 else 1) for n in range(40)]
    tracks = follow(rows, 40, settings={"different_cosine": 0.3})
    assert people_of(tracks, rows) == {0: {0}, 1: {1}}


def test_a_short_gap_is_bridged_and_marked_and_a_long_one_is_not() -> None:
    short = [(n, 100.0 + 2 * n, 100.0, 0) for n in range(40) if not 10 <= n < 18]
    tracks = follow(short, 40)
    assert np.unique(tracks.track).tolist() == [0]
    assert tracks.faces.frame.tolist() == list(range(40))
    assert np.flatnonzero(tracks.bridged).tolist() == list(range(10, 18))
    middles = tracks.faces.landmarks.mean(axis=1)[:, 0]
    assert np.diff(middles) == pytest.approx(np.full(39, 2.0), abs=0.01)
    long = [(n, 100.0, 100.0, 0) for n in range(60) if not 10 <= n < 40]
    assert len(np.unique(follow(long, 60).track)) == 2
    assert not follow(long, 60).bridged.any()


def test_a_new_shot_ends_every_track_even_in_a_gap() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(40) if n != 20]
    tracks = follow(rows, 40, starts=(0, 20))
    assert tracks.track.tolist() == [0] * 20 + [1] * 19
    assert not tracks.bridged.any()


def test_a_jump_is_followed_if_it_is_plainly_the_same_person() -> None:
    rows = [(n, 100.0 + (80 if n >= 10 else 0), 100.0, 0) for n in range(20)]
    assert len(np.unique(follow(rows, 20).track)) == 1
    assert len(np.unique(follow(rows, 20, settings={"same_cosine": 1.0, "reach": 0.1}).track)) == 2


def test_a_track_is_whom_its_large_sure_faces_show() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(30)]
    tracks = follow(rows, 30, likeness=0.6)
    assert float(tracks.likeness[0] @ WHO[0]) > 0.9


def test_without_embeddings_places_decide() -> None:
    faces = make([(n, 100.0 + 200 * w, 100.0, w) for n in range(10) for w in (0, 1)])
    bare = Faces(faces.frame, faces.box, faces.landmarks, faces.score, np.zeros((20, 0), np.float32))
    times, starts = np.arange(10, dtype=np.float32), np.arange(10) == 0
    tracks = track_faces(bare, times / np.float32(RATE), starts, TracksConfig())
    assert tracks.track.tolist() == [0, 1] * 10
    assert tracks.likeness.shape == (2, 0)


def test_nobody_is_no_track() -> None:
    tracks = follow([], 5)
    assert (len(tracks.faces), len(tracks.track), tracks.likeness.shape[0]) == (0, 0, 0)


def still(noise: float, seconds: float = 8.0) -> Tracks:
    frames = int(seconds * RATE)
    return follow([(n, 300.0, 200.0, 0) for n in range(frames)], frames, noise=noise)


def test_a_still_face_with_detector_noise_moves_at_least_three_times_less() -> None:
    tracks = still(noise=0.6)  # about 2 % of the distance between eyes and mouth
    times = np.arange(200, dtype=np.float32) / np.float32(RATE)
    before, after = tracks.faces.landmarks, smooth(tracks, times, SmoothingConfig()).landmarks
    jitter = [np.abs(np.diff(points, axis=0)).mean() for points in (before, after)]
    wander = [points.std(axis=0).mean() for points in (before, after)]
    assert jitter[1] < jitter[0] / 8
    assert wander[1] < wander[0] / 3


def test_a_moving_face_is_not_left_behind() -> None:
    frames = 100
    x = 300 + 120 * np.sin(np.arange(frames) / RATE * 2 * np.pi * 0.5)  # there and back in 2 s, 10 px a frame
    tracks = follow([(n, float(x[n]), 200.0, 0) for n in range(frames)], frames, noise=0.3)
    smoothed = smooth(tracks, np.arange(frames, dtype=np.float32) / np.float32(RATE), SmoothingConfig())
    error = smoothed.landmarks.mean(axis=1)[:, 0] - (x + POINTS[:, 0].mean())
    assert np.abs(error[5:-5]).max() < 2.5, "pixels, of a face of 60"


def test_smoothing_can_be_left_out_and_never_mixes_tracks() -> None:
    rows = [row for n in range(30) for row in ((n, 100.0, 100.0, 0), (n, 400.0, 100.0, 1))]
    tracks = follow(rows, 30, noise=0.5)
    times = np.arange(30, dtype=np.float32) / np.float32(RATE)
    assert smooth(tracks, times, SmoothingConfig(enabled=False)) is tracks.faces
    middles = smooth(tracks, times, SmoothingConfig()).landmarks.mean(axis=(1, 2))
    assert np.ptp(middles[tracks.track == 0]) < 3
    assert abs(middles[tracks.track == 1].mean() - middles[tracks.track == 0].mean()) > 100
