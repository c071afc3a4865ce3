"""What the stages share: the plan of a job, and one input on its way through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.config import SwapConfig
from pipeline.errors import ItemError, PolicyError
from pipeline.faces.selection import Reference
from pipeline.media.inputs import InputFile, Inputs
from pipeline.media.store import Store, store_at
from pipeline.model.checkpoint import CheckpointHeader
from pipeline.types import Faces, Floats, Identity, Ints

BLURRED = -2
"""Stands in for a source's index: this face is made unrecognisable instead."""

DONE_BY = {"blur": "blurred", "copy": "copied"}
"""What a policy that gives a result has done, as reasons say it."""

_NO_CROPS = torch.zeros((0, 3, 0, 0), dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the stages share; small enough to go to every worker.

    Attributes:
        settings: of the job.
        header: of the checkpoint: architecture and digests.
        sources: who faces may become.
        references: whom to look for, in selection mode `mapping`.
        recipe: digest of all that decides a result besides the input.
    """

    settings: SwapConfig
    header: CheckpointHeader
    sources: tuple[Identity, ...]
    references: tuple[Reference, ...]
    recipe: str

    def inputs(self) -> Inputs:
        """A reader of the job's inputs."""
        settings = self.settings
        return Inputs(settings.inputs, settings.images, settings.storage, settings.shards)

    def originals(self) -> Store:
        """Where the inputs lie."""
        return store_at(self.settings.inputs, self.settings.storage)

    def output(self) -> Store:
        """Where the results go."""
        return store_at(self.settings.output, self.settings.storage)


@dataclass(frozen=True, slots=True)
class End:
    """Why an input gets no result.

    Attributes:
        status: `failed` or `skipped`.
        code: short reason that receipts are counted by.
        detail: the whole sentence.
    """

    status: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Work:
    """One input between the stages.

    Attributes:
        file: the input.
        sha256: hex digest of its bytes; empty until they were read.
        width: of the upright frame in pixels; 0 until its faces were looked for.
        height: of the upright frame in pixels.
        faces: all that were found.
        to_frame: [N, 2, 3] crop pixels to frame pixels.
        become: [N] index of each face's source, `STAYS` or `BLURRED`.
        crops: [K, 3, S, S] u8 of the K faces with a source: target crops, after the swap results.
        masks: [K, S, S] u8 of a mask model, or None.
        source_before: [N] cosine of each face to its source; NaN when unknown.
        source_after: [N] the same for the result.
        owner_after: [N] cosine of the result to the original face.
        reason: short code of what a policy or selection decided about an input that gets a result.
        whole: `blur` or `copy` when a policy decides over the image as a whole, else empty.
        analyse_s: seconds spent on it in the first stage.
        swap_s: in the second stage.
        end: set when the input gets no result; the later stages pass it on.
        segment: number of the video's piece that this is; 0 for a still.
        ticks: [N] time of each face's frame in the video's ticks; empty for a still.
        weight: [N] 0..1 how much of each result shows: results ease in and out; empty for a still.
    """

    file: InputFile
    sha256: str
    width: int
    height: int
    faces: Faces
    to_frame: Floats
    become: Ints
    crops: Tensor
    masks: Tensor | None
    source_before: Floats
    source_after: Floats
    owner_after: Floats
    reason: str = ""
    whole: str = ""
    analyse_s: float = 0.0
    swap_s: float = 0.0
    end: End | None = None
    segment: int = 0
    ticks: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def of(cls, file: InputFile, segment: int = 0) -> Work:
        """An input, or a piece of a video, of which nothing is known yet."""
        none = np.zeros(0, np.float32)
        faces = Faces(np.zeros(0, np.int64), none.reshape(0, 4), none.reshape(0, 5, 2), none, none.reshape(0, 0))
        become = np.zeros(0, np.int64)
        geometry = none.reshape(0, 2, 3)
        return cls(file, "", 0, 0, faces, geometry, become, _NO_CROPS, None, none, none, none, segment=segment)

    def ended_by(self, error: ItemError) -> Work:
        """The same input without a result, and why."""
        return replace(self, crops=_NO_CROPS, masks=None, end=End(error.status, error.code, str(error)))


def end_by_policy(policy: str, item: str, code: str, problem: str, mend: str) -> None:
    """End an input where a policy says so.

    Args:
        policy: `fail`, `drop`, `blur` or `copy`.
        item: the input's name.
        code: short reason that receipts are counted by.
        problem: what is wrong, without a full stop.
        mend: what the reader can do about it.

    Raises:
        PolicyError: under `fail` (status failed) and `drop` (status skipped).
    """
    if policy in ("fail", "drop"):
        status = "failed" if policy == "fail" else "skipped"
        raise PolicyError(item, problem, mend, code=code, status=status)


def to_bytes(pixels: Tensor) -> Tensor:
    """f32 0..1 to the nearest u8."""
    return (pixels * 255.0).round_().clamp_(0, 255).to(torch.uint8)


def cosines_to_sources(embedding: Floats, chosen: Ints, become: Ints, sources: Sequence[Identity]) -> Floats:
    """[N] cosine of the chosen faces to their sources; NaN for the others and where embeddings are unknown."""
    cosine = np.full(len(embedding), np.nan, np.float32)
    for index in chosen:
        wanted = sources[become[index]].embedding
        if embedding.shape[1] == len(wanted):
            cosine[index] = float(embedding[index] @ wanted)
    return cosine


def use_threads(threads: int) -> None:
    """Limit torch and OpenCV of this process to so many threads."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
