"""Whose face it is: the one identity encoder, and sources made of one or several photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Template
from pipeline.errors import ModelPackError
from pipeline.faces.alignment import similarity, template_landmarks
from pipeline.faces.network_input import part_of, resized, takes_raw_pixels
from pipeline.model.onnx_module import OnnxModule
from pipeline.types import Floats, Identity

ENCODER_SIDE = 112
"""Side in pixels of the square that ArcFace-style recognisers take."""

OUTLIER_COSINE = 0.25
"""A photograph whose cosine to the mean of the others is below this does not show the same person."""


class IdentityEncoder(nn.Module):
    """A frozen face-recognition backbone behind one fixed, differentiable preprocessing.

    ArcFace crops are resized (antialiased) to 112; FFHQ crops are resized to the scale of the ArcFace
    template and moved by the fixed similarity between the two templates. It stays in eval mode
    whatever the parent module does.

    Args:
        path: ONNX file of an insightface recogniser.
        template: alignment of the crops it will be given.

    Raises:
        ModelPackError: not a recogniser that can be run here.
    """

    def __init__(self, path: str, template: Template) -> None:
        super().__init__()
        self.backbone = OnnxModule(path)
        self.template = template
        self._raw_pixels = takes_raw_pixels(path)
        self.requires_grad_(False).eval()
        probe = self.backbone.tried_on(path, 1, 3, ENCODER_SIDE, ENCODER_SIDE)
        if probe.ndim != 2:
            raise ModelPackError(path, f"gives {list(probe.shape)}, not one vector a face", "Give a face recogniser")
        self.embedding_size = int(probe.shape[1])

    def train(self, mode: bool = True) -> IdentityEncoder:
        """Always eval mode: the backbone is frozen."""
        super().train(False)
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """[B, 3, S, S] crops, RGB 0..1, to [B, E] embeddings of length one."""
        exact = crops.to(torch.promote_types(crops.dtype, torch.float32))
        pixels = self._to_encoder_square(exact) * 255.0
        if not self._raw_pixels:
            pixels = (pixels - 127.5) / 127.5
        return F.normalize(self.backbone(pixels), dim=1)

    def _to_encoder_square(self, crops: Tensor) -> Tensor:
        size = crops.shape[-1]
        if self.template == "arcface":
            return resized(crops, ENCODER_SIDE)
        frontal = template_landmarks("arcface", ENCODER_SIDE)[2:3]
        full = similarity(template_landmarks("ffhq", size), frontal)[0]
        side = max(round(size * float(np.hypot(full[0, 0], full[1, 0]))), 1)  # now both have the same scale
        to_ffhq = similarity(frontal, template_landmarks("ffhq", side))[0]
        return part_of(resized(crops, side), to_ffhq, ENCODER_SIDE, "border")


def unlike_the_others(embeddings: Floats, min_cosine: float = OUTLIER_COSINE) -> tuple[NDArray[np.bool_], Floats]:
    """Which photographs of one person do not look like the person's others.

    With fewer than three photographs nobody can say which is the odd one: none is.

    Args:
        embeddings: [K, E] unit length.
        min_cosine: cosine to the mean of the others below which one is odd.

    Returns:
        [K] odd, [K] cosine to the mean of the others; 0 for a single one.
    """
    others = embeddings.sum(axis=0)[None, :] - embeddings
    cosine = (embeddings * others).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-9)
    return (cosine < min_cosine) & (len(embeddings) >= 3), np.asarray(cosine, np.float32)


def average_identity(name: str, photos: Sequence[str], embeddings: Floats, consent: str = "") -> Identity:
    """One source from several photographs: the mean of their embeddings without the outliers.

    If most do not look like the others, none is left out.

    Args:
        name: what receipts call it.
        photos: [K] names of the photographs.
        embeddings: [K, E] unit length.
        consent: reference to the consent or licence record.

    Returns:
        The identity; `photos` were averaged over, `outliers` were left out.
    """
    odd, _ = unlike_the_others(embeddings)
    keep = ~odd if odd.sum() * 2 < len(photos) else np.ones(len(photos), np.bool_)
    mean = embeddings[keep].mean(axis=0)
    return Identity(
        name,
        (mean / np.linalg.norm(mean)).astype(np.float32),
        consent,
        photos=tuple(p for p, k in zip(photos, keep, strict=True) if k),
        outliers=tuple(p for p, o in zip(photos, odd, strict=True) if o),
    )
