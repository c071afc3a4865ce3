"""Whether somebody can still be recognised in a result: its faces found again, and compared with their owners."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PolicyError
from pipeline.faces.alignment import compose, frame_to_crop, invert
from pipeline.faces.tracking import overlaps
from pipeline.media.video import FOREVER, Span, probe
from pipeline.media.video_decoding import decode, shown
from pipeline.swapping.films.cast import Cast
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.look import Look
from pipeline.swapping.work import BLURRED, Plan, Work
from pipeline.types import Faces, Floats, Ints

_SAME_PLACE = 0.2
"""Overlap from which on a face of the result is where a face of the original is."""


@dataclass(frozen=True, slots=True)
class Leaks:
    """Faces of a part that can be recognised, or that nothing covers.

    Attributes:
        faces: as they were found in the result.
        ticks: [L] times of their frames.
        row: [L] which face of the work each is; -1 for one that nobody had found in the original.
        cosine: [L] to its owner, or to the person of the film whom it looks like most.
    """

    faces: Faces
    ticks: Ints
    row: Ints
    cosine: Floats

    def __len__(self) -> int:
        return len(self.ticks)


class LeakCheck:
    """Finds who can be recognised in an encoded part.

    Args:
        plan: of the job, which anonymises.
    """

    def __init__(self, plan: Plan) -> None:
        self._limit = plan.settings.anonymise.leak_cosine
        self._threads = plan.settings.pools.finish.threads
        self._look = Look(plan)

    def __call__(self, film: Film, cast: Cast, work: Work, part: str) -> Leaks:
        """Look at every frame of a part.

        Args:
            film: that it is of.
            cast: of the film.
            work: that the part was rendered from.
            part: path of the MP4.

        Raises:
            ItemError: the part cannot be decoded.
        """
        info = replace(probe(part, film.file.item), rotation=film.info.rotation, sample_aspect=film.info.sample_aspect)
        span = cast.pieces[work.segment]
        ticks = cast.ticks[(cast.ticks >= span.begin) & (cast.ticks < span.end)]
        everybody, _ = cast.people()
        found: list[Faces] = []
        facts: list[tuple[int, int, float]] = []
        frames = decode(part, film.file.item, info, Span(-FOREVER, FOREVER), self._threads)
        for tick, frame in zip(ticks.tolist(), frames, strict=True):
            faces = self._look.faces(shown(frame, info), film.file.item)
            rows = np.flatnonzero(work.ticks == tick)
            owner, cosine = _owners(faces, work, rows, everybody)
            leaking = np.flatnonzero((cosine >= self._limit) | (owner < 0))
            found.append(faces.at(leaking))
            facts += [(tick, int(owner[n]), float(cosine[n])) for n in leaking]
        columns = np.array([fact[:2] for fact in facts], np.int64).reshape(-1, 2)
        return Leaks(
            Faces.joined(found), columns[:, 0], columns[:, 1], np.array([fact[2] for fact in facts], np.float32)
        )


def _owners(faces: Faces, work: Work, rows: Ints, everybody: Floats) -> tuple[Ints, Floats]:
    """[L] whose places faces of a result are in, -1 for nobody's, and [L] cosine to the owner, or to the likeliest."""
    owner = np.full(len(faces), -1, np.int64)
    if not len(faces):
        return owner, np.zeros(0, np.float32)
    cosine = np.asarray((faces.embedding @ everybody.T).max(axis=1, initial=-1.0), np.float32)
    if len(rows):
        shared = overlaps(faces.box, work.faces.box[rows])
        inside = _holds_middle(work.faces.box[rows], faces.box)
        shared = np.where(inside, np.maximum(shared, _SAME_PLACE), shared)
        best = shared.argmax(axis=1)
        there = shared.max(axis=1) >= _SAME_PLACE
        owner[there] = rows[best[there]]
        cosine[there] = (faces.embedding[there] * work.faces.embedding[owner[there]]).sum(axis=1)
    return owner, cosine


def _holds_middle(boxes: Floats, faces: Floats) -> NDArray[np.bool_]:
    """[L, N] whether each box holds the middle of each face."""
    middle = (faces[:, None, :2] + faces[:, None, 2:]) / 2
    return np.asarray(((middle >= boxes[None, :, :2]) & (middle <= boxes[None, :, 2:])).all(axis=2))


def leak_error(item: str, leaks: Leaks, policy: str) -> PolicyError:
    """Why a film with leaks gets no result."""
    unknown = int((leaks.row < 0).sum())
    problem = f"{len(leaks)} faces of the result could be recognised, up to a cosine of {leaks.cosine.max():.2f}"
    problem += f"; {unknown} of them nobody had found in the original" if unknown else ""
    status = "skipped" if policy == "drop" else "failed"
    return PolicyError(item, problem, "Set policy.leak=blur, or lower analysis.min_score", code="leak", status=status)


def without_leaks(work: Work, tracks: Ints, leaks: Leaks, film: Film, plan: Plan) -> Work:
    """The work with every track that leaks blurred, and with the faces blurred that nobody had found.

    Args:
        work: with results for crops.
        tracks: [N] track of every face of the work.
        leaks: of its part.
        film: that it is of.
        plan: of the job.
    """
    leaking = np.isin(tracks, tracks[leaks.row[leaks.row >= 0]])
    kept = ~leaking[work.become >= 0]
    become = np.where(leaking, BLURRED, work.become)
    crops, masks = work.crops[torch.from_numpy(kept)], work.masks
    work = replace(work, become=become, crops=crops, masks=None if masks is None else masks[torch.from_numpy(kept)])
    rows = np.flatnonzero(leaks.row < 0)
    if not len(rows):
        return work
    new, model = leaks.faces.at(rows), plan.header.config
    to_crop = frame_to_crop(new.landmarks, model.template, model.crop_size)
    unknown = np.full(len(rows), np.nan, np.float32)
    return replace(
        work,
        faces=Faces.joined([work.faces, new]),
        to_frame=np.concatenate([work.to_frame, compose(invert(film.info.to_shown()[None]), invert(to_crop))]),
        become=np.concatenate([work.become, np.full(len(rows), BLURRED, np.int64)]),
        ticks=np.concatenate([work.ticks, leaks.ticks[rows]]),
        weight=np.concatenate([work.weight, np.ones(len(rows), np.float32)]),
        source_before=np.concatenate([work.source_before, unknown]),
        source_after=np.concatenate([work.source_after, unknown]),
        owner_after=np.concatenate([work.owner_after, unknown]),
    )
