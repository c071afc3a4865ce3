"""Finding the faces of a frame and saying whose they are, through insightface and the identity encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.config import AnalysisConfig, Template
from pipeline.faces.alignment import cut_crops
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import find_pack, load_face_analysis
from pipeline.types import Crops, Faces

_SMALLEST_SIDE = 16
"""Frames narrower than this in pixels hold no face, and thin strips would be resized to nothing."""

_STEEPEST = 100
"""Ratio of the sides above which the detector's input would be less than a few pixels wide."""


class FaceAnalyser:
    """Detector and identity encoder of a pack, loaded once.

    Args:
        models: insightface pack, name or folder.
        template: alignment of the crops.
        crop_size: side S of the crops in pixels.
        settings: thresholds.
        threads: CPU threads of the networks.

    Raises:
        ModelPackError: the pack cannot be used.
    """

    def __init__(
        self, models: str, template: Template, crop_size: int, settings: AnalysisConfig, threads: int = 1
    ) -> None:
        self._template: Template = template
        self._crop_size = crop_size
        self._detector = load_face_analysis(models, ["detection"], threads).models["detection"]
        self._detector.det_thresh = settings.min_score
        self.encoder = IdentityEncoder(find_pack(models).recogniser, template)

    def __call__(self, frame: Tensor) -> tuple[Faces, Crops]:
        """The faces of one frame, from left to right, and their crops.

        Args:
            frame: [3, H, W] u8 RGB.
        """
        faces = self.find(frame)
        crops = self.cut(frame, faces)
        return replace(faces, embedding=self.embed(crops.pixels)), crops

    def find(self, frame: Tensor) -> Faces:
        """The faces of one frame [3, H, W] u8 RGB, from left to right, without embeddings ([N, 0])."""
        box, landmarks = self._detect(frame)
        index, nobody = np.zeros(len(box), np.int64), np.zeros((len(box), 0), np.float32)
        return Faces(index, box[:, :4], landmarks, box[:, 4], nobody).left_to_right()

    def cut(self, frame: Tensor, faces: Faces) -> Crops:
        """The crops of faces that were found in the frame."""
        return cut_crops(frame, faces.landmarks, self._template, self._crop_size)

    def embed(self, crops: Tensor) -> np.ndarray:
        """[N, 3, S, S] crops 0..1 to [N, E] unit-length embeddings, eight crops at a time."""
        with torch.inference_mode():
            parts = [self.encoder(crops[i : i + 8]) for i in range(0, len(crops), 8)]
        empty = torch.zeros(0, self.encoder.embedding_size)
        return torch.cat(parts or [empty]).numpy()

    def _detect(self, frame: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """[N, 5] boxes with scores and [N, 5, 2] landmarks."""
        height, width = frame.shape[1:]
        if min(height, width) < _SMALLEST_SIDE or max(height, width) > _STEEPEST * min(height, width):
            return np.zeros((0, 5), np.float32), np.zeros((0, 5, 2), np.float32)
        bgr = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[:, :, ::-1])
        box, landmarks = self._detector.detect(bgr)
        usable = np.isfinite(landmarks).all(axis=(1, 2)) & (np.ptp(landmarks, axis=1).max(axis=1) > 1.0)
        return box[usable].astype(np.float32), landmarks[usable].astype(np.float32)
