"""The training command as a user runs it: Ray Train, MLflow, killed in every way, resumed by the same command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image

from pipeline.faces.packs import find_pack
from pipeline.media.store import store_at
from pipeline.model.checkpoint import load_generator, read_header
from pipeline.portrait_pack import pack_folder
from tests.contracts import broken_contract
from tests.e2e.conftest import Here
from tests.factories import small_dataset
from tests.object_store import ObjectStore
from tests.processes import named

pytestmark = [pytest.mark.ray, pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24


def make_run(root: Path, **changes: Any) -> None:
    """A set and the settings of a run that takes seconds."""
    pack = pack_folder("portraits")
    tree: dict[str, Any] = {
        "data": small_dataset(root / "set", 8, 3, 32, encoder=find_pack(pack).recogniser),
        "output": str(root / "run"),
        "models": pack,
        "model": {"crop_size": 32, "widths": [8, 16], "blocks": 1, "embedding_size": 256},
        "discriminator": {"widths": [8, 16]},
        "losses": {"first_layer": 1},
        "trainer": {"global_batch_size": 4, "steps": STEPS},
        "checkpoints": {"every_steps": 8, "keep": 2},
        "validation": {"every_steps": 12, "identities": 2, "pairs": 4, "grid": [2, 2]},
        "log_every_steps": 4,
        "registered_model": "small",
        "tracking": {"uri": f"sqlite:///{root / 'mlflow.db'}"},
    }
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    (root / "train.yaml").write_text(yaml.safe_dump(tree))


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.train", str(root / "train.yaml"), *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(root: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    process = start(root, *words)
    stdout, stderr = process.communicate(timeout=400)
    assert stdout.count("\n") == 1, stdout + stderr
    assert broken_contract(json.loads(stdout)) == []
    return process.returncode, json.loads(stdout), stderr


def train(here: Here, root: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """The same command where `run` would only import."""
    return here(root, "train", str(root / "train.yaml"), *words)


def wait_for(process: subprocess.Popen[str], found: Any, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told_steps(root: Path, result: dict[str, Any], metric: str = "loss/identity") -> dict[int, float]:
    """The metric as MLflow has it: every step once."""
    story = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    points = story.get_metric_history(result["mlflow"]["run_id"], metric)
    counts = Counter(point.step for point in points)
    assert set(counts.values()) == {1}, f"told twice: {[s for s, n in counts.items() if n > 1]}"
    return {point.step: point.value for point in points}


def last_checkpoint(root: Path) -> int:
    """The step of the newest whole checkpoint, 0 without any."""
    whole = (root / "run/checkpoints").glob("step-*/history.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in whole), default=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    make_run(root)
    code, result, stderr = run(root)
    assert code == 0, stderr
    return root, result


def test_a_run_tells_its_story_and_leaves_a_generator(whole: tuple[Path, dict[str, Any]]) -> None:
    root, result = whole
    assert sorted(told_steps(root, result)) == list(range(1, STEPS + 1))
    story = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    told = story.get_run(result["mlflow"]["run_id"])
    assert told.info.status == "FINISHED"
    assert told.data.params["trainer.steps"] == str(STEPS)
    assert {"loss/discriminator", "gradient_norm/generator", "learning_rate/generator"} <= set(told.data.metrics)
    assert {"speed/samples_per_s", "speed/data_share", "validation/source_cosine"} <= set(told.data.metrics)
    grids = [a.path for a in story.list_artifacts(told.info.run_id, "validation")]
    assert grids == ["validation/grid-00000012.png", "validation/grid-00000024.png"]
    assert [a.path for a in story.list_artifacts(told.info.run_id, "data")] == ["data/first-batch.png"]
    header = read_header(result["checkpoint"])
    assert header.encoder.name == "rec_portraits.onnx"
    assert header.training["steps"] == result["best"]["steps"]
    candidate = story.get_model_version_by_alias("small", "candidate")
    assert candidate.run_id == told.info.run_id
    artifact = Path(candidate.source.removeprefix("file://"))
    assert artifact.read_bytes() == Path(result["checkpoint"]).read_bytes()
    checkpoints = sorted(p.name for p in (root / "run/checkpoints").glob("step-*"))
    assert checkpoints == ["step-00000016", "step-00000024"]
    with Image.open(root / "run/checkpoints/step-00000024/grid.png") as grid:
        assert min(grid.size) > 200


def test_a_finished_run_again_writes_nothing(whole: tuple[Path, dict[str, Any]], here: Here) -> None:
    root, result = whole

    def snapshot() -> dict[str, tuple[int, str]]:
        files = [p for p in sorted(root.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
        return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}

    before = snapshot()
    code, again, _ = train(here, root)
    assert (code, again["checkpoint"], again["best"]) == (0, result["checkpoint"], result["best"])
    assert snapshot() == before


@pytest.mark.long
def test_mlflow_down_costs_a_run_nothing_but_time_and_the_next_command_tells_the_story(
    tmp_path: Path, here: Here
) -> None:
    make_run(tmp_path, trainer={"steps": 12})
    code, result, stderr = run(tmp_path, "tracking.uri=http://127.0.0.1:9")
    assert (code, result["mlflow"]["run_id"]) == (0, None), stderr

    code, again, stderr = train(here, tmp_path)
    assert code == 0, stderr
    story = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    told = story.get_run(again["mlflow"]["run_id"])
    assert told.info.status == "FINISHED"
    points = story.get_metric_history(told.info.run_id, "step")
    assert [point.step for point in points] == list(range(1, 13))
    artifacts = {
        file.path
        for folder in ("best", "data", "validation")
        for file in story.list_artifacts(told.info.run_id, folder)
    }
    assert artifacts == {"best/best.safetensors", "data/first-batch.png", "validation/grid-00000012.png"}
    assert len(story.search_model_versions("name = 'small'")) == 1
    assert not (tmp_path / "run" / "_simswap" / "mlflow-spool").exists()


def test_other_settings_in_the_same_output_are_refused(whole: tuple[Path, dict[str, Any]], here: Here) -> None:
    root, _ = whole
    code, result, _ = train(here, root, "losses.identity=30", "trainer.seed=4")
    assert code == 1
    assert "losses.identity (was 10.0), trainer.seed (was 0)" in result["error"]
    code, result, _ = train(here, root, "output=elsewhere", "model.crop_size=64", "--dry-run")
    assert (code, "holds crops of 32 px, the model takes 64" in result["error"]) == (1, True)


@pytest.mark.long
def test_killed_and_run_again_it_is_the_same_run_to_the_bit(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    make_run(tmp_path)
    process = start(tmp_path)
    wait_for(process, lambda: list((tmp_path / "run/checkpoints").glob("step-00000008/history.json")))
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, result, stderr = run(tmp_path)
    assert code == 0, stderr
    for metric in ("loss/identity", "loss/discriminator", "gradient_norm/generator"):
        assert told_steps(tmp_path, result, metric) == told_steps(*whole, metric), metric
    assert MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["1"])[1:] == []


@pytest.mark.long
def test_set_and_checkpoints_in_a_bucket_and_a_kill_change_nothing(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    make_run(tmp_path)
    store = store_at(f"s3://{object_store.bucket}/training")
    for path in (tmp_path / "set").rglob("*"):
        if path.is_file():
            store.write(f"set/{path.relative_to(tmp_path / 'set')}", path.read_bytes())
    words = [f"data={store.address}/set", f"output={store.address}/run"]
    process = start(tmp_path, *words)
    wait_for(process, lambda: store.stat("run/checkpoints/step-00000008/history.json"))
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, result, stderr = run(tmp_path, *words)
    assert code == 0, stderr
    for metric in ("loss/identity", "loss/discriminator", "gradient_norm/generator"):
        assert told_steps(tmp_path, result, metric) == told_steps(*whole, metric), metric
    assert result["checkpoint"] == f"{store.address}/run/best.safetensors"
    there, here = (load_generator(one["checkpoint"]).state_dict() for one in (result, whole[1]))
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert not store.stat("run/checkpoints/step-00000008/history.json"), "the last two stay"


@pytest.mark.long
def test_sigterm_saves_first_and_more_workers_may_go_on(tmp_path: Path) -> None:
    make_run(tmp_path, trainer={"steps": 60}, checkpoints={"every_steps": 1000}, validation={"every_steps": 1000})
    process = start(tmp_path)
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if '"progress"' in line and '"done": 0' not in line:
            break
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=200)
    assert process.returncode == 130, "".join(lines)
    assert json.loads(stdout)["status"] == "interrupted"
    (saved,) = (tmp_path / "run/checkpoints").glob("step-*")
    done = int(saved.name.removeprefix("step-"))
    assert 0 < done < 60
    code, result, stderr = run(tmp_path, "workers.workers=2", "workers.cpus=0.5")
    assert code == 0, stderr
    assert sorted(told_steps(tmp_path, result)) == list(range(1, 61))


@pytest.mark.long
def test_whatever_process_of_a_training_dies_is_replaced(tmp_path: Path) -> None:
    make_run(tmp_path, trainer={"steps": 160})
    process = start(tmp_path)
    for name in ("RayTrainWorker", "Board", "TrainController"):
        before = last_checkpoint(tmp_path)
        wait_for(process, lambda before=before: last_checkpoint(tmp_path) > before)
        (one,) = named(process.pid, f"ray::{name}")
        os.kill(one, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert "another goes on from the last checkpoint" in stderr
    assert sorted(told_steps(tmp_path, json.loads(stdout))) == list(range(1, 161))


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run_and_says_where(tmp_path: Path) -> None:
    make_run(tmp_path, optimiser={"lr_generator": 1e25, "warmup_steps": 1})
    code, result, stderr = run(tmp_path)
    assert code == 1
    assert "step 1: not finite: " in result["error"], stderr
    assert f"the checkpoints before are in {tmp_path}/run/checkpoints" in result["error"]
