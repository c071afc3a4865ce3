"""Where a head is turned to, estimated from the five landmarks alone: good enough to sort faces by, no measurement.

Weak perspective: a landmark is a point of a face, turned, scaled and moved. Nobody has the mean face, so the ways in
which faces differ are fitted together with the turn, each at a cost. A long nose and a lowered head still look alike
to five points, so pitch is the least sure; yaw and roll are steadier.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Floats

Doubles = NDArray[np.float64]

MEAN_FACE: Doubles = np.array([[-1, 0, 0], [1, 0, 0], [0, 1.04, 0.85], [-0.84, 2.035, -0.19], [0.84, 2.035, -0.19]])
"""[5, 3] eyes, nose tip, mouth corners of a face that looks at the viewer, in half the distance of the eyes.

(x, y, z): to the viewer's right, down, towards the viewer. Found from the landmarks of 897 photographs of 305 people
by asking for the one rigid face whose views explain them best. They leave open which pitch is 0: here it is their mean.
"""

_DIFFERENCES: Doubles = np.array(
    [
        [[-0.08, 0, 0], [0.08, 0, 0], [0, 0, 0], [-0.07, 0, 0], [0.07, 0, 0]],  # how wide it is
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [-0.08, 0, 0], [0.08, 0, 0]],  # how wide the mouth is
        [[0, 0, 0], [0, 0, 0], [0, 0.1, 0], [0, 0, 0], [0, 0, 0]],  # how long the nose is
        [[0, 0, 0], [0, 0, 0], [0, 0, 0.12], [0, 0, 0], [0, 0, 0]],  # how far it stands out
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0.1, 0], [0, 0.1, 0]],  # how low the mouth is
    ]
)
"""[K, 5, 3] ways of differing from the mean face, one standard deviation each."""

_NOISE = 0.04
"""Standard deviation of a landmark's place, in half the distance of the eyes."""

_ROUNDS = 8


def pose(landmarks: Floats) -> Floats:
    """Yaw, pitch and roll of faces.

    Args:
        landmarks: [N, 5, 2] the two eyes, nose tip, two mouth corners, viewer's left first, in pixels.

    Returns:
        [N, 3] degrees: yaw positive to the viewer's right, pitch positive up, roll positive clockwise in the frame.
        Where all five points are one, all three are 0.
    """
    points = landmarks.astype(np.float64) - landmarks.mean(axis=1, keepdims=True, dtype=np.float64)
    faces = np.broadcast_to(MEAN_FACE - MEAN_FACE.mean(axis=0), (len(points), 5, 3))
    turns = _nearest_turns(points, faces)
    different = np.zeros((len(points), len(_DIFFERENCES)))
    for _ in range(_ROUNDS):
        turns, different = _improved(points, turns, different)
    pitch = np.arcsin(np.clip(turns[:, 2, 1], -1.0, 1.0))
    yaw = np.arctan2(-turns[:, 2, 0], turns[:, 2, 2])
    roll = np.arctan2(-turns[:, 0, 1], turns[:, 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float32)


def _nearest_turns(points: Doubles, faces: Doubles) -> Doubles:
    """[N, 3, 3] rotations nearest to the affine maps that take [N, 5, 3] faces to [N, 5, 2] points best."""
    affine = np.swapaxes(np.linalg.pinv(faces) @ points, 1, 2)  # [N, 2, 3]
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right  # [N, 2, 3]
    return np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)


def _improved(points: Doubles, turns: Doubles, different: Doubles) -> tuple[Doubles, Doubles]:
    """One Gauss-Newton step over turn, scale and the face's own shape."""
    count, ways = different.shape
    faces = MEAN_FACE + np.einsum("nk,kij->nij", different, _DIFFERENCES)
    seen = (faces - faces.mean(axis=1, keepdims=True)) @ np.swapaxes(turns, 1, 2)  # [N, 5, 3]
    flat, depth = seen[..., :2], seen[..., 2]
    scale = np.maximum((points * flat).sum(axis=(1, 2)) / (flat * flat).sum(axis=(1, 2)), 1e-9)
    own = _DIFFERENCES - _DIFFERENCES.mean(axis=1, keepdims=True)
    own_seen = np.einsum("kpj,nij->npik", own, turns[:, :2])  # [N, 5, 2, K]
    zero = np.zeros_like(depth)
    about = [np.stack([zero, -depth], -1), np.stack([depth, zero], -1), np.stack([-flat[..., 1], flat[..., 0]], -1)]
    moves = np.concatenate([np.stack([*about, flat], axis=-1), own_seen], axis=-1).reshape(count, 10, 4 + ways)
    residual = (points / scale[:, None, None] - flat).reshape(count, 10)
    prior = np.broadcast_to(np.eye(4 + ways)[4:], (count, ways, 4 + ways))
    system = np.concatenate([moves / _NOISE, prior], axis=1)
    step = (np.linalg.pinv(system) @ np.concatenate([residual / _NOISE, -different], axis=1)[..., None])[..., 0]
    return _rotations(step[:, :3]) @ turns, different + step[:, 4:]


def _rotations(vectors: Doubles) -> Doubles:
    """[N, 3] axes times angles in radians to [N, 3, 3] rotations (Rodrigues)."""
    angle = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)[:, None, None]
    x, y, z = (vectors / angle[:, 0]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross))
