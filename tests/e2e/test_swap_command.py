"""The command as a user runs it: embedded Ray, receipts, MLflow, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image

from tests.bad_images import write_bad_images
from tests.contracts import broken_contract
from tests.e2e.conftest import Here, Kept
from tests.factories import add_input, encode_png, no_faces, scene, scene_faces, small_job

pytestmark = [pytest.mark.ray, pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    write_settings(root)
    command = [sys.executable, "-m", "jobs.swap", str(root / "swap.yaml"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(root: Path, *words: str, timeout_s: float = 500) -> tuple[int, dict[str, Any], str]:
    process = start(root, *words)
    stdout, stderr = process.communicate(timeout=timeout_s)
    assert stdout.count("\n") == 1, stdout + stderr
    assert broken_contract(json.loads(stdout)) == []
    return process.returncode, json.loads(stdout), stderr


def write_settings(root: Path) -> None:
    """As YAML, from what `make_job` wrote."""
    if not (root / "swap.yaml").exists():
        (root / "swap.yaml").write_text(yaml.safe_dump(json.loads((root / "settings.json").read_text())))


def make_job(root: Path, images: int = 4, **changes: Any) -> None:
    settings = small_job(root, images, **changes)
    (root / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files
    }


@dataclass(frozen=True)
class Finished:
    """A job over four pictures that has run to its end.

    Attributes:
        root: its folder.
        result: what the command said.
        stderr: its progress.
    """

    root: Path
    result: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Finished]:
    root = tmp_path_factory.mktemp("finished")
    make_job(root)
    code, result, stderr = run(root)
    assert code == 0, stderr
    return Kept(root, "in", "out", "table"), Finished(root, result, stderr)


@pytest.fixture
def finished(finished_once: tuple[Kept, Finished]) -> Finished:
    kept, job = finished_once
    kept.restored()
    return job


def swap(here: Here, root: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """The same command where `run` would only import."""
    return here(root, "swap", str(root / "swap.yaml"), *words)


def test_a_job_runs_and_tells_its_story(finished: Finished) -> None:
    tmp_path, result, stderr = finished.root, finished.result, finished.stderr
    assert result["items"] == {"total": 4, "done": 4, "skipped": 0, "failed": 0}
    assert result["faces"]["swapped"] == 6
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert [e for e in events if e["event"] == "progress"][-1]["done"] == 4
    rows = pq.read_table(result["receipts"]).to_pylist()
    assert [row["item"] for row in rows] == sorted(
        str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*.png")
    )
    for row in rows:
        assert hashlib.sha256((tmp_path / "out" / row["output"]).read_bytes()).hexdigest() == row["output_sha256"]
        assert hashlib.sha256((tmp_path / "in" / row["item"]).read_bytes()).hexdigest() == row["input_sha256"]
    story = MlflowClient(result["mlflow"]["uri"])
    told = story.get_run(result["mlflow"]["run_id"])
    assert told.info.status == "FINISHED"
    assert told.data.metrics["faces/swapped"] == 6
    assert told.data.params["swapper.batch_size"] == "8"
    assert len(told.data.tags["checkpoint_sha256"]) == 64
    artifacts = {artifact.path for artifact in story.list_artifacts(told.info.run_id)}
    assert {"contact_sheet.jpg", "report.html", "receipts.parquet"} <= artifacts
    assert Image.open(result["contact_sheet"]).width > 500
    assert "data:image/jpeg;base64," in Path(result["report"]).read_text()


def test_a_finished_job_writes_nothing_when_run_again(finished: Finished, here: Here) -> None:
    before = snapshot(finished.root)
    code, again, _ = swap(here, finished.root)
    assert (code, again["done_now"], again["items"]) == (0, 0, finished.result["items"])
    assert snapshot(finished.root) == before


def test_a_killed_job_run_again_does_only_the_rest(tmp_path: Path) -> None:
    make_job(tmp_path, images=24, pools={name: {"items": 2} for name in ("analyse", "swap", "finish")})
    process = start(tmp_path)
    parts = tmp_path / "out" / "_simswap" / "receipts"
    deadline = time.monotonic() + 400
    while len(list(parts.glob("part-*.parquet"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = {row["item"] for part in parts.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()}
    assert 0 < len(finished) < 24, "the kill came too late to show anything"
    before = snapshot(tmp_path / "out")
    code, result, stderr = run(tmp_path)
    assert code == 0, stderr
    assert result["items"] == {"total": 24, "done": 24, "skipped": 0, "failed": 0}
    # Workers that outlive the driver for a moment may have finished a batch more.
    assert result["done_now"] <= 24 - len(finished)
    after = snapshot(tmp_path / "out")
    assert all(after[item] == before[item] for item in finished)
    assert not list((tmp_path / "out").rglob("*.partial"))
    outputs = {name for name in after if not name.startswith("_simswap/")}
    assert outputs == {str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*.png")}


@pytest.mark.long
def test_bad_files_among_good_ones_become_reasons_and_harm_nothing(tmp_path: Path) -> None:
    make_job(tmp_path, images=40)
    (tmp_path / "bad").mkdir()
    expected = write_bad_images(tmp_path / "bad")
    for name, reason in expected.items():
        data = (tmp_path / "bad" / name).read_bytes()
        add_input(tmp_path, f"bad/{name}", data, no_faces() if reason in ("no_face", "") else None)
    code, result, stderr = run(tmp_path, "images.max_pixels=50000000", "max_failed_fraction=0.9")
    assert code == 0, stderr
    rows = {row["item"]: row for row in pq.read_table(result["receipts"]).to_pylist()}
    assert len(rows) == 40 + len(expected)
    assert len(expected) >= 30
    for name, reason in expected.items():
        row = rows[f"bad/{name}"]
        assert row["status"] in ("failed", "skipped"), name
        assert row["reason"] == (reason or "no_face"), name
        assert row["detail"].startswith(f"bad/{name}: ")
        assert not (tmp_path / "out" / "bad" / name).exists()
    outputs = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {o for o in outputs if not o.startswith("_simswap/")} == {
        i for i, r in rows.items() if r["status"] == "done"
    }
    assert sum(row["status"] == "done" for row in rows.values()) == 40


@pytest.mark.long
def test_changed_new_and_lost_files_are_done_again_and_no_others(finished: Finished, here: Here) -> None:
    tmp_path = finished.root
    items = sorted((tmp_path / "in").rglob("*.png"))
    lost = tmp_path / "out" / items[0].relative_to(tmp_path / "in")
    lost.unlink()
    gone = tmp_path / "in" / "gone.png"
    made = scene(1, seed=50)
    add_input(tmp_path, "new.png", encode_png(made.frame), scene_faces(made))
    add_input(tmp_path, "gone.png", b"broken", None)
    # A table that has grown is another recipe: the same result must be asked for again.
    code, result, _ = swap(here, tmp_path)
    assert code == 1
    assert "another recipe" in result["error"]
    code, result, _ = run(tmp_path, "overwrite=true")
    assert code == 0
    assert result["items"] == {"total": 6, "done": 5, "skipped": 0, "failed": 1}
    lost.unlink()
    gone.unlink()
    code, result, _ = run(tmp_path)
    assert (code, result["done_now"], lost.exists()) == (0, 1, True)
    assert result["items"] == {"total": 5, "done": 5, "skipped": 0, "failed": 0}


@pytest.mark.long
def test_a_job_killed_before_its_story_was_told_tells_it_when_run_again(finished: Finished, here: Here) -> None:
    tmp_path, first = finished.root, finished.result
    books = tmp_path / "out" / "_simswap"
    facts = json.loads((books / "job.json").read_text())
    (books / "job.json").write_text(json.dumps(facts | {"finished": False}))
    Path(first["report"]).unlink()
    (books / "partial").mkdir()
    (books / "partial" / ".123.partial").write_bytes(b"half")
    code, result, _ = swap(here, tmp_path)
    assert (code, result["done_now"], result["items"]) == (0, 0, first["items"])
    assert Path(result["report"]).exists()
    assert result["mlflow"]["run_id"] == first["mlflow"]["run_id"]
    assert not (books / "partial").exists()


@pytest.mark.long
def test_mlflow_down_costs_a_job_nothing_but_time_and_the_next_command_tells_the_story(
    tmp_path: Path, here: Here
) -> None:
    make_job(tmp_path)
    code, result, stderr = run(tmp_path, "tracking.uri=http://127.0.0.1:9")
    assert (code, result["mlflow"]["run_id"]) == (0, None)
    assert stderr.count("cannot be used") == stderr.count("the same command tells it") == 1
    assert list((tmp_path / "out" / "_simswap" / "mlflow-spool").glob("*.jsonl"))

    code, again, stderr = swap(here, tmp_path)
    assert (code, again["done_now"]) == (0, 0), stderr
    story = MlflowClient(again["mlflow"]["uri"])
    told = story.get_run(again["mlflow"]["run_id"])
    assert told.info.status == "FINISHED"
    assert told.data.metrics["faces/swapped"] == 6
    artifacts = {artifact.path for artifact in story.list_artifacts(told.info.run_id)}
    assert {"contact_sheet.jpg", "report.html", "receipts.parquet"} <= artifacts
    record = json.loads((tmp_path / "out" / "_simswap" / "job.json").read_text())
    assert record["mlflow_run_id"] == told.info.run_id
    assert not (tmp_path / "out" / "_simswap" / "mlflow-spool").exists()


def test_wrong_use_and_impossible_pools_end_with_their_exit_code_before_anything_is_written(
    tmp_path: Path, here: Here
) -> None:
    make_job(tmp_path, images=1)
    write_settings(tmp_path)
    for words, says in (
        (["swapper.batchsize=1"], "did you mean 'swapper.batch_size'?"),
        (["pools.swap.cpus=400", "ray.num_cpus=2"], "the cluster has 2"),
        (["source=nobody.jpg"], "nobody.jpg"),
    ):
        code, result, stderr = swap(here, tmp_path, *words)
        assert code == 2
        assert result["status"] == "failed"
        assert says in result["error"]
        assert says in stderr
    outputs = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and "_simswap" not in p.parts]
    assert outputs == []


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, here: Here) -> None:
    make_job(tmp_path, images=2)
    write_settings(tmp_path)
    before = snapshot(tmp_path)
    code, result, _ = swap(here, tmp_path, "--dry-run")
    assert (code, result["status"], result["inputs_left"]) == (0, "planned", 2)
    assert snapshot(tmp_path) == before


@pytest.mark.long
def test_too_many_failures_fail_the_job(tmp_path: Path) -> None:
    make_job(tmp_path, images=1)
    for n in range(3):
        add_input(tmp_path, f"broken{n}.png", b"no image", None)
    code, result, _ = run(tmp_path)
    assert (code, result["status"]) == (1, "failed")
    assert result["reasons"] == {"unreadable": 3}
    assert result["items"]["done"] == 1
