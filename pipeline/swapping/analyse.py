"""First stage: from a file to its faces, their crops, and who becomes whom."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ItemError, RefusedInputError
from pipeline.faces.alignment import cut_crops
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.selection import STAYS, Selector
from pipeline.faces.table import AnalysisTable, rows_to_faces
from pipeline.failpoints import fail_point
from pipeline.media.images import read_image
from pipeline.media.inputs import InputFile
from pipeline.swapping.work import (
    BLURRED,
    DONE_BY,
    Plan,
    Work,
    cosines_to_sources,
    end_by_policy,
    to_bytes,
    use_threads,
)
from pipeline.types import Crops, Faces, Floats, Ints


class Analyse:
    """From a file to its faces, their crops, and who becomes whom.

    Args:
        plan: of the job.

    Attributes:
        inputs: what it reads.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        use_threads(settings.pools.analyse.threads)
        self._plan, self.inputs = plan, plan.inputs()
        table = settings.analysis.read_table
        self._table = AnalysisTable(table, settings.storage) if table else None
        self._analyser = None
        if settings.models is not None:
            model, threads = plan.header.config, settings.pools.analyse.threads
            self._analyser = FaceAnalyser(settings.models, model.template, model.crop_size, settings.analysis, threads)
        self._select = Selector(settings.selection, plan.sources, plan.references)

    def look(self, file: InputFile) -> Faces | None:
        """Only find the faces of an input, from left to right; None where something is wrong with it."""
        try:
            data = self.inputs.read(file)
            frame = read_image(data, file.item, self._plan.settings.images).frame
            return self._faces(file.path or file.item, hashlib.sha256(data).hexdigest(), frame)[0]
        except ItemError:
            return None

    def __call__(self, file: InputFile, roles: Ints | None = None) -> Work:
        """Analyse one input; whatever is wrong with it is the work's end.

        Args:
            file: the input.
            roles: [N] source of each of its faces where that was decided before; None decides here.
        """
        start = time.perf_counter()
        work = Work.of(file)
        fail_point("analyse", file.item)
        try:
            data = self.inputs.read(file)
            work = replace(work, sha256=hashlib.sha256(data).hexdigest())
            work, crops = self._find(work, data, roles)
            work = self._cut(self._decide(work), crops)
        except ItemError as error:
            work = work.ended_by(error)
        return replace(work, analyse_s=time.perf_counter() - start)

    def _find(self, work: Work, data: bytes, roles: Ints | None) -> tuple[Work, Crops]:
        """Decode the image, find its faces, and choose who becomes whom."""
        item, settings = work.file.item, self._plan.settings
        frame = read_image(data, item, settings.images).frame
        faces, crops = self._faces(work.file.path or item, work.sha256, frame)
        if len(faces) > settings.analysis.max_faces:
            problem = f"{len(faces)} faces, the limit is {settings.analysis.max_faces}"
            raise RefusedInputError(item, problem, "Raise analysis.max_faces", code="too_many_faces")
        decided = roles if roles is not None or settings.selection.mode != "anonymise" else np.zeros(0, np.int64)
        if decided is not None and len(decided) != len(faces):  # not what it was, or not readable, at the first look
            raise RefusedInputError(item, "changed while it was worked on", "Run again", "changed")
        unknown = np.full(len(faces), np.nan, np.float32)
        found = replace(
            work,
            width=frame.shape[2],
            height=frame.shape[1],
            faces=faces,
            to_frame=crops.to_frame,
            become=self._chosen(work.file, faces) if decided is None else decided,
            source_before=unknown,
            source_after=unknown,
            owner_after=unknown,
        )
        return found, crops

    def _chosen(self, file: InputFile, faces: Faces) -> Ints:
        return self._select(faces) if file.source < 0 else self._select.paired(faces, file.source, file.face)

    def _faces(self, item: str, sha256: str, frame: Tensor) -> tuple[Faces, Crops]:
        if self._table is None and self._analyser is not None:
            return self._analyser(frame)
        rows = self._table.rows(item) if self._table is not None else []
        if not rows:
            raise RefusedInputError(item, "is not in the analysis table", "Analyse it first", code="not_analysed")
        model = self._plan.header.config
        faces = rows_to_faces(item, rows, sha256, self._plan.settings.analysis.min_score)
        crops = cut_crops(frame, faces.landmarks, model.template, model.crop_size)
        if len(faces) and not faces.embedding.shape[1] and self._analyser is not None:
            faces = replace(faces, embedding=self._analyser.embed(crops.pixels))
        return faces, crops

    def _decide(self, work: Work) -> Work:
        """Apply the policies for images without a face and for faces that are not sure enough.

        Raises:
            PolicyError: under `fail` (status failed) and `drop` (status skipped).
        """
        settings = self._plan.settings
        if not len(work.faces):
            problem = f"no face above {settings.analysis.min_score}"
            policy = settings.policy.no_face
            end_by_policy(
                policy, work.file.item, "no_face", problem, "Lower analysis.min_score or set policy.no_face=copy"
            )
            return replace(work, whole=policy, reason=f"no_face: {DONE_BY[policy]}")
        sides = (work.faces.box[:, 2:] - work.faces.box[:, :2]).min(axis=1)
        unsure = (work.faces.score < settings.analysis.confident_score) | (sides < settings.analysis.min_face_px)
        unsure &= work.become >= 0
        if unsure.any():
            return self._unsure(work, unsure, sides)
        if (work.become == BLURRED).any():
            return replace(work, reason="no_stand_in: blurred")
        return work if (work.become >= 0).any() else replace(work, reason="not_selected")

    def _unsure(self, work: Work, unsure: NDArray[np.bool_], sides: Floats) -> Work:
        policy = self._plan.settings.policy.low_confidence
        problem = (
            f"{int(unsure.sum())} of {len(work.faces)} faces not sure enough (lowest score "
            f"{work.faces.score[unsure].min():.2f}, smallest {sides[unsure].min():.0f} px)"
        )
        mend = "Lower analysis.confident_score or set policy.low_confidence=blur"
        end_by_policy(policy, work.file.item, "low_confidence", problem, mend)
        instead = BLURRED if policy == "blur" else STAYS
        become = np.where(unsure, instead, work.become)
        return replace(work, become=become, reason=f"low_confidence: {DONE_BY[policy]}")

    def _cut(self, work: Work, crops: Crops) -> Work:
        """Keep the crops of the faces that get a source."""
        chosen = np.flatnonzero(work.become >= 0)
        before = cosines_to_sources(work.faces.embedding, chosen, work.become, self._plan.sources)
        return replace(work, crops=to_bytes(crops.pixels[torch.from_numpy(chosen)]), source_before=before)
