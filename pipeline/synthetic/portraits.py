"""Procedural portraits with exact ground truth: who is in the picture, where, and what the true swap looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import cv2
import numpy as np

from pipeline.synthetic.canvas import Canvas, Head, disc
from pipeline.synthetic.features import draw_person
from pipeline.synthetic.people import Appearance, Face, Scene, SceneSpec
from pipeline.types import Floats


def render(faces: Sequence[Face], width: int, height: int, background_seed: int) -> Scene:
    """The scene with these faces; the same arguments give the same bytes."""
    canvas = Canvas(_background(width, height, background_seed))
    heads = [Head(*face) for face in faces]
    for head in heads:
        draw_person(canvas, head)
    frame = np.clip(canvas.frame * 255 + 0.5, 0, 255).astype(np.uint8)
    landmarks = np.array([head.landmarks() for head in heads], np.float32).reshape(-1, 5, 2)
    box = np.array([head.box() for head in heads], np.float32).reshape(-1, 4)
    return Scene(SceneSpec(tuple(faces), width, height, background_seed), frame, landmarks, box)


def swap(spec: SceneSpec, index: int, source: Appearance) -> Scene:
    """The true swap: face `index` with the source's identity, everything else as it was.

    Pose, expression, light, background, hair, head outline and clothes stay with the target. The shapes and colours of
    skin, eyes, brows, nose, mouth, freckles and beard are the source's, and so is where they sit in the face: use the
    landmarks of the scene returned. No pixel changes outside the head (with its ears).
    """
    faces = list(spec.faces)
    appearance, attributes, placement = faces[index]
    faces[index] = (appearance.with_identity_of(source), attributes, placement)
    return render(faces, spec.width, spec.height, spec.background_seed)


def embedding(appearance: Appearance, size: int = 512) -> Floats:
    """[size] unit-length identity vector; stands where a recogniser would when tables bring embeddings.

    A fixed random projection of the standardised identity parameters: the same for the same inner face whatever the
    pose, light or hair, and near orthogonal for two people drawn by `Appearance.sample`.
    """
    own = [f for f in fields(appearance) if f.metadata["identity"]]
    low, high = np.array([f.metadata["span"] for f in own]).T
    values = np.array([getattr(appearance, f.name) for f in own])
    standardised = (values - (low + high) / 2) / (high - low) * np.sqrt(12)
    vector = np.random.default_rng(512).standard_normal((size, len(own))) @ standardised
    return np.asarray(vector / max(np.linalg.norm(vector), 1e-12), np.float32)


def _background(width: int, height: int, seed: int) -> Floats:
    """[H, W, 3] smooth noise of several octaves over a gradient, with soft discs."""
    rng = np.random.default_rng(seed)
    hue = rng.uniform(-0.12, 0.12, 3)
    base, turn = rng.uniform(0.25, 0.65) + hue, rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    frame = (base + turn * (x * rng.uniform(-1, 1) + y - 0.5)[..., None]).astype(np.float32)
    for cells in (3, 6, 13, 28, 60):
        tile = rng.uniform(-1, 1, (cells, cells, 1)) * 0.25 + rng.uniform(-0.1, 0.1, (cells, cells, 3))
        tile = (tile / cells**0.7).astype(np.float32)
        frame += cv2.resize(tile, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas, (u, v) = Canvas(np.clip(frame, 0.02, 0.98)), disc(1.0)
    for _ in range(5):
        at, radius = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.03, 0.12) * max(width, height)
        canvas.paint([np.stack([u, v], 1) * radius + at], base + rng.uniform(-0.25, 0.25, 3), 0.5, radius * 0.1)
    return canvas.frame
