"""Figures of the evaluation protocol, as pure functions over arrays.

Identity is measured by cosines of embeddings and by retrieval, what must stay by landmarks, pose and PSNR. Nothing here
loads a network: embeddings and landmarks come from whoever judges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.types import Floats, Ints

PSNR_OF_EQUALS_DB = 100.0
"""PSNR that is reported for images without any difference, and the highest that is."""

_SHORTEST_EYES_PX = 1e-3
_ENOUGH_PSNR_DB = 40.0  # from which on more is seen by nobody


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Floats:
    """Peak signal-to-noise ratio of each pair of images.

    Args:
        a: [B, 3, S, S] RGB 0..1.
        b: [B, 3, S, S] RGB 0..1.
        mask: [B, 1, S, S] 1 where pixels count, 0 where not; None counts all. An image without any that count has NaN.

    Returns:
        [B] dB, at most `PSNR_OF_EQUALS_DB`.
    """
    squares = (a.double() - b.double()).square().mean(dim=1, keepdim=True)
    weight = squares.new_ones(squares.shape) if mask is None else mask.double()
    error = (squares * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    decibel = -10.0 * error.clamp_min(10.0 ** (-PSNR_OF_EQUALS_DB / 10.0)).log10()
    return np.asarray(decibel.cpu().numpy(), np.float32)


def cosines(a: Floats, b: Floats) -> Floats:
    """Cosine of each pair of unit-length embeddings: [K, E] and [K, E] to [K]."""
    return np.asarray((a * b).sum(axis=1), np.float32)


def retrieval_accuracy(embeddings: Floats, gallery: Floats, wanted: Ints) -> float:
    """ID retrieval: how often the nearest of a gallery, by cosine, is the one that is wanted.

    Args:
        embeddings: [K, E] unit length, of the results.
        gallery: [P, E] unit length, one for each identity.
        wanted: [K] index into the gallery of each result's source.

    Returns:
        0..1; chance is 1 / P.
    """
    return float(((embeddings @ gallery.T).argmax(axis=1) == wanted).mean())


def swap_score(moved: float, stranger: float, same: float | None, self_psnr_db: float) -> float:
    """One number for how good a swapper is: how far identities move, and how much of the rest stays.

    Both parts are needed: a copy of the target moves nobody, a picture of the source keeps nothing. Distance to the
    target's owner is left out on purpose, since blur gives it too.

    Args:
        moved: mean cosine of results to their sources.
        stranger: the same of the targets before they were swapped.
        same: mean cosine of two photographs of one person; None where nobody has two.
        self_psnr_db: PSNR to the target where people are swapped with themselves; above 40 dB nothing more is gained.

    Returns:
        0..1, the geometric mean of `(moved - stranger) / (same - stranger)` and `self_psnr_db / 40`, each cut to 0..1.
    """
    way = max((1.0 if same is None else same) - stranger, 1e-3)
    identity = min(max((moved - stranger) / way, 0.0), 1.0)
    kept = min(max(self_psnr_db / _ENOUGH_PSNR_DB, 0.0), 1.0)
    return float((identity * kept) ** 0.5)


def mean_embeddings(embeddings: Floats, owner: Ints) -> Floats:
    """One embedding for each identity: the mean of its photographs', brought to length one.

    Args:
        embeddings: [K, E] unit length.
        owner: [K] 0 … P - 1, each at least once.

    Returns:
        [P, E] unit length.
    """
    total = np.zeros((int(owner.max()) + 1, embeddings.shape[1]), np.float64)
    np.add.at(total, owner, embeddings)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12), np.float32)


def landmark_errors(found: Floats, wanted: Floats) -> Floats:
    """How far landmarks are from where they should be, whatever the size of the face.

    Args:
        found: [N, 5, 2] pixels; NaN where no face was found.
        wanted: [N, 5, 2] pixels of the same frame, the two eyes first; its eyes give the unit.

    Returns:
        [N] mean distance of the five points as a fraction of the distance between the wanted eyes; NaN where either
        holds NaN.
    """
    eyes = np.linalg.norm(wanted[:, 1] - wanted[:, 0], axis=1)
    distance = np.linalg.norm(found - wanted, axis=2).mean(axis=1)
    return np.asarray(distance / np.maximum(eyes, _SHORTEST_EYES_PX), np.float32)


def pose_errors(a: Floats, b: Floats) -> Floats:
    """Pose error of the protocol: L2 of the differences of head-pose angles.

    Args:
        a: [N, 3] yaw, pitch, roll in degrees.
        b: [N, 3] the same.

    Returns:
        [N] degrees; NaN where either holds NaN. A full turn is no difference.
    """
    turn = (a - b + 180.0) % 360.0 - 180.0
    return np.asarray(np.linalg.norm(turn, axis=1), np.float32)


def mean_of(values: Floats, rows: NDArray[np.bool_] | None = None) -> float | None:
    """Mean of the finite values among some rows; None where there is none."""
    kept = values if rows is None else values[rows]
    kept = kept[np.isfinite(kept)]
    return float(kept.mean()) if len(kept) else None
