"""Whether somebody can still be recognised in a result: its faces found again, and compared with their owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.faces.tracking import overlaps
from pipeline.swapping.work import BLURRED, Work, end_by_policy
from pipeline.types import Faces, Floats, Ints

_SAME_PLACE = 0.2
"""Overlap from which on a face of the result is where a face of the original is."""


@dataclass(frozen=True, slots=True)
class Leaks:
    """Faces of a result that can be recognised, or that nobody had found in the original.

    Attributes:
        faces: as they were found in the result.
        ticks: [L] times of their frames; 0 in a still.
        row: [L] which face of the work each is; -1 for one that nobody had found.
        cosine: [L] to the person of the original whom it looks like most.
    """

    faces: Faces
    ticks: Ints
    row: Ints
    cosine: Floats

    def __len__(self) -> int:
        return len(self.ticks)

    @classmethod
    def joined(cls, parts: Sequence[Leaks]) -> Leaks:
        """Leaks of several frames; one part at least."""
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ticks", "row", "cosine"))
        return cls(Faces.joined([part.faces for part in parts]), *columns)


def find_leaks(faces: Faces, work: Work, rows: Ints, everybody: Floats, limit: float, tick: int = 0) -> Leaks:
    """Compare the faces of a finished frame with the faces that were there before.

    Args:
        faces: of the result.
        work: that the result was made from.
        rows: of the work's faces in this frame.
        everybody: [Q, E] unit length: the people of the original.
        limit: cosine from which on a face can be recognised.
        tick: time of the frame.
    """
    owner, cosine = _owners(faces, work, rows, everybody)
    leaking = np.flatnonzero((cosine >= limit) | (owner < 0))
    return Leaks(faces.at(leaking), np.full(len(leaking), tick, np.int64), owner[leaking], cosine[leaking])


def _owners(faces: Faces, work: Work, rows: Ints, everybody: Floats) -> tuple[Ints, Floats]:
    """[L] whose places faces of a result are in, -1 for nobody's, and [L] cosine to whom of all they look like most."""
    owner = np.full(len(faces), -1, np.int64)
    if not len(faces):
        return owner, np.zeros(0, np.float32)
    cosine = np.asarray((faces.embedding @ everybody.T).max(axis=1, initial=-1.0), np.float32)
    if len(rows):
        shared = overlaps(faces.box, work.faces.box[rows])
        seen = work.faces.score[rows] > 0.0  # a place to hide is larger than a face, and may hold somebody else's
        inside = _holds_middle(work.faces.box[rows], faces.box) & seen
        shared = np.where(inside, np.maximum(shared, _SAME_PLACE), shared)
        best = shared.argmax(axis=1)
        there = shared.max(axis=1) >= _SAME_PLACE
        owner[there] = rows[best[there]]
        own = (faces.embedding[there] * work.faces.embedding[owner[there]]).sum(axis=1)
        cosine[there] = np.maximum(cosine[there], own)
    return owner, cosine


def _holds_middle(boxes: Floats, faces: Floats) -> NDArray[np.bool_]:
    """[L, N] whether each box holds the middle of each face."""
    middle = (faces[:, None, :2] + faces[:, None, 2:]) / 2
    return np.asarray(((middle >= boxes[None, :, :2]) & (middle <= boxes[None, :, 2:])).all(axis=2))


def refuse_leaks(item: str, leaks: Leaks, policy: str) -> None:
    """End an input whose result leaks.

    Raises:
        PolicyError: under `fail` (status failed) and `drop` (status skipped).
    """
    if not len(leaks):
        return
    unknown = int((leaks.row < 0).sum())
    problem = f"{len(leaks)} faces of the result could be recognised, up to a cosine of {leaks.cosine.max():.2f}"
    problem += f"; {unknown} of them nobody had found in the original" if unknown else ""
    end_by_policy(policy, item, "leak", problem, "Set policy.leak=blur, or lower analysis.min_score")


def without_leaks(work: Work, tracks: Ints, leaks: Leaks, to_frame: Floats) -> Work:
    """The work with every track that leaks blurred, and with the faces blurred that nobody had found.

    Args:
        work: with results for crops.
        tracks: [N] track of every face of the work.
        leaks: of its result.
        to_frame: [L, 2, 3] crop pixels to frame pixels of the leaks.
    """
    leaking = np.isin(tracks, tracks[leaks.row[leaks.row >= 0]])
    kept = torch.from_numpy(~leaking[work.become >= 0])
    masks = None if work.masks is None else work.masks[kept]
    become = np.where(leaking, BLURRED, work.become)
    work = replace(work, become=become, crops=work.crops[kept], masks=masks)
    rows = np.flatnonzero(leaks.row < 0)
    if not len(rows):
        return work
    unknown = np.full(len(rows), np.nan, np.float32)
    new = leaks.faces.at(rows)
    if not work.faces.embedding.shape[0]:  # of a result without a face before, whose embeddings have no length yet
        work = replace(work, faces=replace(work.faces, embedding=new.embedding[:0]))
    return replace(
        work,
        faces=Faces.joined([work.faces, new]),
        to_frame=np.concatenate([work.to_frame, to_frame[rows]]),
        become=np.concatenate([work.become, np.full(len(rows), BLURRED, np.int64)]),
        ticks=np.concatenate([work.ticks, leaks.ticks[rows]]),
        weight=np.concatenate([work.weight, np.ones(len(rows), np.float32)]),
        source_before=np.concatenate([work.source_before, unknown]),
        source_after=np.concatenate([work.source_after, unknown]),
        owner_after=np.concatenate([work.owner_after, unknown]),
    )
