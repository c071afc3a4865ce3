"""What training refuses before anything starts, in one line each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig, TrainConfig, ValidationConfig
from pipeline.errors import CheckpointError, ConfigError, DatasetError, FatalError
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.generator import EXTRAS, initialised
from pipeline.preparation.dataset import DatasetHeader
from pipeline.training.build import check_fit
from pipeline.training.split import split_identities
from tests.unit.training.test_step import MODEL, REFERENCE, settings

HEADER = DatasetHeader(32, "arcface", "small", REFERENCE.digest, 32, 24, 8, "d", "r")


def refused(config: TrainConfig, header: DatasetHeader = HEADER, size: int = 32) -> str:
    with pytest.raises(FatalError) as caught:
        check_fit(config, header, REFERENCE, size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def checkpoint(path: Path, model: ModelConfig = MODEL, encoder: EncoderReference = REFERENCE) -> str:
    save_checkpoint(str(path), initialised(model).state_dict(), model, encoder, {})
    return str(path)


def test_what_fits_is_taken(tmp_path: Path) -> None:
    check_fit(settings(), HEADER, REFERENCE, 32)
    check_fit(settings(initial=checkpoint(tmp_path / "g.safetensors")), HEADER, REFERENCE, 32)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crop_size": 64}, "set: holds crops of 64 px, the model takes 32. Prepare with crop_size=32"),
        ({"template": "ffhq"}, "set: holds crops aligned to ffhq, the model takes arcface"),
        ({"encoder_digest": "1" * 64}, "set: holds embeddings of small, not of small from pack. Set models"),
        ({"identities": 1}, "set: holds one identity: nobody to swap with"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(change: dict[str, Any], says: str) -> None:
    assert says in refused(settings(), replace(HEADER, **change))


def test_embeddings_of_another_length_are_refused() -> None:
    assert "holds embeddings of 512 numbers, the model takes 32. Set model.embedding_size=512" in refused(
        settings(), replace(HEADER, embedding_size=512), 512
    )


def test_a_start_from_another_model_or_encoder_is_refused(tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other.safetensors", MODEL.model_copy(update={"blocks": 1}))
    assert "is of another model: model.blocks is 1, not 2" in refused(settings(initial=other))
    foreign = checkpoint(tmp_path / "foreign.safetensors", encoder=EncoderReference("theirs", "2" * 64))
    assert "was trained with identity encoder theirs, not small" in refused(settings(initial=foreign))
    for extra in EXTRAS:
        more = MODEL.model_copy(update={extra: True})
        plain = checkpoint(tmp_path / "plain.safetensors")
        check_fit(settings(initial=plain, model=more.model_dump()), HEADER, REFERENCE, 32)
        taken = checkpoint(tmp_path / f"{extra}.safetensors", more)
        assert f"model.{extra} is True, not False" in refused(settings(initial=taken))
    with pytest.raises(CheckpointError, match="no such file"):
        check_fit(settings(initial=str(tmp_path / "none.safetensors")), HEADER, REFERENCE, 32)


def test_a_discriminator_too_deep_for_the_crops_is_refused() -> None:
    with pytest.raises(ConfigError, match="would do"):
        check_fit(settings(discriminator={"widths": [8] * 5}), HEADER, REFERENCE, 32)


@pytest.mark.parametrize(("people", "held_out"), [(4, 1), (40, 10), (400, 32)])
def test_held_out_people_are_few_and_always_the_same(people: int, held_out: int) -> None:
    names = [f"person {n}" for n in range(people)]
    split = split_identities(names, ValidationConfig())
    assert split.sum() == held_out
    kept = {n for n, out in zip(names, split, strict=True) if out}
    more = split_identities([*names, "somebody new"], ValidationConfig())
    assert len(kept - {n for n, out in zip([*names, "somebody new"], more, strict=True) if out}) <= 1


@pytest.mark.parametrize(("people", "says"), [(1, "one identity: nobody to swap with"), (3, "3 identities")])
def test_too_few_people_are_refused(people: int, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        split_identities([str(n) for n in range(people)], ValidationConfig())
