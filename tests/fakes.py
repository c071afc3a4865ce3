"""Stand-ins that give exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from pipeline.config import Template
from pipeline.faces.alignment import cut_crops
from pipeline.synthetic.people import Scene
from pipeline.types import Crops, Faces, Floats
from tests.factories import no_faces, scene_faces


class ExactAnalyser:
    """Knows the faces of scenes that it was told of, and finds nothing anywhere else.

    Args:
        scenes: what it knows.
        template: of the crops.
        crop_size: of the crops.
        scores: of the detector, one or several for each scene; 0.9 where there are none.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        template: Template = "arcface",
        crop_size: int = 64,
        scores: Sequence[float | Sequence[float]] | None = None,
    ) -> None:
        self._known = {}
        for made, score in zip(scenes, scores or [0.9] * len(scenes), strict=True):
            faces = scene_faces(made)
            self._known[made.frame.tobytes()] = replace(
                faces, score=np.resize(np.asarray(score, np.float32), len(faces))
            )
        self._template, self._crop_size = template, crop_size
        self._embeddings: dict[bytes, Floats] = {}

    def find(self, frame: Tensor) -> Faces:
        """The scene's faces."""
        return self._known.get(frame.permute(1, 2, 0).contiguous().numpy().tobytes(), no_faces())

    def cut(self, frame: Tensor, faces: Faces) -> Crops:
        """Their crops."""
        crops = cut_crops(frame, faces.landmarks, self._template, self._crop_size)
        for crop, vector in zip(crops.pixels, faces.embedding, strict=True):
            self._embeddings[crop.numpy().tobytes()] = vector
        return crops

    def embed(self, crops: Tensor) -> Floats:
        """The exact embeddings of crops that it has cut."""
        return np.stack([self._embeddings[crop.numpy().tobytes()] for crop in crops])
