"""`simswap prepare` as a user runs it, on procedural portraits with the pack that is shipped for them."""

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

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from pipeline.portrait_pack import pack_folder
from pipeline.preparation.dataset import FaceDataset
from pipeline.synthetic.people import Appearance
from tests.contracts import broken_contract
from tests.e2e.conftest import Here, Kept
from tests.factories import encode_png, portrait

pytestmark = [pytest.mark.ray, pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "jobs" / "configs" / "prepare.yaml")


def make_job(tmp_path: Path) -> list[str]:
    """Settings of a job over four photographs of each of six people, and one that is broken."""
    random = np.random.default_rng(5)
    for person in range(6):
        folder = tmp_path / "in" / f"person_{person}"
        folder.mkdir(parents=True)
        who = Appearance.sample(random)
        for number in range(4):
            (folder / f"{number}.png").write_bytes(encode_png(portrait(who, random, side=200).frame))
    (tmp_path / "in" / "person_1" / "broken.jpg").write_bytes(b"broken")
    words = [
        f"inputs={tmp_path / 'in'}",
        f"output={tmp_path / 'out'}",
        f"models={pack_folder('portraits')}",
        "crop_size=112",
    ]
    return [*words, "photos_per_shard=5", f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"]


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    return make_job(tmp_path)


def prepare(here: Here, root: Path, words: list[str]) -> tuple[int, dict[str, Any], str]:
    """The same command where `run` would only import."""
    return here(root, "prepare", CONFIG, *words)


def start(root: Path, words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "prepare", CONFIG, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=root, env=environment, text=True, start_new_session=True, **pipes)


def run(root: Path, words: list[str]) -> tuple[int, dict[str, Any], str]:
    process = start(root, words)
    stdout, stderr = process.communicate(timeout=500)
    assert stdout.count("\n") == 1, stdout + stderr
    assert broken_contract(json.loads(stdout)) == []
    return process.returncode, json.loads(stdout), stderr


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files
    }


@dataclass(frozen=True)
class Prepared:
    """A set of `job`'s photographs.

    Attributes:
        root: its folder.
        job: the words of the command.
        result: what it said.
        stderr: its progress.
    """

    root: Path
    job: list[str]
    result: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Prepared]:
    root = tmp_path_factory.mktemp("prepared")
    job = make_job(root)
    code, result, stderr = run(root, job)
    assert code == 0, stderr
    return Kept(root, "in", "out"), Prepared(root, job, result, stderr)


@pytest.fixture
def prepared(prepared_once: tuple[Kept, Prepared]) -> Prepared:
    kept, made = prepared_once
    kept.restored()
    return made


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, job: list[str], here: Here) -> None:
    before = snapshot(tmp_path)
    code, planned, _ = prepare(here, tmp_path, [*job, "--dry-run"])
    assert (code, planned["status"], planned["photos_left"], planned["shards_left"]) == (0, "planned", 25, 5)
    assert planned["identities_labelled"] == 6
    assert snapshot(tmp_path) == before


def test_photographs_become_a_set_that_training_reads(prepared: Prepared) -> None:
    tmp_path, result, stderr = prepared.root, prepared.result, prepared.stderr
    assert result["photos"]["total"] == 25
    assert result["reasons"]["unreadable"] == 1
    dataset = FaceDataset(str(tmp_path / "out"))
    assert (len(dataset), len(dataset.names)) == (result["faces"], result["identities"])
    assert result["faces"] >= 22
    assert dataset.crops(np.arange(len(dataset))).shape[1:] == (3, 112, 112)
    alike = dataset.embeddings @ dataset.embeddings.T
    same = dataset.identity[:, None] == dataset.identity[None, :]
    assert alike[same].mean() > alike[~same].mean() + 0.4
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert [e for e in events if e["event"] == "progress"][-1]["done"] == 25
    story = MlflowClient(result["mlflow"]["uri"])
    told = story.get_run(result["mlflow"]["run_id"])
    assert told.info.status == "FINISHED"
    assert told.data.metrics["identities"] == 6
    assert told.data.params["filters.min_face_px"] == "64.0"
    artifacts = {artifact.path for artifact in story.list_artifacts(told.info.run_id)}
    assert {"contact_sheet.jpg", "report.html", "photos.parquet"} <= artifacts


def test_a_set_that_is_there_is_not_made_again(prepared: Prepared, here: Here) -> None:
    before = snapshot(prepared.root)
    code, again, _ = prepare(here, prepared.root, prepared.job)
    assert (code, again["shards_made_now"], again["photos"]) == (0, 0, prepared.result["photos"])
    assert snapshot(prepared.root) == before


@pytest.mark.long
def test_another_recipe_is_refused_and_what_it_does_not_concern_is_kept(prepared: Prepared, here: Here) -> None:
    tmp_path, job, result = prepared.root, prepared.job, prepared.result
    before = snapshot(tmp_path / "out")
    code, refused, _ = prepare(here, tmp_path, [*job, "filters.min_photos=4", "crop_format=png"])
    assert code == 1
    assert "different: crop_format (was 'jpeg'), filters.min_photos (was 2)." in refused["error"]
    assert snapshot(tmp_path / "out") == before
    code, changed, stderr = prepare(here, tmp_path, [*job, "filters.min_photos=4", "overwrite=true"])
    assert code == 0, stderr
    assert changed["shards_made_now"] == 0
    assert changed["recipe"] != result["recipe"]
    after = snapshot(tmp_path / "out")
    assert all(after[name] == before[name] for name in before if name.startswith("shards/"))
    (tmp_path / "in" / "person_2" / "1.png").unlink()
    code, grown, stderr = run(tmp_path, [*job, "filters.min_photos=4"])
    assert code == 0, stderr
    assert grown["photos"]["total"] == 24
    assert grown["reasons"]["too_few_photos"] >= 3
    assert "person_2" not in FaceDataset(str(tmp_path / "out")).names


@pytest.mark.long
def test_a_killed_job_run_again_does_only_the_rest(tmp_path: Path, job: list[str]) -> None:
    words = [*job, "photos_per_shard=2", "pool.workers=1"]
    process = start(tmp_path, words)
    receipts = tmp_path / "out" / "_simswap" / "receipts"
    deadline = time.monotonic() + 400
    while len(list(receipts.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = snapshot(tmp_path / "out")
    done = {name for name in before if name.startswith("_simswap/receipts/")}
    assert 3 <= len(done) < 13, "the kill came too late to show anything"
    assert "header.json" not in before
    code, result, stderr = run(tmp_path, words)
    assert code == 0, stderr
    # Workers that outlive the driver for a moment may have finished a shard more.
    assert 0 < result["shards_made_now"] <= 13 - len(done)
    after = snapshot(tmp_path / "out")
    kept = {name for receipt in done for name in (receipt, receipt.replace("_simswap/receipts", "shards"))}
    assert all(after[name] == before[name] for name in kept)
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert len(FaceDataset(str(tmp_path / "out"))) == result["faces"]


@pytest.mark.long
def test_fewer_than_two_identities_are_refused_in_one_line(tmp_path: Path, job: list[str], here: Here) -> None:
    people = tmp_path / "in"
    one = [f"inputs={people / 'person_1'}", f"output={tmp_path / 'one'}", *job[2:]]
    code, refused, stderr = prepare(here, tmp_path, one)
    assert code == 1
    assert "photographs, and nothing says of whom; training swaps between people and needs two" in refused["error"]
    assert len([line for line in stderr.splitlines() if line.startswith("simswap prepare:")]) == 1
    assert not (tmp_path / "one").exists()

    code, refused, stderr = run(tmp_path, [*job, "filters.min_sharpness=9"])
    assert code == 1
    assert "no identity left of 25 photographs (dropped: 24 blurred, 1 unreadable)" in refused["error"]
    assert not (tmp_path / "out" / "header.json").exists()
    photos = pq.read_table(tmp_path / "out" / "photos.parquet")
    assert set(photos.column("reason").to_pylist()) == {"blurred", "unreadable"}
    assert (tmp_path / "out" / "_simswap" / "report.html").exists()
