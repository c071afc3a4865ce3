"""First stage: from a file to its faces, their crops, and who becomes whom."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PolicyError, RefusedInputError
from pipeline.faces.alignment import cut_crops
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.selection import STAYS, Selector
from pipeline.faces.table import AnalysisTable, rows_to_faces
from pipeline.media.images import read_image
from pipeline.media.storage import InputFile
from pipeline.swapping.work import BLURRED, Plan, Work, cosines_to_sources, read_input, to_bytes, use_threads
from pipeline.types import Crops, Faces


class Analyse:
    """From a file to its faces, their crops, and who becomes whom.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        use_threads(settings.pools.analyse.threads)
        self._plan = plan
        self._table = AnalysisTable(settings.analysis.read_table) if settings.analysis.read_table else None
        self._analyser = None
        if settings.models is not None and (self._table is None or not self._table.has_embeddings):
            model = plan.header.config
            threads = settings.pools.analyse.threads
            self._analyser = FaceAnalyser(settings.models, model.template, model.crop_size, settings.analysis, threads)
        self._select = Selector(settings.selection, plan.sources, plan.references)

    def __call__(self, file: InputFile) -> Work:
        """Analyse one input.

        Raises:
            ItemError: unreadable, refused, or a policy says that it gets no result.
        """
        start = time.perf_counter()
        data = read_input(self._plan.settings, file)
        sha256 = hashlib.sha256(data).hexdigest()
        frame = read_image(data, file.item, self._plan.settings.images).frame
        faces, crops = self._faces(file.item, sha256, frame)
        unknown = np.full(len(faces), np.nan, np.float32)
        work = Work(
            file=file,
            sha256=sha256,
            width=frame.shape[2],
            height=frame.shape[1],
            faces=faces,
            to_frame=crops.to_frame,
            become=self._select(faces),
            crops=crops.pixels[:0],
            masks=None,
            source_before=unknown,
            source_after=unknown,
            owner_after=unknown,
        )
        work = self._decide(work)
        chosen = np.flatnonzero(work.become >= 0)
        return replace(
            work,
            crops=to_bytes(crops.pixels[torch.from_numpy(chosen)]),
            source_before=cosines_to_sources(faces.embedding, chosen, work.become, self._plan.sources),
            seconds=(time.perf_counter() - start, 0.0),
        )

    def _faces(self, item: str, sha256: str, frame: Tensor) -> tuple[Faces, Crops]:
        if self._table is None and self._analyser is not None:
            return self._analyser(frame)
        rows = self._table.faces([item]).get(item) if self._table is not None else None
        if rows is None:
            raise RefusedInputError(item, "is not in the analysis table", "Analyse it first", code="not_analysed")
        faces, complete = rows_to_faces(item, rows, sha256)
        model = self._plan.header.config
        crops = cut_crops(frame, faces.landmarks, model.template, model.crop_size)
        if not complete and self._analyser is not None:
            faces = replace(faces, embedding=self._analyser.embed(crops.pixels))
        return faces, crops

    def _decide(self, work: Work) -> Work:
        """Apply the policies for images without a face and for faces that are not sure enough."""
        settings = self._plan.settings
        item = work.file.item
        if not len(work.faces):
            _raise_for_policy(
                settings.policy.no_face,
                item,
                "no_face",
                (
                    f"no face above {settings.analysis.min_score}",
                    "Lower analysis.min_score or set policy.no_face=copy",
                ),
            )
            return replace(work, whole=settings.policy.no_face)
        sides = work.faces.box[:, 2:] - work.faces.box[:, :2]
        unsure = (work.faces.score < settings.analysis.confident_score) | (
            sides.min(axis=1) < settings.analysis.min_face_px
        )
        unsure &= work.become >= 0
        if not unsure.any():
            return work
        _raise_for_policy(
            settings.policy.low_confidence,
            item,
            "low_confidence",
            (
                f"{int(unsure.sum())} of {len(work.faces)} faces not sure enough (lowest score "
                f"{work.faces.score[unsure].min():.2f}, smallest {sides[unsure].min():.0f} px)",
                "Lower analysis.confident_score or set policy.low_confidence=blur",
            ),
        )
        instead = BLURRED if settings.policy.low_confidence == "blur" else STAYS
        return replace(work, become=np.where(unsure, instead, work.become))


def _raise_for_policy(policy: str, item: str, code: str, said: tuple[str, str]) -> None:
    """End an item by `fail` or `drop`; the other policies give a result.

    Raises:
        PolicyError: under `fail` (status failed) and `drop` (status skipped).
    """
    if policy in ("fail", "drop"):
        raise PolicyError(item, *said, code=code, status="failed" if policy == "fail" else "skipped")
