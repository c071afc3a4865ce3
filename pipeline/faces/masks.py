"""Which part of a crop replaces the frame: 1 = replace, 0 = keep, in crop space."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import MaskConfig
from pipeline.errors import ModelPackError
from pipeline.media.copies import local_copy
from pipeline.model.onnx_module import ONNXRUNTIME_ERRORS
from pipeline.types import Floats


@lru_cache(maxsize=8)
def soft_square(size: int, erode: float, feather: float) -> Floats:
    """The crop without its rim, with a soft edge and round corners.

    Args:
        size: side S of the crop in pixels.
        erode: width of the rim that is 0, as a part of the side.
        feather: width of the ramp from 0 to 1 inside the rim, as a part of the side.

    Returns:
        [S, S] f32 0..1, read-only; exactly 0 on the rim, exactly 1 in the middle.
    """
    rim, ramp = erode * size, max(feather * size, 1e-6)
    depth = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(np.float32) + 0.5 - rim
    across = np.clip(1.0 - depth / ramp, 0.0, None)  # 0 inside the ramp, 1 at the rim
    outward = np.hypot(across[:, None], across[None, :])
    linear = np.clip(1.0 - outward, 0.0, 1.0)
    mask = np.asarray(linear * linear * (3.0 - 2.0 * linear), np.float32)
    mask.flags.writeable = False
    return mask


class MaskModel:
    """A face-parsing or occlusion network that says which pixels of a target crop are face.

    Args:
        settings: `model` is the ONNX file; the rest says how to feed and read it.

    Raises:
        ModelPackError: the file is missing or not a network of a known shape.
    """

    def __init__(self, settings: MaskConfig, threads: int = 1) -> None:
        self._settings = settings
        path = local_copy(str(settings.model))
        if not Path(path).is_file():
            raise ModelPackError(path, "no such mask model", "Set mask.model to an ONNX file, or to null")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
        except ONNXRUNTIME_ERRORS as error:
            raise ModelPackError(path, f"not a usable ONNX network ({error})") from error
        wanted = self._session.get_inputs()[0]
        if len(wanted.shape) != 4 or wanted.shape[1] not in (3, "3"):
            raise ModelPackError(path, f"takes {wanted.shape}, not [B, 3, s, s]")
        self._input = wanted.name
        self._side = wanted.shape[2] if isinstance(wanted.shape[2], int) else 0
        self._one_at_a_time = wanted.shape[0] == 1

    def __call__(self, crops: Tensor) -> Floats:
        """[N, 3, S, S] f32 0..1 target crops to [N, S, S] f32 0..1 masks, eroded and blurred."""
        size = crops.shape[-1]
        side = self._side or size
        if side != size:
            crops = F.interpolate(crops, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        mean = np.array(self._settings.mean, np.float32).reshape(1, 3, 1, 1)
        std = np.array(self._settings.std, np.float32).reshape(1, 3, 1, 1)
        pixels = (crops.cpu().numpy() - mean) / std
        step = 1 if self._one_at_a_time else max(len(pixels), 1)
        batches = [pixels[i : i + step] for i in range(0, len(pixels), step)]
        outputs = [self._session.run(None, {self._input: batch.astype(np.float32)})[0] for batch in batches]
        return np.stack([self._soften(self._probability(out), size) for batch in outputs for out in batch])

    def _probability(self, output: Floats) -> Floats:
        """[C, s, s] class logits, or [1, s, s] or [s, s] probabilities, to [s, s] 0..1."""
        if output.ndim == 3 and output.shape[0] > 1:
            return np.isin(output.argmax(axis=0), self._settings.keep_classes).astype(np.float32)
        return np.clip(output.reshape(output.shape[-2:]), 0.0, 1.0).astype(np.float32)

    def _soften(self, mask: Floats, size: int) -> Floats:
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
        width = round(self._settings.softness * size)
        if width:
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
            mask = cv2.GaussianBlur(cv2.erode(mask, disc), (2 * width + 1, 2 * width + 1), 0)
        return np.asarray(mask, np.float32)
