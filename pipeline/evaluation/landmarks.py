"""The five landmarks of aligned crops: where a pack's networks see the features of a face after the swap."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import AnalysisConfig
from pipeline.faces.packs import FIVE_LANDMARKS, load_face_analysis
from pipeline.types import Floats

_CANVAS = 128
"""Side in pixels of what the detector looks at. On crops of 64 to 224 px of 305 photographs buffalo_sc finds every face
at 128 px, with landmarks as near to those of the whole photograph as at 160, 192 and 256 px, or as in insightface's own
two looks at 128 and 640 px, which take about fifteen times as long."""

_PART = 7 / 8
"""Of the canvas that the crop takes, its edge repeated around it: a face that fills the picture is seen less well."""


class LandmarkFinder:
    """A pack's detector on aligned crops: one look at one size, so that small changes never change the scale.

    Where the pack has a landmark network of five points, the detector says where the face is and that network where its
    features are, more exactly.

    Args:
        models: insightface pack, name or folder.
        min_score: detection score below which a find is no face.
        threads: CPU threads of the networks.
        network: use the landmark network of a pack that has one.

    Raises:
        ModelPackError: the pack cannot be used.
    """

    def __init__(
        self, models: str, min_score: float = AnalysisConfig().min_score, threads: int = 1, network: bool = True
    ) -> None:
        optional = [FIVE_LANDMARKS] if network else []
        networks = load_face_analysis(models, ["detection"], threads, optional).models
        self._detector, self._landmarker = networks["detection"], networks.get(FIVE_LANDMARKS)
        self._detector.det_thresh = min_score
        fixed: tuple[int, int] | None = self._detector.static_input_size
        self._canvas: tuple[int, int] = fixed or (_CANVAS, _CANVAS)

    def __call__(self, crops: Tensor) -> Floats:
        """Landmarks of the largest face of each crop.

        Args:
            crops: [B, 3, S, S] RGB 0..1, on any device.

        Returns:
            [B, 5, 2] crop pixels, viewer's left first; NaN where no face was found.
        """
        pixels = (crops.clamp(0.0, 1.0) * 255.0).round().byte().flip(1).permute(0, 2, 3, 1).cpu().numpy()
        found = [self._find(np.ascontiguousarray(image)) for image in pixels]
        return np.stack(found) if found else np.zeros((0, 5, 2), np.float32)

    def _find(self, image: NDArray[np.uint8]) -> Floats:
        """[S, S, 3] BGR to [5, 2]."""
        canvas, scale, left, top = set_in(image, *self._canvas)
        box, landmarks = self._detector.detect(canvas, input_size=self._canvas)
        usable = np.isfinite(landmarks).all(axis=(1, 2))
        if not usable.any():
            return np.full((5, 2), np.nan, np.float32)
        box, landmarks = box[usable], landmarks[usable]
        largest = int(np.prod(box[:, 2:4] - box[:, :2], axis=1).argmax())
        points = np.concatenate([box[largest, :4].reshape(2, 2), landmarks[largest]])
        points = (points - (left, top) + 0.5) / scale - 0.5  # pixel areas scale, not pixel centres
        if self._landmarker is None:
            return np.asarray(points[2:], np.float32)
        from insightface.app.common import Face  # as late as `load_face_analysis` imports insightface

        return np.asarray(self._landmarker.get(image, Face(bbox=points[:2].flatten())), np.float32)


def set_in(
    image: NDArray[np.uint8], width: int, height: int, part: float = _PART
) -> tuple[NDArray[np.uint8], float, int, int]:
    """A square picture in the middle of a larger one, its edge repeated around it.

    Args:
        image: [S, S, 3] u8.
        width: of the larger one, pixels.
        height: of the larger one, pixels.
        part: of its shorter side that the square takes.

    Returns:
        [height, width, 3] u8, how much the square was enlarged, and the pixels left of it and above it.
    """
    side = round(min(width, height) * part)
    shrinks = side < len(image)
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    right, bottom = width - side - left, height - side - top
    canvas = cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(canvas, np.uint8), side / len(image), left, top
