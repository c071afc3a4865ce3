"""Who becomes whom in a film: decided once, for people, not for frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PolicyError
from pipeline.faces.clustering import cluster
from pipeline.faces.selection import STAYS, Reference
from pipeline.faces.smoothing import smooth
from pipeline.faces.tracking import Tracks, track_embeddings, track_faces
from pipeline.media.shots import shot_starts
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.look import Seen
from pipeline.swapping.work import BLURRED, Plan
from pipeline.types import Faces, Floats, Ints


@dataclass(frozen=True, slots=True)
class Cast:
    """Every face of a film that is worked on, and what becomes of it.

    Attributes:
        ticks: [T] times of all frames.
        faces: found ones and bridged ones with steadied landmarks, in shown pixels; `frame` is an index into `ticks`.
        track: [N] number of each face's track.
        bridged: [N] whether it was not seen, only expected.
        person: [P] number of each track's person.
        become: [P] index of each track's source, `STAYS` or `BLURRED`.
        weight: [N] 0..1 how much of a result shows.
    """

    ticks: Ints
    faces: Faces
    track: Ints
    bridged: NDArray[np.bool_]
    person: Ints
    become: Ints
    weight: Floats

    def between(self, begin: int, end: int) -> Ints:
        """Rows of the faces with `begin <= tick < end`."""
        at = self.ticks[self.faces.frame]
        return np.flatnonzero((at >= begin) & (at < end))


class Casting:
    """Turns what was seen of a film into its cast.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._settings = plan.settings.videos

    def __call__(self, film: Film, seen: Seen) -> Cast:
        """Follow the faces, find the people, choose.

        Raises:
            PolicyError: the policy for films without a face, or for faces that are not sure enough, ends it.
        """
        times = ((seen.ticks - film.info.start) * float(film.info.time_base)).astype(np.float32)
        starts = shot_starts(seen.signatures, self._settings.tracks.shot_change)
        tracks = track_faces(seen.faces, times, starts, self._settings.tracks)
        if not len(tracks.faces):
            self._without_faces(film)
        embeddings = track_embeddings(tracks)
        people = _people(embeddings, tracks, self._settings.tracks.person_cosine)
        become = self._sure(film, tracks, self._choose(tracks, embeddings, people))
        weight = _eased(tracks, times, starts, self._settings.ease_s)
        faces = smooth(tracks, times, self._settings.smoothing)
        return Cast(seen.ticks, faces, tracks.track, tracks.bridged, people, become, weight)

    def _choose(self, tracks: Tracks, embeddings: Floats, people: Ints) -> Ints:
        """[P] source of every track: that of its person."""
        settings, sources = self._plan.settings.selection, len(self._plan.sources)
        if settings.mode == "mapping":
            return _by_likeness(embeddings, people, self._plan.references, settings.min_cosine)
        if settings.mode == "largest" and len(people):
            area = np.prod(tracks.faces.box[:, 2:] - tracks.faces.box[:, :2], axis=1)
            total = np.bincount(people[tracks.track], weights=area)
            return np.where(people == total.argmax(), 0, STAYS).astype(np.int64)
        return people % sources

    def _without_faces(self, film: Film) -> None:
        policy = self._plan.settings.policy.no_face
        problem = f"no face above {self._plan.settings.analysis.min_score} in any frame"
        if policy != "copy":
            status = "skipped" if policy == "drop" else "failed"
            mend = "Lower analysis.min_score or set policy.no_face=copy"
            raise PolicyError(film.file.item, problem, mend, code="no_face", status=status)

    def _sure(self, film: Film, tracks: Tracks, become: Ints) -> Ints:
        """Apply the policy to tracks that are not sure enough."""
        settings, faces = self._plan.settings, tracks.faces
        sides = (faces.box[:, 2:] - faces.box[:, :2]).min(axis=1)
        unsure = np.zeros(len(become), np.bool_)
        for number in range(len(become)):
            rows = (tracks.track == number) & ~tracks.bridged
            score, side = np.median(faces.score[rows]), np.median(sides[rows])
            unsure[number] = score < settings.analysis.confident_score or side < settings.analysis.min_face_px
        unsure &= become >= 0
        policy = settings.policy.low_confidence
        if not unsure.any():
            return become
        if policy in ("fail", "drop"):
            status = "failed" if policy == "fail" else "skipped"
            problem = f"{int(unsure.sum())} of {len(become)} tracks not sure enough"
            mend = "Lower analysis.confident_score or set policy.low_confidence=blur"
            raise PolicyError(film.file.item, problem, mend, code="low_confidence", status=status)
        return np.where(unsure, BLURRED if policy == "blur" else STAYS, become)


def _people(embeddings: Floats, tracks: Tracks, min_cosine: float) -> Ints:
    """[P] person of every track, numbered by when they are first seen, from left to right."""
    if not embeddings.shape[1]:
        return np.arange(len(embeddings), dtype=np.int64)
    group = cluster(embeddings, min_cosine) if len(embeddings) else np.zeros(0, np.int64)
    first = np.full(int(group.max()) + 1 if len(group) else 0, len(tracks.track), np.int64)
    np.minimum.at(first, group[tracks.track], np.arange(len(tracks.track)))
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[group]


def _by_likeness(embeddings: Floats, people: Ints, references: tuple[Reference, ...], min_cosine: float) -> Ints:
    """The person whose track looks most like a reference becomes its source, in all tracks."""
    wanted = np.stack([reference.embedding for reference in references])
    become = np.full(len(people), STAYS, np.int64)
    for person in np.unique(people):
        mean = embeddings[people == person].mean(axis=0)
        cosine = wanted @ (mean / max(float(np.linalg.norm(mean)), 1e-12))
        if cosine.max() >= min_cosine:
            become[people == person] = references[int(cosine.argmax())].source
    return become


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
