from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.faces.clustering import cluster
from pipeline.types import Floats
from tests.factories import unit_vectors


def people(count: int, photos: int, spread: float, seed: int) -> Floats:
    """[count * photos, 64] people and photographs of them."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(count, 64)), photos, axis=0)
    vectors = centres + spread * random.normal(size=centres.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def together(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, N] who is in one group with whom, whatever the groups are called."""
    return np.equal(groups[:, None], groups[None, :])


def average_linkage(vectors: Floats, min_cosine: float) -> tuple[NDArray[np.int64], float]:
    """The textbook way: all pairs, the closest two groups at a time; with how close a call it was."""
    cosine = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    groups, closest_call = [[n] for n in range(len(vectors))], 1.0
    while len(groups) > 1:
        mean = np.array([[cosine[np.ix_(a, b)].mean() if a != b else -2.0 for b in groups] for a in groups])
        one, other = np.unravel_index(mean.argmax(), mean.shape)
        closest_call = min(closest_call, abs(float(mean.max()) - min_cosine))
        if mean.max() < min_cosine:
            break
        groups[min(one, other)] += groups.pop(max(one, other))
    found = np.empty(len(vectors), np.int64)
    for number, group in enumerate(groups):
        found[group] = number
    return found, closest_call


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.3, 2.0), min_cosine=st.floats(0.05, 0.8))
def test_the_groups_are_those_of_average_linkage(seed: int, spread: float, min_cosine: float) -> None:
    vectors = people(6, 1 + seed % 5, spread, seed)
    expected, closest_call = average_linkage(vectors, min_cosine)
    if closest_call > 1e-5:  # single precision may decide what is closer otherwise
        assert (together(cluster(vectors, min_cosine)) == together(expected)).all()


def test_people_are_found_and_numbered_by_how_often_they_are_seen() -> None:
    vectors = np.concatenate([people(1, photos, 0.7, photos) for photos in (3, 9, 1, 5)])
    found = cluster(vectors, 0.35)
    assert found.tolist() == [2] * 3 + [0] * 9 + [3] + [1] * 5


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_strangers_stay_apart_and_equals_are_one(count: int) -> None:
    assert cluster(unit_vectors(count), 0.5).tolist() == list(range(count))
    assert cluster(np.repeat(unit_vectors(1), count, axis=0), 0.99).tolist() == [0] * count
