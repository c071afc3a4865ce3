"""Who is who from frame to frame: faces of a video linked to tracks, short gaps bridged.

A track is one person in one shot. It is found by where faces are and by whom they look like: where boxes overlap, a
turned face may look like anybody, and where somebody is plainly somebody else, overlap proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.config import TracksConfig
from pipeline.types import Faces, Floats, Ints


@dataclass(frozen=True, slots=True)
class Tracks:
    """Faces of a video with their tracks, ordered by frame.

    Attributes:
        faces: found ones and bridged ones, without their embeddings; `frame` counts from the video's first.
        track: [N] number of each face's track, 0 ... in the order of their first faces.
        bridged: [N] whether nobody saw the face: its place lies between those before and after.
        likeness: [P, E] unit length: whom each track shows, the mean of its faces, large and sure ones counting most.
    """

    faces: Faces
    track: Ints
    bridged: NDArray[np.bool_]
    likeness: Floats


@dataclass(slots=True)
class _Open:
    """A track that may go on."""

    number: int
    frame: int
    box: Floats
    speed: Floats
    likeness: Floats


def track_faces(faces: Faces, times: Floats, starts: NDArray[np.bool_], settings: TracksConfig) -> Tracks:
    """Link the faces of a video, and bridge gaps.

    Args:
        faces: of all frames, ordered by frame; embeddings may be float16.
        times: [T] seconds of every frame.
        starts: [T] whether a frame begins a shot.
        settings: how near is near.
    """
    track = _link(faces, times, starts, settings)
    return _bridge(faces, track, times)


def _link(faces: Faces, times: Floats, starts: NDArray[np.bool_], settings: TracksConfig) -> Ints:
    track = np.full(len(faces), -1, np.int64)
    going: list[_Open] = []
    count = 0
    for frame, rows in _by_frame(faces.frame):
        near = [one for one in going if times[frame] - times[one.frame] <= settings.max_gap_s]
        going = [one for one in near if not starts[one.frame + 1 : frame + 1].any()]
        for one, row in _pairs(going, rows, faces, frame, settings):
            track[row] = one.number
            _extend(one, row, faces, frame)
        for row in rows:
            if track[row] < 0:
                track[row] = count
                none = np.zeros(4, np.float32)
                going.append(_Open(count, frame, faces.box[row], none, faces.embedding[row].astype(np.float32)))
                count += 1
    return track


def _by_frame(frame: Ints) -> Iterator[tuple[int, Ints]]:
    """Frames that hold faces, with the faces' numbers."""
    at, first, count = np.unique(frame, return_index=True, return_counts=True)
    for number, start, many in zip(at.tolist(), first.tolist(), count.tolist(), strict=True):
        yield number, np.arange(start, start + many)


def _pairs(going: list[_Open], rows: Ints, faces: Faces, frame: int, settings: TracksConfig) -> list[tuple[_Open, int]]:
    """Tracks and the faces that continue them, the surest first."""
    if not going or not len(rows):
        return []
    places = np.stack([one.box + one.speed * min(frame - one.frame, 3) for one in going])
    overlap = overlaps(places, faces.box[rows])
    sizes = np.maximum((faces.box[rows][:, 2:] - faces.box[rows][:, :2]).max(axis=1), 1.0)
    middles = (places[:, None, :2] + places[:, None, 2:]) / 2 - (faces.box[rows][:, :2] + faces.box[rows][:, 2:]) / 2
    far = np.hypot(middles[..., 0], middles[..., 1]) / sizes
    likeness = np.stack([one.likeness for one in going])
    if likeness.shape[1]:
        norms = np.maximum(np.linalg.norm(likeness, axis=1, keepdims=True), 1e-6)
        cosine = (likeness / norms) @ faces.embedding[rows].astype(np.float32).T
    else:
        cosine = np.full(overlap.shape, settings.different_cosine, np.float32)
    fits = (overlap >= settings.min_overlap) & (cosine >= settings.different_cosine)
    fits |= (cosine >= settings.same_cosine) & (far <= settings.reach)
    value = np.where(fits, overlap + cosine, -np.inf)
    pairs, used = [], set[int]()
    for flat in np.argsort(-value, axis=None, kind="stable"):
        mine, theirs = divmod(int(flat), len(rows))
        if value[mine, theirs] == -np.inf:
            break
        if mine not in used and ~theirs not in used:
            used |= {mine, ~theirs}
            pairs.append((going[mine], int(rows[theirs])))
    return pairs


def _extend(one: _Open, row: int, faces: Faces, frame: int) -> None:
    step = (faces.box[row] - one.box) / (frame - one.frame)
    one.speed = 0.5 * one.speed + 0.5 * step
    one.box, one.frame = faces.box[row], frame
    one.likeness += faces.embedding[row]


def overlaps(a: Floats, b: Floats) -> Floats:
    """[A, B] intersection over union of boxes [A, 4] and [B, 4]: left, top, right, bottom."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1) for boxes in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-6), np.float32)


def _bridge(faces: Faces, track: Ints, times: Floats) -> Tracks:
    """Put a face into every frame that a track leaves out."""
    frames, tracks, pairs = list[int](), list[int](), list[tuple[int, int]]()
    for number in range(int(track.max()) + 1 if len(track) else 0):
        for one, other in pairwise(np.flatnonzero(track == number).tolist()):
            missed = range(int(faces.frame[one]) + 1, int(faces.frame[other]))
            frames += missed
            tracks += [number] * len(missed)
            pairs += [(one, other)] * len(missed)
    before, after = np.array(pairs, np.int64).reshape(-1, 2).T
    frame = np.array(frames, np.int64)
    first, last = times[faces.frame[before]], times[faces.frame[after]]
    way = ((times[frame] - first) / np.maximum(last - first, 1e-9)).astype(np.float32)
    order = np.argsort(np.concatenate([faces.frame, frame]), kind="stable")

    def joined(values: Floats) -> Floats:
        share = way.reshape(-1, *[1] * (values.ndim - 1))
        return np.concatenate([values, (1 - share) * values[before] + share * values[after]])[order].astype(np.float32)

    everyone = Faces(
        np.concatenate([faces.frame, frame])[order],
        joined(faces.box),
        joined(faces.landmarks),
        joined(faces.score),
        np.zeros((len(order), 0), np.float32),
    )
    numbers = np.concatenate([track, np.array(tracks, np.int64)])[order]
    return Tracks(everyone, numbers, order >= len(faces), _likeness(faces, track))


def _likeness(faces: Faces, track: Ints) -> Floats:
    """[P, E] mean embedding of every track."""
    count = int(track.max()) + 1 if len(track) else 0
    sides = np.minimum(faces.box[:, 2] - faces.box[:, 0], faces.box[:, 3] - faces.box[:, 1])
    weight = (faces.score * np.maximum(sides, 1.0)).astype(np.float32)
    total = np.zeros((count, faces.embedding.shape[1]), np.float32)
    for number in range(count):
        rows = np.flatnonzero(track == number)
        total[number] = weight[rows] @ faces.embedding[rows].astype(np.float32)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12), np.float32)
