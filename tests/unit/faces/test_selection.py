from __future__ import annotations

import numpy as np

from pipeline.config import SelectionConfig
from pipeline.faces.selection import STAYS, Reference, Selector
from pipeline.types import Faces, Identity
from tests.factories import unit_vectors

PEOPLE = unit_vectors(4, seed=5)
SOURCES = [Identity(name, vector) for name, vector in zip("xy", unit_vectors(2, seed=6), strict=True)]


def faces(*who: int, sizes: tuple[float, ...] = ()) -> Faces:
    side = np.array(sizes or [10.0] * len(who), np.float32)
    box = np.stack([np.zeros_like(side), np.zeros_like(side), side, side], axis=1).reshape(-1, 4)
    count = len(who)
    return Faces(
        np.zeros(count, np.int64),
        box,
        np.zeros((count, 5, 2), np.float32),
        np.ones(count, np.float32),
        PEOPLE[list(who)],
    )


def test_all_faces_take_the_sources_in_turn() -> None:
    assert Selector(SelectionConfig(), SOURCES, [])(faces(0, 1, 2)).tolist() == [0, 1, 0]


def test_only_the_largest_face_is_swapped() -> None:
    choose = Selector(SelectionConfig(mode="largest"), SOURCES, [])
    assert choose(faces(0, 1, 2, sizes=(5, 9, 7))).tolist() == [STAYS, 0, STAYS]
    assert choose(faces()).tolist() == []


def test_who_looks_like_a_reference_becomes_its_source_and_others_stay() -> None:
    settings = SelectionConfig(mode="mapping", mapping={"a.jpg": "y", "b.jpg": "x"})
    choose = Selector(settings, SOURCES, [Reference(PEOPLE[0], 1), Reference(PEOPLE[2], 0)])
    assert choose(faces(2, 1, 0)).tolist() == [0, STAYS, 1]
    assert choose(faces()).tolist() == []


def test_the_cosine_threshold_decides() -> None:
    near = 0.5 * PEOPLE[0] + np.sqrt(0.75) * PEOPLE[1]
    for threshold, expected in ((0.4, 0), (0.6, STAYS)):
        settings = SelectionConfig(mode="mapping", mapping={"a": "x"}, min_cosine=threshold)
        one = faces(0)
        one.embedding[0] = near / np.linalg.norm(near)
        assert Selector(settings, SOURCES, [Reference(PEOPLE[0], 0)])(one).tolist() == [expected]
