"""Landmarks without the detector's tremble: One Euro filters over time, in both directions.

A still face wants strong smoothing, a moving one little, or its landmarks lag behind (One Euro filter, Casiez, Roussel
and Vogel, 2012). A video is there as a whole, so the filter runs forwards and backwards and the mean has no lag at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SmoothingConfig
from pipeline.faces.tracking import Tracks
from pipeline.types import Faces, Floats

Doubles = NDArray[np.float64]


def smooth(tracks: Tracks, times: Floats, settings: SmoothingConfig) -> Faces:
    """The faces of tracks with steadied landmarks; boxes, scores and embeddings stay.

    Args:
        tracks: of a video.
        times: [T] seconds of every frame.
        settings: how strongly; strength is measured in sizes of the face, so that it does not depend on the video's.
    """
    faces = tracks.faces
    if not settings.enabled or not len(faces):
        return faces
    landmarks = faces.landmarks.astype(np.float64)
    for number in range(int(tracks.track.max()) + 1):
        rows = np.flatnonzero(tracks.track == number)
        if len(rows) < 2:
            continue
        own, at = landmarks[rows], times[faces.frame[rows]].astype(np.float64)
        size = np.median(np.linalg.norm(own[:, :2].mean(axis=1) - own[:, 3:].mean(axis=1), axis=1))  # eyes to mouth
        unit = own / max(float(size), 1e-6)
        there, back = _one_euro(unit, at, settings), _one_euro(unit[::-1], -at[::-1], settings)[::-1]
        landmarks[rows] = (there + back) / 2 * max(float(size), 1e-6)
    return Faces(faces.frame, faces.box, landmarks.astype(np.float32), faces.score, faces.embedding)


def _one_euro(values: Doubles, times: Doubles, settings: SmoothingConfig) -> Doubles:
    """[K, 5, 2] filtered along K."""
    out = np.array(values)
    speed = np.zeros_like(values[0])
    for n in range(1, len(values)):
        step = max(float(times[n] - times[n - 1]), 1e-6)
        raw = (values[n] - out[n - 1]) / step
        speed += _share(settings.speed_cutoff_hz, step) * (raw - speed)
        # one cutoff for the whole face: its points move together, and a shape that wobbles is worse than one that lags
        moving = float(np.linalg.norm(speed.mean(axis=0)))
        out[n] = out[n - 1] + _share(settings.cutoff_hz + settings.speed_gain * moving, step) * (values[n] - out[n - 1])
    return out


def _share(cutoff_hz: float, step_s: float) -> float:
    """Part of the way to a new value that a first-order low-pass goes in one step."""
    return 1.0 / (1.0 + 1.0 / (2.0 * np.pi * cutoff_hz * step_s))
