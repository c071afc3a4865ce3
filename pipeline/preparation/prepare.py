"""One photograph to the faces that are worth learning from, or to the reason why there is none."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import AnalysisConfig, FilterConfig, PrepareConfig
from pipeline.errors import ItemError, RefusedInputError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.pose import pose
from pipeline.media.images import read_image
from pipeline.media.inputs import Inputs
from pipeline.preparation.listing import MISSING, Photo
from pipeline.preparation.quality import sharpness
from pipeline.swapping.work import to_bytes, use_threads
from pipeline.types import Crops, Faces, Floats

_UNSURE_SCORE = 0.3
"""Detection score from which on a find is looked at, so that it can be said of it that it was too unsure."""


class Analyser(Protocol):
    """What preparation needs of a `FaceAnalyser`."""

    def find(self, frame: Tensor) -> Faces:
        """The faces of a frame."""

    def cut(self, frame: Tensor, faces: Faces) -> Crops:
        """Their crops."""

    def embed(self, crops: Tensor) -> Floats:
        """[N, 3, S, S] crops 0..1 to [N, E] unit-length embeddings."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is known of the faces of one photograph.

    Attributes:
        faces: N faces.
        face_px: [N] shorter side of the box.
        angles: [N, 3] yaw, pitch, roll in degrees.
        sharpness: [N].
    """

    faces: Faces
    face_px: Floats
    angles: Floats
    sharpness: Floats


@dataclass(frozen=True, slots=True)
class Kept:
    """The faces of a photograph that go into the set.

    Attributes:
        measures: of the K faces.
        embedding: [K, E] unit length.
        crops: K encoded images.
    """

    measures: Measures
    embedding: Floats
    crops: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one photograph.

    Attributes:
        photo: which.
        sha256: hex digest of its bytes; empty when they could not be read.
        width: of the upright photograph in pixels; 0 when unknown.
        height: of the upright photograph in pixels; 0 when unknown.
        found: faces that were seen.
        measures: of the face that was judged first; of none where none was found.
        kept: faces that go into the set; None when the photograph is dropped.
        reason: short code, empty when something was kept.
        detail: the whole sentence; with something kept, what is odd about it.
        seconds: spent on it.
    """

    photo: Photo
    sha256: str = ""
    width: int = 0
    height: int = 0
    found: int = 0
    measures: Measures | None = None
    kept: Kept | None = None
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0


class Prepare:
    """From a photograph to crops, embeddings and measurements; what swapping sees is what the set holds.

    Args:
        settings: of the job.
        analyser: another one than the settings' own, for tests.
    """

    def __init__(self, settings: PrepareConfig, analyser: Analyser | None = None) -> None:
        use_threads(settings.pool.threads)
        self._settings = settings
        self._inputs = Inputs(settings.inputs, settings.images, settings.storage)
        self._analyser = analyser or _analyser(settings)

    def __call__(self, photo: Photo) -> Prepared:
        """Prepare one photograph; whatever is wrong with it is the reason why it is dropped."""
        start = time.perf_counter()
        result = Prepared(photo)
        try:
            _check_listed(self._settings, photo)
            data = self._inputs.read(photo.file)
            result = replace(result, sha256=hashlib.sha256(data).hexdigest())
            frame = read_image(data, photo.file.item, self._settings.images).frame
            result = self._judge(replace(result, width=frame.shape[2], height=frame.shape[1]), frame)
        except ItemError as error:
            result = replace(result, reason=error.code, detail=str(error))
        return replace(result, seconds=time.perf_counter() - start)

    def _judge(self, result: Prepared, frame: Tensor) -> Prepared:
        """Find the faces, and keep those that pass every filter."""
        faces, item = self._analyser.find(frame), result.photo.file.item
        if not len(faces):
            raise RefusedInputError(item, "no face found", code="no_face")
        chosen = _choose(faces, frame, self._settings)
        crops = self._analyser.cut(frame, chosen)
        measures = Measures(chosen, _sides(chosen), pose(chosen.landmarks), sharpness(crops.pixels))
        result = replace(result, found=len(faces), measures=_rows(measures, np.arange(len(chosen)) == 0))
        problems = [_problem(measures, i, self._settings.filters) for i in range(len(chosen))]
        good = np.array([problem is None for problem in problems])
        if not good.any():
            code, says = problems[0] or ("", "")
            return replace(result, reason=code, detail=f"{item}: {says}.")
        pixels = crops.pixels[torch.from_numpy(good)]
        encoded = tuple(encode_crop(crop, self._settings) for crop in to_bytes(pixels))
        kept = Kept(_rows(measures, good), self._analyser.embed(pixels), encoded)
        several = f"{item}: {len(faces)} faces; the main one was taken." if len(faces) > len(chosen) else ""
        return replace(result, kept=kept, detail=several)


def encode_crop(crop: Tensor, settings: PrepareConfig) -> bytes:
    """[3, S, S] u8 RGB as the settings' image file; JPEG with full chroma."""
    pixels = cv2.cvtColor(crop.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)
    full_chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality, *full_chroma, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    suffix, options = (".png", []) if settings.crop_format == "png" else (".jpg", jpeg)
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"OpenCV cannot encode {suffix}")
    return bytes(data)


def _analyser(settings: PrepareConfig) -> FaceAnalyser:
    floor = AnalysisConfig(min_score=min(settings.filters.min_score, _UNSURE_SCORE))
    return FaceAnalyser(settings.models, settings.template, settings.crop_size, floor, settings.pool.threads)


def _check_listed(settings: PrepareConfig, photo: Photo) -> None:
    if photo.file.problem == MISSING:
        raise RefusedInputError(photo.file.item, MISSING, code="missing")
    if not photo.identity and settings.labels != "cluster":
        where = "in no folder" if settings.labels == "folders" else "not in the table"
        raise RefusedInputError(photo.file.item, f"{where}, so nothing says who it is", code="no_label")


def _choose(faces: Faces, frame: Tensor, settings: PrepareConfig) -> Faces:
    """The faces to judge, the main one first: all, or that one. What is sure enough goes before what is larger.

    A face outweighs another by its area less twice the squared distance of its middle from the frame's: photographs
    show their subject large or in the middle, and passers-by at the edge.
    """
    low, high = faces.box[:, :2], faces.box[:, 2:]
    off_middle = (low + high) / 2 - np.array(frame.shape[:0:-1], np.float32) / 2
    weight = np.prod(high - low, axis=1) - 2 * np.square(off_middle).sum(axis=1)
    order = np.lexsort((-weight, faces.score < settings.filters.min_score))
    return _take(faces, order[:1] if settings.faces == "main" else order)


def _problem(measures: Measures, i: int, filters: FilterConfig) -> tuple[str, str] | None:
    """Code and sentence of the first filter that face `i` does not pass."""
    score, side, detail = float(measures.faces.score[i]), float(measures.face_px[i]), float(measures.sharpness[i])
    yaw, pitch, _ = (float(angle) for angle in measures.angles[i])
    if score < filters.min_score:
        return "low_score", f"the detector is sure to {score:.2f}, the least is {filters.min_score:g}"
    if side < filters.min_face_px:
        return "too_small", f"the face has {side:.0f} px, the least is {filters.min_face_px:g}"
    if abs(yaw) > filters.max_yaw or abs(pitch) > filters.max_pitch:
        limits = f"{filters.max_yaw:g} and {filters.max_pitch:g}"
        return "turned_away", f"turned by {yaw:.1f} and {pitch:.1f} degrees (yaw, pitch), the most are {limits}"
    if detail < filters.min_sharpness:
        return "blurred", f"sharpness {detail:.2f}, the least is {filters.min_sharpness:g}"
    return None


def _sides(faces: Faces) -> Floats:
    return np.asarray((faces.box[:, 2:] - faces.box[:, :2]).min(axis=1), np.float32)


def _take(faces: Faces, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Faces:
    return Faces(faces.frame[rows], faces.box[rows], faces.landmarks[rows], faces.score[rows], faces.embedding[rows])


def _rows(measures: Measures, rows: NDArray[np.bool_]) -> Measures:
    return Measures(
        _take(measures.faces, rows), measures.face_px[rows], measures.angles[rows], measures.sharpness[rows]
    )
