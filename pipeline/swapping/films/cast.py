"""Who is in a film: faces followed through time, tracks of one person joined, and what policies say of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.faces.clustering import cluster
from pipeline.faces.hiding import hide_places
from pipeline.faces.selection import STAYS
from pipeline.faces.smoothing import smooth
from pipeline.faces.tracking import Tracks, track_faces
from pipeline.media.shots import shot_starts
from pipeline.media.video import Span
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.look import Seen
from pipeline.swapping.work import BLURRED, Plan, end_by_policy
from pipeline.types import Faces, Floats, Ints

PLAYS, UNSURE = 0, -3
"""Fates of a track that becomes whatever its person becomes, and of one that is not sure enough to."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Every face of a film that is worked on, and the people they are.

    Attributes:
        ticks: [T] times of all frames.
        faces: found, bridged and hidden ones with steadied landmarks, in shown pixels, ordered by frame and without
            embeddings; `frame` is an index into `ticks`.
        track: [N] number of each face's track.
        bridged: [N] whether it was not seen, only expected; a track of nothing else is a place to hide.
        person: [P] number of each track's person.
        likeness: [P, E] unit length: whom each track shows.
        fate: [P] `PLAYS`, `UNSURE`, or `BLURRED` for a place to hide.
        weight: [N] 0..1 how much of a result shows.
        pieces: spans that hold every frame once, each of no more faces than a worker takes at a time.
    """

    ticks: Ints
    faces: Faces
    track: Ints
    bridged: NDArray[np.bool_]
    person: Ints
    likeness: Floats
    fate: Ints
    weight: Floats
    pieces: tuple[Span, ...]

    def between(self, span: Span) -> Ints:
        """Rows of the faces in a span."""
        at = self.ticks[self.faces.frame]
        return np.flatnonzero((at >= span.begin) & (at < span.end))

    def people(self) -> tuple[Floats, Floats]:
        """[Q, E] whom each person looks like, unit length, and [Q] the area of all their faces in pixels."""
        sides = self.faces.box[:, 2:] - self.faces.box[:, :2]
        area = np.where(self.bridged, 0.0, np.prod(np.maximum(sides, 0.0), axis=1))
        by_track = np.bincount(self.track, weights=area, minlength=len(self.person))
        count = int(self.person.max()) + 1 if len(self.person) else 0
        total = np.zeros((count, self.likeness.shape[1]), np.float32)
        np.add.at(total, self.person, self.likeness * by_track[:, None].astype(np.float32))
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return total, np.bincount(self.person, weights=by_track, minlength=count).astype(np.float32)

    def become(self, roles: Ints, low_confidence: str) -> Ints:
        """[P] what becomes of each track: index of a source, `STAYS` or `BLURRED`.

        Args:
            roles: [Q] the same of each person.
            low_confidence: the policy for tracks that get a source and are not sure enough for it.
        """
        if not len(self.fate):
            return self.fate
        played = roles[self.person]
        unsure = (self.fate == UNSURE) & (played >= 0)
        instead = np.where(unsure, BLURRED if low_confidence == "blur" else STAYS, played)
        return np.where(self.fate == BLURRED, BLURRED, instead)


class Casting:
    """Turns what was seen of a film into its cast.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._settings = plan.settings.videos
        self._anonymise = plan.settings.selection.mode == "anonymise"

    def __call__(self, film: Film, seen: Seen) -> Cast:
        """Follow the faces, find the people, apply the policies.

        Raises:
            PolicyError: the policy for films without a face ends it.
        """
        times = ((seen.ticks - film.info.start) * float(film.info.time_base)).astype(np.float32)
        starts = shot_starts(seen.signatures, self._settings.tracks.shot_change)
        tracks = track_faces(seen.faces, times, starts, self._settings.tracks)
        if not len(tracks.faces):
            self._without_faces(film)
        person = _people(tracks, self._settings.tracks.person_cosine)
        ease_s = 0.0 if self._anonymise else self._settings.ease_s
        cast = Cast(
            ticks=seen.ticks,
            faces=smooth(tracks, times, self._settings.smoothing),
            track=tracks.track,
            bridged=tracks.bridged,
            person=person,
            likeness=tracks.likeness,
            fate=np.where(self._unsure(tracks), UNSURE, PLAYS).astype(np.int64),
            weight=_eased(tracks, times, starts, ease_s),
            pieces=(),
        )
        if self._anonymise and len(tracks.faces):
            cast = _with_hidden(cast, tracks, times, starts, self._plan.settings.anonymise.hold_s)
        crop_bytes = 3 * self._plan.header.config.crop_size**2
        return replace(cast, pieces=_pieces(film, cast, self._settings.segments.crop_bytes // crop_bytes))

    def _without_faces(self, film: Film) -> None:
        policy = self._plan.settings.policy.no_face
        problem = f"no face above {self._plan.settings.analysis.min_score} in any frame"
        mend = "Lower analysis.min_score or set policy.no_face=copy"
        end_by_policy(policy, film.file.item, "no_face", problem, mend)

    def _unsure(self, tracks: Tracks) -> NDArray[np.bool_]:
        """[P] which tracks are not sure enough, by the median of their faces."""
        settings, faces = self._plan.settings, tracks.faces
        sides = (faces.box[:, 2:] - faces.box[:, :2]).min(axis=1)
        unsure = np.zeros(len(tracks.likeness), np.bool_)
        for number in range(len(unsure)):
            rows = (tracks.track == number) & ~tracks.bridged
            score, side = np.median(faces.score[rows]), np.median(sides[rows])
            unsure[number] = score < settings.analysis.confident_score or side < settings.analysis.min_face_px
        return unsure


def refuse_unsure(plan: Plan, item: str, unsure: Ints, roles: Ints) -> None:
    """Apply the policy for tracks that get a source and are not sure enough for it.

    Args:
        plan: of the job.
        item: the film's name.
        unsure: people of the tracks that are not sure enough.
        roles: [Q] what each person becomes.

    Raises:
        PolicyError: under `fail` (status failed) and `drop` (status skipped).
    """
    policy, count = plan.settings.policy.low_confidence, int((roles[unsure] >= 0).sum()) if len(unsure) else 0
    if count:
        mend = "Lower analysis.confident_score or set policy.low_confidence=blur"
        end_by_policy(policy, item, "low_confidence", f"{count} tracks are not sure enough", mend)


def _people(tracks: Tracks, min_cosine: float) -> Ints:
    """[P] person of every track, numbered by when they are first seen, from left to right."""
    if not tracks.likeness.shape[1]:
        return np.arange(len(tracks.likeness), dtype=np.int64)
    group = cluster(tracks.likeness, min_cosine) if len(tracks.likeness) else np.zeros(0, np.int64)
    first = np.full(int(group.max()) + 1 if len(group) else 0, len(tracks.track), np.int64)
    np.minimum.at(first, group[tracks.track], np.arange(len(tracks.track)))
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[group]


def _eased(tracks: Tracks, times: Floats, starts: NDArray[np.bool_], ease_s: float) -> Floats:
    """[N] weights that rise where a track begins in the middle of a shot, and fall where it ends in one."""
    weight = np.ones(len(tracks.track), np.float32)
    if ease_s <= 0.0:
        return weight
    edges = np.append(starts, True)
    for number in range(int(tracks.track.max()) + 1 if len(weight) else 0):
        rows = np.flatnonzero(tracks.track == number)
        first, last = int(tracks.faces.frame[rows[0]]), int(tracks.faces.frame[rows[-1]])
        at = times[tracks.faces.frame[rows]]
        if not edges[first]:
            weight[rows] = np.minimum(weight[rows], (at - times[first - 1]) / ease_s)
        if not edges[last + 1]:
            weight[rows] = np.minimum(weight[rows], (times[last + 1] - at) / ease_s)
    return np.clip(weight, 0.0, 1.0)


def _with_hidden(cast: Cast, tracks: Tracks, times: Floats, starts: NDArray[np.bool_], hold_s: float) -> Cast:
    """The cast with the places where a face may be that was not found, as further tracks that are blurred."""
    hidden = hide_places(tracks, cast.person, times, starts, hold_s)
    if not len(hidden.faces):
        return cast
    missing, twin = np.unique(hidden.track, return_inverse=True)
    faces = Faces.joined([cast.faces, hidden.faces])
    order = np.argsort(faces.frame, kind="stable")
    count = len(hidden.faces)
    return replace(
        cast,
        faces=faces.at(order),
        track=np.concatenate([cast.track, len(cast.person) + twin.astype(np.int64)])[order],
        bridged=np.concatenate([cast.bridged, np.ones(count, np.bool_)])[order],
        weight=np.concatenate([cast.weight, np.ones(count, np.float32)])[order],
        person=np.concatenate([cast.person, cast.person[missing]]),
        likeness=np.concatenate([cast.likeness, cast.likeness[missing]]),
        fate=np.concatenate([cast.fate, np.full(len(missing), BLURRED, np.int64)]),
    )


def _pieces(film: Film, cast: Cast, most: int) -> tuple[Span, ...]:
    """The film's spans, cut further where one holds more faces than a worker takes at a time."""
    pieces = list[Span]()
    for span in film.spans:
        begin, held = span.begin, 0
        frames, counts = np.unique(cast.faces.frame[cast.between(span)], return_counts=True)
        for frame, count in zip(frames.tolist(), counts.tolist(), strict=True):
            if held and held + count > most:
                border = int(cast.ticks[frame])
                pieces.append(Span(begin, border))
                begin, held = border, 0
            held += count
        pieces.append(Span(begin, span.end))
    return tuple(pieces)
