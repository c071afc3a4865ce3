"""Where a face may be that nobody found: what is made unrecognisable when nobody may be seen by mistake.

A detector misses faces that turn, blur or pass behind something. Where a person was there before and is there after,
they were there in between; where a face was first or last seen in the middle of a shot, it did not come from nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.tracking import Tracks
from pipeline.types import Faces, Floats, Ints

_GROWN = (1.5, 3.0)
"""Size of a hidden place in sizes of the face, where it was just seen and where it has long been unseen."""

_GROWS_S = 1.0
"""Time after which a place has grown to its largest."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Places to hide.

    Attributes:
        faces: with landmarks far enough apart to cover the place, of score 0.
        track: [M] number of the track that each is missing from.
    """

    faces: Faces
    track: Ints


def hide_places(tracks: Tracks, person: Ints, times: Floats, starts: NDArray[np.bool_], hold_s: float) -> Hidden:
    """Find the frames and places in which a face was not found and may be.

    Args:
        tracks: of a video.
        person: [P] of every track.
        times: [T] seconds of every frame.
        starts: [T] whether a frame begins a shot.
        hold_s: how long a place is hidden before a face is first, and after it is last seen in a shot.
    """
    count = len(person)
    rows = [np.flatnonzero(tracks.track == number) for number in range(count)]
    shot = np.cumsum(starts, dtype=np.int64)
    places: list[_Place] = []
    for number in range(count):
        first, last = rows[number][0], rows[number][-1]
        begin, end = (int(tracks.faces.frame[row]) for row in (first, last))
        own = shot[begin]
        before = range(int(np.searchsorted(times, times[begin] - hold_s)), begin)
        after = range(end + 1, int(np.searchsorted(times, times[end] + hold_s, side="right")))
        places += [_Place(f, number, first, first, 0.0) for f in before if shot[f] == own]
        places += [_Place(f, number, last, last, 0.0) for f in after if shot[f] == shot[end]]
    places += _between(tracks, rows, person, shot)
    return _hidden(tracks, [place for place in places if not _found_again(place, tracks, rows, person)], times)


@dataclass(frozen=True, slots=True)
class _Place:
    """A frame, the track that is missing there, and the faces between which it lies, by how much of the way."""

    frame: int
    track: int
    before: int
    after: int
    way: float


def _between(tracks: Tracks, rows: list[Ints], person: Ints, shot: Ints) -> Iterator[_Place]:
    """Frames between two tracks of one person in one shot."""
    frame = tracks.faces.frame
    for one in np.unique(person):
        mine = np.flatnonzero(person == one).tolist()
        for later in mine:
            first = rows[later][0]
            end = int(frame[first])
            over = [(int(frame[rows[n][-1]]), n) for n in mine if frame[rows[n][-1]] < end]
            begin, earlier = max(over, default=(-1, -1))  # the one that was seen last
            if begin >= 0 and shot[begin] == shot[end]:
                last = rows[earlier][-1]
                for at in range(begin + 1, end):
                    yield _Place(at, earlier, int(last), int(first), (at - begin) / (end - begin))


def _found_again(place: _Place, tracks: Tracks, rows: list[Ints], person: Ints) -> bool:
    """Whether the very person is found in the frame: on a track that has no frame in common with the missing one."""
    frame = tracks.faces.frame
    begin, end = frame[rows[place.track][0]], frame[rows[place.track][-1]]
    there = tracks.track[np.searchsorted(frame, place.frame) : np.searchsorted(frame, place.frame, side="right")]
    others = (rows[n] for n in there.tolist() if person[n] == person[place.track])
    return any(frame[one[0]] > end or frame[one[-1]] < begin for one in others)


def _hidden(tracks: Tracks, places: list[_Place], times: Floats) -> Hidden:
    taken = {(p.frame, p.track): p for p in places}  # what lies between two is surer than what is held
    places = sorted(taken.values(), key=lambda p: (p.frame, p.track))
    faces = tracks.faces
    frame = np.array([p.frame for p in places], np.int64)
    before, after = (np.array([getattr(p, n) for p in places], np.int64) for n in ("before", "after"))
    way = np.array([p.way for p in places], np.float32)
    unseen = np.minimum(*(np.abs(times[frame] - times[faces.frame[seen]]) for seen in (before, after)))
    grown = _GROWN[0] + (_GROWN[1] - _GROWN[0]) * np.minimum(unseen / _GROWS_S, 1.0)

    def placed(points: Floats) -> Floats:
        """[M, K, 2] points between those before and after, spread from their middle."""
        mean = points[before] * (1 - way[:, None, None]) + points[after] * way[:, None, None]
        middle = mean.mean(axis=1, keepdims=True)
        return np.asarray(middle + (mean - middle) * grown[:, None, None], np.float32)

    box = placed(faces.box.reshape(-1, 2, 2)).reshape(-1, 4)
    none = np.zeros(len(places), np.float32)
    return Hidden(
        Faces(frame, box, placed(faces.landmarks), none, np.zeros((len(places), 0), np.float32)),
        np.array([p.track for p in places], np.int64),
    )
