from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.media.shots import shot_starts, signature
from tests.factories import textured_frame


def pixels(seed: int) -> NDArray[np.uint8]:
    return textured_frame(90, 160, seed).permute(1, 2, 0).numpy()


def test_a_cut_begins_a_shot_and_a_pan_does_not() -> None:
    wide = np.concatenate([pixels(1), pixels(2), pixels(3)], axis=1)
    pan = [wide[:, 3 * n : 3 * n + 160] for n in range(60)]
    other = [np.roll(255 - pixels(4), n, axis=1) for n in range(30)]
    starts = shot_starts(np.stack([signature(frame) for frame in [*pan, *other]]), 0.12)
    assert np.flatnonzero(starts).tolist() == [0, 60]


def test_a_flickering_light_is_no_cut() -> None:
    frames = [(pixels(1) // (1 + n % 2)).astype(np.uint8) for n in range(30)]
    assert shot_starts(np.stack([signature(frame) for frame in frames]), 0.05).sum() == 1


def test_one_frame_is_one_shot_and_none_is_none() -> None:
    assert shot_starts(signature(pixels(1))[None], 0.1).tolist() == [True]
    assert len(shot_starts(np.zeros((0, 768), np.uint8), 0.1)) == 0
