from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import DisguiseConfig, TrainConfig
from pipeline.errors import TrainingError
from pipeline.preparation.dataset import FaceDataset
from pipeline.training.batches import TENSORS, BatchLoader
from pipeline.training.local import LocalSession
from pipeline.training.loop import Report, train
from pipeline.training.split import split_identities
from pipeline.training.step import TrainingStep
from tests.factories import recogniser_onnx, small_dataset
from tests.unit.training.test_step import REFERENCE, make_step, settings


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    data = small_dataset(tmp_path / "set", 8, 3, 32, encoder=recogniser_onnx(tmp_path / "encoder.onnx"))
    return settings(
        data=data,
        checkpoints={"every_steps": 10, "keep": 2},
        validation={"identities": 2},
        log_every_steps=4,
        feed={"augmentation": {"brightness": 0.1, "shift": 0.02}, "disguise": {"own_swaps": 0.5}},
    )


class Stopping(LocalSession):
    """Asked to stop after some steps."""

    def __init__(self, config: TrainConfig, folder: Path, after: int) -> None:
        super().__init__(config, folder)
        self._left = after

    def stop_requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


def run(config: TrainConfig, session: LocalSession, step: TrainingStep) -> Report:
    return train(config, session, step, None, REFERENCE, {})


def told(session: LocalSession) -> dict[int, dict[str, Any]]:
    rows = [row for report in session.reports for row in report.history]
    return {int(r["step"]): {k: v for k, v in r.items() if not k.startswith("speed/")} for r in rows}


def test_ten_and_a_kill_and_ten_are_twenty_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    whole = LocalSession(config, tmp_path / "whole")
    assert run(config, whole, make_step(tmp_path, config)).done == 20

    class KilledError(Exception):
        pass

    class Dying(LocalSession):
        def report(self, report: Report, folder: Path | None) -> None:
            super().report(report, folder)
            if report.done == 16:
                raise KilledError

    first = Dying(config, tmp_path / "parts")
    with pytest.raises(KilledError):
        run(config, first, make_step(tmp_path, config))
    second = LocalSession(config, tmp_path / "parts")
    run(config, second, make_step(tmp_path, config))
    assert [r.done for r in second.reports] == [10, 12, 16, 20], "it goes on from the checkpoint of step 10"
    wanted = told(whole)
    assert sorted(wanted) == list(range(1, 21))
    assert told(first) == {n: wanted[n] for n in range(1, 17)}
    assert told(second) == {n: wanted[n] for n in range(1, 21)}, "the checkpoint tells again what came before it"


def test_a_wish_to_stop_saves_first(config: TrainConfig, tmp_path: Path) -> None:
    session = Stopping(config, tmp_path / "run", after=7)
    report = run(config, session, make_step(tmp_path, config))
    assert (report.done, report.stopped) == (7, True)
    assert [p.name for p in sorted((tmp_path / "run").iterdir())] == ["step-00000007"]
    later = LocalSession(config, tmp_path / "run")
    assert run(config, later, make_step(tmp_path, config)).done == 20
    assert min(told(later)) == 1


def test_old_checkpoints_go(config: TrainConfig, tmp_path: Path) -> None:
    frequent = config.model_copy(update={"checkpoints": config.checkpoints.model_copy(update={"every_steps": 4})})
    run(frequent, LocalSession(frequent, tmp_path / "run"), make_step(tmp_path, frequent))
    assert [p.name for p in sorted((tmp_path / "run").iterdir())] == ["step-00000016", "step-00000020"]


def test_a_run_that_goes_wrong_keeps_its_last_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    step = make_step(tmp_path, config)
    session = LocalSession(config, tmp_path / "run")
    batches = session.batches

    def poisoned(start: int) -> Any:
        for batch in batches(start):
            if batch.step == 13:
                batch.source.fill_(torch.nan)
            yield batch

    session.batches = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="step 13"):
        run(config, session, step)
    assert [p.name for p in sorted((tmp_path / "run").iterdir())] == ["step-00000010"]
    history = json.loads((tmp_path / "run/step-00000010/history.json").read_text())
    assert [row["step"] for row in history] == list(range(1, 11))


def test_workers_share_a_step_without_loss_or_double(config: TrainConfig) -> None:
    loader = BatchLoader(config)
    for step in (0, 1, 5):
        whole = loader(step)
        for workers in (2, 4):
            parts = [loader(step, rank, workers) for rank in range(workers)]
            for name in TENSORS:
                assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)), name
            assert {p.same for p in parts} == {whole.same} == {step % 2 == 0}


def test_loaders_beside_a_run_make_the_same_batches_in_order(config: TrainConfig, tmp_path: Path) -> None:
    here, beside = (LocalSession(config, tmp_path, loaders).batches(12) for loaders in (0, 2))
    for one, other in zip(here, beside, strict=True):
        assert one.step == other.step
        for name in TENSORS:
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_only_a_face_that_is_swapped_with_itself_is_disguised(config: TrainConfig) -> None:
    feed = config.feed.model_copy(update={"disguise": DisguiseConfig(tone=1.0, tint=0.5)})
    plain, disguised = BatchLoader(config), BatchLoader(config.model_copy(update={"feed": feed}))
    for step in range(4):
        without, with_one = plain(step), disguised(step)
        assert without.given is without.target
        assert torch.equal(with_one.target, without.target), "what the result is compared with"
        changed = (with_one.given != with_one.target).flatten(1).any(dim=1)
        assert (changed == with_one.same).all()


@pytest.mark.parametrize("settings", [{"tone": 1.0}, {"tint": 0.5}, {"shape": 0.5}])
def test_every_disguise_works_by_itself(config: TrainConfig, settings: dict[str, float]) -> None:
    feed = config.feed.model_copy(update={"disguise": DisguiseConfig(**settings)})
    batch = BatchLoader(config.model_copy(update={"feed": feed}))(0)
    assert (batch.given != batch.target).flatten(1).any(dim=1).all()


def test_strangers_are_other_people_for_the_asked_part_of_the_people_swapped_with_themselves(
    config: TrainConfig,
) -> None:
    data, loader = FaceDataset(config.data), BatchLoader(config)
    chosen = []
    for step in range(40):
        batch = loader(step)
        some = batch.stranger.any(dim=1)
        assert batch.same or not some.any()
        for stranger, source in zip(batch.stranger[some], batch.source[some], strict=True):
            people = [int(np.abs(data.embeddings - e.numpy()).max(axis=1).argmin()) for e in (stranger, source)]
            assert np.array_equal(stranger.numpy(), data.embeddings[people[0]])
            assert data.identity[people[0]] != data.identity[people[1]]
        chosen += some.tolist() if batch.same else []
    assert 0.3 < np.mean(chosen) < 0.7


def test_a_batch_is_crops_of_the_set_and_embeddings_of_its_people(config: TrainConfig) -> None:
    plain = config.model_copy(
        update={
            "feed": config.feed.model_copy(
                update={"augmentation": settings(feed={"augmentation": {"flip": 0.0}}).feed.augmentation}
            )
        }
    )
    data = FaceDataset(config.data)
    held_out = split_identities(data.names, config.validation)
    everything = data.crops(np.arange(len(data)))
    for step in range(4):
        batch = BatchLoader(plain, data)(step)
        for crop, source in zip(batch.target, batch.source, strict=True):
            target = int((everything == crop).flatten(1).all(dim=1).nonzero()[0, 0])
            giver = int(np.abs(data.embeddings - source.numpy()).max(axis=1).argmin())
            assert np.abs(data.embeddings[giver] - source.numpy()).max() == 0
            assert (data.identity[target] == data.identity[giver]) == batch.same
            assert not held_out[data.identity[target]]
            assert not held_out[data.identity[giver]]
