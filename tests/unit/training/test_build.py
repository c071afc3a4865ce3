from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError, ModelPackError
from pipeline.model.checkpoint import save_checkpoint
from pipeline.model.generator import initialised
from pipeline.portrait_pack import pack_folder
from pipeline.training.batches import Batch
from pipeline.training.build import build_step, encoder_reference
from tests.unit.training.test_step import batch, settings

MODEL = ModelConfig(crop_size=32, widths=(8, 16), blocks=1, embedding_size=256)
PACK = pack_folder("portraits")


def test_a_run_starts_from_its_seed_alone() -> None:
    config = settings(models=PACK, model=MODEL.model_dump())
    before = torch.random.get_rng_state()
    one, other = (build_step(config, torch.device("cpu")) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, network in (("generator", one.generator), ("discriminator", one.discriminator)):
        for mine, theirs in zip(network.parameters(), getattr(other, name).parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_fine_tuning_starts_from_the_given_generator(tmp_path: Path) -> None:
    path = str(tmp_path / "start.safetensors")
    start = initialised(MODEL, seed=99)
    save_checkpoint(path, start.state_dict(), MODEL, encoder_reference(PACK), {})
    step = build_step(settings(models=PACK, model=MODEL.model_dump(), initial=path), torch.device("cpu"))
    assert step.generator.training
    for network in (step.generator, step.average.network):
        for mine, theirs in zip(network.parameters(), start.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_generator_without_a_mask_is_given_one_that_hides_little_at_first(tmp_path: Path) -> None:
    path, masked = str(tmp_path / "start.safetensors"), MODEL.model_copy(update={"mask": True})
    start = initialised(MODEL, seed=99)
    save_checkpoint(path, start.state_dict(), MODEL, encoder_reference(PACK), {})
    step = build_step(settings(models=PACK, model=masked.model_dump(), initial=path), torch.device("cpu"))
    assert step.generator.training
    crop, embedding = torch.rand(2, 3, 32, 32), torch.nn.functional.normalize(torch.randn(2, 256))
    with torch.no_grad():
        drawn, result = start(crop, embedding), step.generator.eval()(crop, embedding)
    share = torch.sigmoid(torch.tensor(2.0))
    assert torch.allclose(result, crop + share * (drawn - crop), atol=1e-5)


def test_landmarks_are_compared_where_their_loss_has_a_weight(tmp_path: Path) -> None:
    config = settings(models=PACK, model=MODEL.model_dump(), losses={"landmarks": 5.0})
    figures = [build_step(config, torch.device("cpu"))(faces(step)) for step in (0, 1)]
    assert figures[0]["loss/landmarks"] > 0.0
    assert "loss/landmarks" not in figures[1], "where features of a stranger belong nobody knows"
    (tmp_path / "pack").mkdir()
    for file in Path(PACK).glob("*.onnx"):
        if not file.name.startswith("lmk"):
            (tmp_path / "pack" / file.name).symlink_to(file)
    without = config.model_copy(update={"models": str(tmp_path / "pack")})
    with pytest.raises(ModelPackError, match=r"holds no 2D landmark network.*losses\.landmarks=0"):
        build_step(without, torch.device("cpu"))


def faces(number: int) -> Batch:
    """A batch of one person's crops where `number` is even."""
    plain = batch(number)
    return replace(plain, source=torch.nn.functional.normalize(torch.randn(len(plain), 256)))


def test_a_start_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        build_step(settings(models=PACK, model=MODEL.model_dump(), initial=str(path)), torch.device("cpu"))
