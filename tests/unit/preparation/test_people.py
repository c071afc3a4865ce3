from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.config import PrepareConfig
from pipeline.preparation.people import settle
from pipeline.types import Floats
from tests.factories import unit_vectors


def settings_of(**changes: Any) -> PrepareConfig:
    return PrepareConfig.model_validate({"inputs": "in", "output": "out", "models": "none"} | changes)


def photos_of(person: int, count: int) -> Floats:
    """[count, 512] embeddings of one person, all of whose cosines are about 0.7."""
    vectors = unit_vectors(1, seed=person) + 0.65 * unit_vectors(count, seed=100 + person)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_a_photograph_of_somebody_else_is_an_outlier_and_the_others_stay() -> None:
    vectors = np.concatenate([photos_of(1, 5), photos_of(2, 1), photos_of(3, 4)])
    people = settle(["a"] * 6 + ["b"] * 4, np.arange(10), vectors, settings_of())
    assert people.names == ("a", "b")
    assert np.flatnonzero(people.outlier).tolist() == [5]
    assert people.kept.sum() == 9
    assert people.counts().tolist() == [5, 4]
    assert people.cosine[5] < 0.2 < people.cosine[np.arange(10) != 5].min()


def test_of_two_that_differ_and_where_most_differ_nobody_knows_who_is_odd() -> None:
    vectors = np.concatenate([photos_of(1, 1), photos_of(2, 1), unit_vectors(4, seed=5)])
    people = settle(["a"] * 2 + ["b"] * 4, np.arange(6), vectors, settings_of())
    assert people.kept.all()


def test_an_identity_counts_its_photographs_after_the_outliers_are_gone() -> None:
    vectors = np.concatenate([photos_of(1, 2), photos_of(2, 1), photos_of(3, 1), photos_of(4, 3)])
    labels = ["a"] * 3 + ["b"] + ["c"] * 3
    people = settle(labels, np.arange(7), vectors, settings_of(filters={"min_photos": 3}))
    assert people.outlier.tolist() == [False, False, True] + [False] * 4
    assert people.too_few.tolist() == [True, True, False, True] + [False] * 3
    assert np.isnan(people.cosine[3])
    assert people.counts().tolist() == [0, 0, 3]


def test_without_labels_people_are_found_and_two_faces_of_one_photograph_count_once() -> None:
    vectors = np.concatenate([photos_of(1, 3), photos_of(2, 4)])
    photo = np.array([0, 1, 2, 3, 3, 4, 5])
    people = settle([""] * 7, photo, vectors, settings_of(labels="cluster", filters={"min_photos": 4}))
    assert people.names == ("person-00000", "person-00001")
    assert people.identity.tolist() == [1] * 3 + [0] * 4
    assert people.too_few.all(), "four faces on three photographs"
    assert not settle([""] * 7, photo, vectors, settings_of(labels="cluster")).too_few.any()


@pytest.mark.parametrize("labels", ["folders", "cluster"])
def test_nobody_is_an_answer(labels: str) -> None:
    people = settle([], np.zeros(0, np.int64), np.zeros((0, 0), np.float32), settings_of(labels=labels))
    assert (people.names, len(people.kept), len(people.counts())) == ((), 0, 0)
