"""Stores that fail now and then or for good, disks that are full, inputs that are bad."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.factories import add_input
from tests.fault_proxy import Fault, FaultProxy, Schedule
from tests.faults.jobs import SmallJob
from tests.faults.places import in_bucket, small_disk, use_store
from tests.faults.test_kills import finish
from tests.object_store import ObjectStore
from tests.outside import Folder, History, check_output, check_shards, check_visible

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

_OFTEN = dict.fromkeys(Fault, 0.04)
_ALWAYS = {Fault.ERROR: 1.0}


@pytest.mark.long
@pytest.mark.parametrize("layout", ["files", "shards"])
def test_a_store_that_fails_now_and_then_costs_nothing_but_time(
    layout: str, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(monkeypatch, object_store)
    made = SmallJob.make(tmp_path, 8) if layout == "files" else SmallJob.make_shards(tmp_path, 3, 3)
    job = in_bucket(made, object_store, f"faults-{layout}")
    with FaultProxy(object_store.endpoint, Schedule(11, _OFTEN)) as proxy:
        job.environment = object_store.environment(proxy.endpoint)
        code, result = job.run()
        assert code == 0, result["stderr"]
        assert sum(proxy.faults.values()) > 5
        proxy.calm()
        finish(job, History(job.output))
    if layout == "files":
        assert check_output(job.inputs, job.output) == {"done": 8}
    else:
        assert check_shards(job.inputs, job.output) == {"done": 6, "failed": 2, "skipped": 1}


@pytest.mark.slow
def test_a_store_that_is_down_ends_the_job_with_one_line_and_it_goes_on_afterwards(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(monkeypatch, object_store)
    job = in_bucket(SmallJob.make(tmp_path, 24), object_store, "down")
    job.words += ("storage.attempts=2",)
    history = History(job.output)
    with FaultProxy(object_store.endpoint) as proxy:
        job.environment = object_store.environment(proxy.endpoint)
        process = job.start()
        while not Folder(job.output).visible():
            assert process.poll() is None, process.communicate()
        proxy.follow(Schedule(0, _ALWAYS))
        code, result = job.end(process)
        assert code == 1
        assert _lines_of(result["stderr"], "simswap swap: ") == [f"simswap swap: {result['error']}"], result["stderr"]
        assert "/out/" in result["error"]
        assert "_simswap/partial" not in result["error"]
        check_visible(job.inputs, job.output)
        history.note()
        proxy.calm()
        finish(job, history)
    assert check_output(job.inputs, job.output) == {"done": 24}


@pytest.mark.slow
def test_a_full_disk_ends_the_job_with_one_line_and_it_goes_on_once_there_is_room(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 12)
    history = History(job.output)
    with small_disk(tmp_path / "out", "200k"):
        code, result = job.run()
        assert (code, "No space left on device" in result["error"]) == (1, True), result["error"]
        assert _lines_of(result["stderr"], "simswap swap: ") == [f"simswap swap: {result['error']}"], result["stderr"]
        assert check_visible(job.inputs, job.output) < 12
        history.note()
        subprocess.run(["mount", "-o", "remount,size=16m", str(tmp_path / "out")], check=True)
        finish(job, history)
        assert check_output(job.inputs, job.output) == {"done": 12}


def test_bad_inputs_become_reasons_and_how_many_there_may_be_is_a_setting(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 8, max_failed_fraction=0.1)
    add_input(tmp_path, "broken.png", b"no picture", None)
    add_input(tmp_path, "empty.jpg", b"", None)
    code, result = job.run()
    assert (code, result["status"], result["reasons"]) == (1, "failed", {"unreadable": 2}), result["stderr"]
    assert check_output(job.inputs, job.output) == {"done": 8, "failed": 2}
    finish(job, History(job.output), "max_failed_fraction=0.2")


def _lines_of(stderr: str, start: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(start)]
