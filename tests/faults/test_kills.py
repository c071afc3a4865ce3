"""Jobs that are killed anywhere, stopped, started twice, or find other inputs and settings when they go on."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.faces.table import write_faces
from tests.factories import ENCODER, add_input, encode_png, scene, scene_faces
from tests.faults.jobs import SmallJob, failing
from tests.faults.places import in_bucket, use_store
from tests.object_store import ObjectStore
from tests.outside import Folder, History, check_output, check_shards, check_visible

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

Check = Callable[[str, str], Counter[str]]

OF_FILES = (
    "job written", "books opened", "finish=@2", "output written=@2", "receipts written=@2",
    "receipts folded", "parts removed", "story told", "job finished",
)  # fmt: skip
OF_SHARDS = (
    "books opened", "part written=@2", "shard written", "side files written", "shard receipts written",
    "shard record written", "story told",
)  # fmt: skip


def kill_in_turn(job: SmallJob, points: Sequence[str], check: Check) -> Counter[str]:
    """Kill a job at each of some fail points, look at it each time, and let it end at last."""
    history = History(job.output)
    for point in points:
        name, _, number = point.partition("=")
        code, result = job.run(**failing(f"{name}=killjob{number}"))
        assert code == -signal.SIGKILL, (point, result)
        check_visible(job.inputs, job.output)
        history.note()
    finish(job, history)
    return check(job.inputs, job.output)


def finish(job: SmallJob, history: History, *words: str) -> None:
    """Let a job end, see that nothing is done twice, and that the same command then writes nothing."""
    code, result = job.run(*words)
    assert code == 0, result["stderr"]
    history.note()
    assert history.done_again == set()
    before = Folder(job.output).facts()
    code, result = job.run(*words)
    assert (code, result["done_now"]) == (0, 0)
    assert Folder(job.output).facts() == before


@pytest.mark.long
def test_files_killed_at_every_point_of_the_commit_are_whole_and_done_once(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 12)
    assert kill_in_turn(job, OF_FILES, check_output) == {"done": 12}


@pytest.mark.long
def test_shards_killed_at_every_point_of_the_commit_are_whole_and_done_once(tmp_path: Path) -> None:
    job = SmallJob.make_shards(tmp_path, 3, 6)
    assert kill_in_turn(job, OF_SHARDS, check_shards) == {"done": 15, "failed": 2, "skipped": 1}


@pytest.mark.slow
def test_files_in_a_bucket_killed_while_they_are_committed_are_done_once(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(monkeypatch, object_store)
    job = in_bucket(SmallJob.make(tmp_path, 6), object_store, "killed-files")
    points = ("output written", "receipts written", "receipts folded", "job finished")
    assert kill_in_turn(job, points, check_output) == {"done": 6}


@pytest.mark.slow
def test_shards_in_a_bucket_killed_while_they_are_committed_are_done_once(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(monkeypatch, object_store)
    job = in_bucket(SmallJob.make_shards(tmp_path, 3, 3), object_store, "killed-shards")
    points = ("part written", "shard written", "shard receipts written", "shard record written")
    assert kill_in_turn(job, points, check_shards) == {"done": 6, "failed": 2, "skipped": 1}


@pytest.mark.long
def test_a_job_that_is_told_to_stop_or_started_twice_leaves_one_output(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 8)
    job.forked = False  # how long a whole process takes to end
    history = History(job.output)
    first = job.start(**failing("finish:0006=hang"))
    job.wait_for_results(first, 1)
    second = job.start()
    stdout, stderr = second.communicate(timeout=300)
    assert second.returncode == 1, stdout + stderr
    assert f"process {first.pid} on" in stdout

    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    code, result = job.end(first)
    assert (code, result["status"]) == (130, "interrupted")
    assert time.monotonic() - began < 20
    check_visible(job.inputs, job.output)
    assert history.note() > 0
    assert not list((tmp_path / "out" / "_simswap").glob("claims/*"))
    finish(job, history)
    assert check_output(job.inputs, job.output) == {"done": 8}


@pytest.mark.slow
def test_a_killed_job_notices_inputs_and_settings_that_have_changed(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 8)
    made = scene(1, seed=77)
    data, faces = encode_png(made.frame), scene_faces(made)
    items = [f"{n % 3}/{n:04d}.png" for n in (0, 7)]
    write_faces(str(tmp_path / "table"), [(i, hashlib.sha256(data).hexdigest(), faces) for i in items], ENCODER.digest)
    history = History(job.output)
    assert job.run(**failing("receipts written=killjob@2"))[0] == -signal.SIGKILL
    history.note()
    for item in items:  # one that is done, and one that is not
        (tmp_path / "in" / item).write_bytes(data)
    history.forget(*(f"{item}/" for item in items))
    assert job.run(**failing("receipts written=killjob@2"))[0] == -signal.SIGKILL
    check_visible(job.inputs, job.output)
    history.note()

    code, result = job.run("mask.erode=0.1")
    assert (code, "another recipe; different: mask.erode (was 0.05)" in result["error"]) == (1, True)
    others = ("mask.erode=0.1", "overwrite=true")
    assert job.run(*others, **failing("receipts written=killjob@2"))[0] == -signal.SIGKILL
    check_visible(job.inputs, job.output)
    history.note()
    finish(job, history, *others)
    assert check_output(job.inputs, job.output) == {"done": 8}


@pytest.mark.slow
def test_gc_removes_what_a_kill_has_left_and_nothing_else(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 4)
    add_input(tmp_path, "gone.png", (tmp_path / "in" / "0" / "0000.png").read_bytes(), None)
    assert job.run(**failing("output written=killjob"))[0] == -signal.SIGKILL
    half = tmp_path / "out" / "_simswap" / "partial" / ".1.partial"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    before = Folder(job.output).facts()
    orphan = Folder(job.output).visible()
    assert len(orphan) == 1

    code, result = job.run("--dry-run", command="gc")
    assert (code, result["found"]["partial"], result["orphans"]) == (0, 1, orphan)
    assert Folder(job.output).facts() == before
    code, result = job.run(command="gc")
    kept = {name: facts for name, facts in before.items() if "/partial/" not in name and "/claims/" not in name}
    assert (code, Folder(job.output).facts()) == (0, kept)
    assert job.run("orphans=true", command="gc")[0] == 0
    assert Folder(job.output).visible() == []

    (tmp_path / "in" / "gone.png").unlink()
    finish(job, History(job.output))
    assert check_output(job.inputs, job.output) == {"done": 4}
