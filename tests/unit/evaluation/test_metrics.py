from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.metrics import (
    PSNR_OF_EQUALS_DB,
    cosines,
    landmark_errors,
    mean_embeddings,
    mean_of,
    pose_errors,
    psnr,
    retrieval_accuracy,
    swap_score,
)
from tests.factories import landmarks_at, unit_vectors


def test_psnr_is_capped_for_equal_images_and_known_for_known_differences() -> None:
    image = torch.rand(3, 3, 8, 8) * 0.5
    steps = torch.tensor([0.0, 0.1, 0.01]).view(3, 1, 1, 1)
    assert psnr(image, image + steps) == pytest.approx([PSNR_OF_EQUALS_DB, 20.0, 40.0], abs=1e-3)
    assert (psnr(image, image + steps) == psnr(image + steps, image)).all()


def test_psnr_inside_a_mask_sees_nothing_outside() -> None:
    one, other = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    other[:, :, 4:] = 1.0
    other[:, :, :4] = 0.1
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4] = 1.0
    inside, nothing = psnr(one, other, mask)
    assert inside == pytest.approx(20.0, abs=1e-3)
    assert np.isnan(nothing)


def test_everybody_is_retrieved_from_a_gallery_of_themselves_and_nobody_from_one_moved_by_one() -> None:
    gallery = unit_vectors(7)
    assert retrieval_accuracy(gallery, gallery, np.arange(7)) == 1.0
    assert retrieval_accuracy(gallery, np.roll(gallery, 1, axis=0), np.arange(7)) == 0.0
    assert retrieval_accuracy(gallery[[0, 1, 2, 3]], gallery, np.array([0, 1, 3, 2])) == 0.5
    assert cosines(gallery, gallery) == pytest.approx(np.ones(7), abs=1e-5)


def test_the_score_wants_identity_moved_and_the_rest_kept() -> None:
    assert swap_score(0.6, 0.0, 0.6, 40.0) == pytest.approx(1.0)
    assert swap_score(0.02, 0.02, 0.6, 100.0) == 0.0, "a copy swaps nobody"
    assert swap_score(-0.1, 0.02, 0.6, 20.0) == 0.0
    assert swap_score(0.7, 0.0, 0.6, 60.0) == 1.0, "more than a person is like themselves is no more"
    assert swap_score(0.3, 0.0, 0.6, 30.0) == pytest.approx((0.5 * 0.75) ** 0.5)
    assert swap_score(0.3, 0.0, None, 40.0) == pytest.approx(0.3**0.5)


@given(*[st.floats(0.01, 0.5)] * 2, st.floats(10.0, 39.0))
def test_the_score_rises_with_either_part(moved: float, more: float, kept: float) -> None:
    assert swap_score(moved + more, 0.0, 1.0, kept) > swap_score(moved, 0.0, 1.0, kept)
    assert swap_score(moved, 0.0, 1.0, kept + 1.0) > swap_score(moved, 0.0, 1.0, kept)


def test_a_mean_embedding_has_length_one_and_lies_between() -> None:
    vectors = unit_vectors(5)
    means = mean_embeddings(vectors, np.array([1, 0, 1, 1, 0]))
    assert np.linalg.norm(means, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    both = vectors[1] + vectors[4]
    assert means[0] == pytest.approx(both / np.linalg.norm(both), abs=1e-5)


@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100), moved=st.floats(0, 2))
def test_a_landmark_error_does_not_depend_on_where_and_how_large_the_face_is(
    scale: float, shift: float, moved: float
) -> None:
    wanted = landmarks_at(50, 50, 20.0)[None]
    found = wanted + np.array([moved * 20.0, 0.0], np.float32)
    error = landmark_errors(found * np.float32(scale) + np.float32(shift), wanted * scale + np.float32(shift))
    assert error == pytest.approx([moved], abs=1e-3)


def test_what_was_not_found_has_no_error_and_no_part_in_a_mean() -> None:
    wanted = np.stack([landmarks_at(50, 50, 20.0)] * 2)
    found = wanted.copy()
    found[1] = np.nan
    errors = landmark_errors(found, wanted)
    assert np.isnan(errors[1])
    assert mean_of(errors) == 0.0
    assert mean_of(errors, np.array([False, True])) is None
    assert np.isnan(pose_errors(np.full((1, 3), np.nan, np.float32), np.zeros((1, 3), np.float32)))[0]


def test_a_pose_error_is_the_length_of_the_difference_and_a_full_turn_none() -> None:
    zero = np.zeros((3, 3), np.float32)
    other = np.array([[3, -4, 0], [0, 0, 359], [0, 0, 180]], np.float32)
    assert pose_errors(zero, other) == pytest.approx([5.0, 1.0, 180.0])
