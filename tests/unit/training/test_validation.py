from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import ModelConfig, ValidationConfig
from pipeline.errors import DatasetError
from pipeline.evaluation.pictures import GAP
from pipeline.faces.packs import find_pack
from pipeline.model.generator import Generator
from pipeline.portrait_pack import pack_folder
from pipeline.preparation.dataset import FaceDataset
from pipeline.training.split import split_identities
from pipeline.training.validation import Validation, Validator
from tests.factories import small_dataset

PACK = pack_folder("portraits")
MODEL = ModelConfig(crop_size=64, widths=(8, 16), blocks=1, embedding_size=256)
PEOPLE, PHOTOS = 8, 2


class Copying(Generator):
    """Leaves every target as it is."""

    def forward(self, target: Tensor, embedding: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return target


class Showing(Generator):
    """Shows the photograph that an embedding belongs to."""

    def __init__(self, dataset: FaceDataset) -> None:
        super().__init__(MODEL)
        self.crops = dataset.crops(np.arange(len(dataset))).float() / 255.0
        self.embeddings = torch.from_numpy(np.array(dataset.embeddings))

    def forward(self, target: Tensor, embedding: Tensor) -> Tensor:
        return self.crops[(embedding @ self.embeddings.T).argmax(dim=1)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    """Every photograph has an embedding of its own."""
    encoder = find_pack(PACK).recogniser
    return FaceDataset(small_dataset(tmp_path_factory.mktemp("set"), PEOPLE, PHOTOS, encoder=encoder))


def held_out(count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(PEOPLE) < count


def validator(dataset: FaceDataset, models: str = PACK, people: int = 5, **changes: Any) -> Validator:
    settings = ValidationConfig.model_validate({"pairs": 10, "grid": (2, 3), "batch_size": 4, **changes})
    return Validator(dataset, held_out(people), settings, models, "arcface", 64, torch.device("cpu"))


def metrics(seen: Validation) -> dict[str, float]:
    assert all(name.startswith("validation/") and isinstance(value, float) for name, value in seen.metrics.items())
    return {name.removeprefix("validation/"): value for name, value in seen.metrics.items()}


def test_a_generator_that_copies_its_target_keeps_everything_and_swaps_nobody(dataset: FaceDataset) -> None:
    figures = metrics(validator(dataset)(Copying(MODEL)))
    assert figures["owner_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert figures["source_cosine"] == pytest.approx(figures["unswapped_source_cosine"], abs=1e-5)
    assert (figures["source_nearer"], figures["retrieval"]) == (0.0, 0.0)
    assert figures["landmarks_found"] > 0.9
    assert figures["landmark_error"] == 0.0
    assert figures["pose_error_degrees"] == 0.0
    assert figures["self_psnr_db"] == 100.0
    assert figures["changed"] == 0.0
    assert figures["score"] < 0.01, "a perfect copy swaps nobody"


def test_a_generator_that_shows_its_source_is_the_source_for_everybody(dataset: FaceDataset) -> None:
    figures = metrics(validator(dataset)(Showing(dataset)))
    assert (figures["source_nearer"], figures["retrieval"]) == (1.0, 1.0)
    assert figures["source_cosine"] > figures["unswapped_source_cosine"] + 0.3
    assert figures["owner_cosine"] == pytest.approx(figures["unswapped_source_cosine"], abs=0.2)
    assert figures["landmark_error"] > 0.02
    assert figures["pose_error_degrees"] > 3.0
    assert figures["self_psnr_db"] < 30.0
    assert 0.05 < figures["changed"] < 0.5


def test_nothing_of_the_generator_is_changed_and_the_same_is_seen_again(dataset: FaceDataset) -> None:
    generator = Generator(MODEL).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    judge = validator(dataset)
    one, other = judge(generator), judge(generator)
    assert generator.training
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert one.metrics == other.metrics
    assert (one.grid == other.grid).all()
    assert (validator(dataset)(generator).grid == one.grid).all()


def test_a_batch_size_changes_nothing(dataset: FaceDataset) -> None:
    one, other = (metrics(validator(dataset, batch_size=n)(Showing(dataset))) for n in (1, 16))
    assert one == pytest.approx(other, abs=1e-4)


def test_without_landmarks_the_figures_of_landmarks_are_not_there(dataset: FaceDataset) -> None:
    figures = metrics(validator(dataset, landmarks=False)(Copying(MODEL)))
    assert not [name for name in figures if "landmark" in name or "pose" in name]
    assert "score" in figures


def test_the_picture_has_sources_above_targets_left_and_results_where_they_meet(dataset: FaceDataset) -> None:
    judge = validator(dataset)
    copied, shown = judge(Copying(MODEL)).grid, judge(Showing(dataset)).grid
    cell = 128 + GAP
    assert copied.shape == (4 * cell - GAP, 3 * cell - GAP, 3)
    assert copied.dtype == np.uint8
    assert (copied[:128, :128] == 255).all()
    assert (copied[:, 128:cell] == 255).all()
    for row in range(cell, 4 * cell, cell):
        for column in range(cell, 3 * cell, cell):
            inner = (slice(row, row + 128), slice(column, column + 128))
            assert (copied[inner] == copied[row : row + 128, :128]).all(), "a copy is the target"
            assert (shown[inner] == shown[:128, column : column + 128]).all(), "a source shown is the source"


def test_one_held_out_person_is_given_other_faces(dataset: FaceDataset) -> None:
    figures = metrics(validator(dataset, people=1)(Showing(dataset)))
    assert figures["retrieval"] == 1.0


def test_the_judge_is_another_pack_where_one_is_set(dataset: FaceDataset) -> None:
    own = metrics(validator(dataset)(Showing(dataset)))
    other = metrics(validator(dataset, "no pack at all", judge=pack_folder("judge"))(Showing(dataset)))
    assert other["unswapped_source_cosine"] != pytest.approx(own["unswapped_source_cosine"], abs=1e-3)


def test_a_set_of_another_size_or_without_anybody_held_out_is_refused(dataset: FaceDataset) -> None:
    settings = ValidationConfig()
    with pytest.raises(DatasetError, match="holds crops of 64 px, the generator takes 112"):
        Validator(dataset, held_out(2), settings, PACK, "arcface", 112, torch.device("cpu"))
    with pytest.raises(DatasetError, match="nobody is held out"):
        validator(dataset, people=0)


@given(people=st.integers(4, 60), more=st.integers(0, 30), wanted=st.integers(1, 40))
def test_a_few_people_are_held_out_and_adding_people_holds_out_nobody_who_was_trained_on(
    people: int, more: int, wanted: int
) -> None:
    settings = ValidationConfig(identities=min(wanted, people // 4))
    names = [f"person {n}" for n in range(people + more)]
    before, after = split_identities(names[:people], settings), split_identities(names, settings)
    assert before.sum() == after.sum() == settings.identities
    assert not (after[:people] & ~before).any()
    assert (split_identities(names[::-1], settings)[::-1] == after).all(), "the order of names means nothing"


@pytest.mark.parametrize(("people", "says"), [(1, "one identity: nobody to swap with"), (3, "3 identities")])
def test_too_few_people_to_train_on_some_and_look_at_others_are_refused(people: int, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        split_identities([f"person {n}" for n in range(people)], ValidationConfig())
