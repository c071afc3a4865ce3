from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.config import TrackingConfig
from pipeline.runners.tracking import Tracker, flatten


def test_a_run_is_begun_continued_and_ended(tmp_path: Path) -> None:
    settings = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="tests")
    first = Tracker(settings)
    first.log_params(flatten(settings), {"recipe": "abc"})
    first.log_metrics({"faces/swapped": 3}, step=1)
    note = tmp_path / "note.txt"
    note.write_text("hello")
    first.log_artifact(note)
    first.end("KILLED")
    second = Tracker(settings, first.run_id)
    second.log_params(flatten(settings), {})
    second.end("FINISHED")
    run = MlflowClient(settings.uri).get_run(str(first.run_id))
    assert second.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["experiment"] == "tests"
    assert run.data.tags["recipe"] == "abc"
    assert run.data.metrics["faces/swapped"] == 3
    assert list((tmp_path / "mlartifacts").rglob("note.txt"))


def test_a_dead_server_costs_seconds_and_a_warning_never_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    tracker = Tracker(TrackingConfig(uri="http://127.0.0.1:9"))
    tracker.log_metrics({"x": 1.0}, step=0)
    tracker.end("FINISHED")
    assert time.perf_counter() - start < 30
    assert "cannot be used" in capsys.readouterr().err
    assert tracker.run_id is None


def test_tracking_can_be_switched_off() -> None:
    tracker = Tracker(TrackingConfig(enabled=False))
    tracker.log_metrics({"x": 1.0}, step=0)
    assert tracker.run_id is None
