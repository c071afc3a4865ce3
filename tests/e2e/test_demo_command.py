"""The README's first command, small: everything it promises, from drawing to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline.model.checkpoint import read_header
from pipeline.portrait_pack import shipped_generator
from tests.contracts import broken_contract

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "jobs.demo", "people=12", "photos=3", "steps=6", "scenes=4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert [broken_contract(one) for one in (result, result["prepared"], result["trained"])] == [[], [], []]
    return result


def test_the_demo_draws_prepares_trains_and_swaps(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result["prepared"]["photos"]["total"] == 36
    assert result["items"]["done"] == 4
    assert result["faces"]["swapped"] >= 9, "ten were drawn; the detector may miss one"
    assert (tmp_path / result["report"]).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["demo-output"]
    trained = read_header(result["trained"]["checkpoint"])
    assert trained.training["steps"] == 6
    assert trained.config == read_header(shipped_generator()).config
    assert trained.digest != read_header(shipped_generator()).digest, "it went on from there"
    story = MlflowClient(result["mlflow"]["uri"])
    (experiment,) = story.search_experiments(filter_string="name = 'demo'")
    assert len(story.search_runs([experiment.experiment_id])) == 3
    params = story.get_run(result["trained"]["mlflow"]["run_id"]).data.params
    assert params["workers.workers"] == "2"

    again = run(tmp_path)
    assert (again["done_now"], again["prepared"]["shards_made_now"]) == (0, 0)
    assert again["trained"]["best"] == result["trained"]["best"]
