"""Workers that die, hang and are killed; a node that goes."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.jobs import SmallJob, failing
from tests.nodes import nodes
from tests.outside import check_output, check_shards

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.mark.long
def test_inputs_that_end_or_hang_their_worker_become_reasons_and_are_done_by_redrive(tmp_path: Path) -> None:
    job = SmallJob.make(tmp_path, 9, faults={"item_s": 8.0, "attempts": 2}, max_failed_fraction=1.0)
    # 0008 is a batch by itself, the others are in pairs
    points = ("analyse:0001=abort", "swap:0008=abort", "finish:0005=kill", "swap:0007=hang")
    code, result = job.run(**failing(*points))
    assert (code, result["reasons"]) == (0, {"killed_worker": 3, "timed_out": 1}), result["stderr"]
    assert check_output(job.inputs, job.output) == {"done": 5, "failed": 4}

    code, result = job.run("reasons=[killed_worker]", command="redrive")
    assert (code, result["redriven"], result["done_now"]) == (0, 3, 3)
    assert check_output(job.inputs, job.output) == {"done": 8, "failed": 1}
    code, result = job.run(command="redrive")
    assert (code, result["redriven"], result["reasons"]) == (0, 1, {})
    assert check_output(job.inputs, job.output) == {"done": 9}


@pytest.mark.slow
def test_images_in_shards_that_end_their_worker_become_reasons_and_are_folded_in_by_redrive(tmp_path: Path) -> None:
    job = SmallJob.make_shards(tmp_path, 3, 6, faults={"attempts": 2}, max_failed_fraction=1.0)
    code, result = job.run(**failing("analyse:000000002=abort", "finish:000000010=kill", "swap:000000015=abort"))
    assert code == 0, result["stderr"]
    assert result["reasons"] == {"killed_worker": 3, "unreadable": 2, "not_an_image": 1}
    assert check_shards(job.inputs, job.output) == {"done": 12, "failed": 5, "skipped": 1}

    code, result = job.run("reasons=[killed_worker]", command="redrive")
    assert (code, result["redriven"], result["reasons"]) == (0, 3, {"unreadable": 2, "not_an_image": 1})
    assert check_shards(job.inputs, job.output) == {"done": 15, "failed": 2, "skipped": 1}


@pytest.mark.slow
def test_a_job_outlives_its_workers_being_killed_at_random(tmp_path: Path) -> None:
    job, chance = SmallJob.make(tmp_path, 60, faults={"attempts": 20}), random.Random(7)
    process = job.start()
    job.wait_for_results(process, 2)
    killed, until = 0, time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        workers = sorted(job.workers())
        if workers:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
        time.sleep(2)
    code, result = job.end(process)
    assert (code, result.get("reasons")) == (0, {}), result["stderr"]
    assert killed > 5
    assert check_output(job.inputs, job.output) == {"done": 60}


@pytest.mark.long
def test_a_job_outlives_the_loss_of_a_node(tmp_path: Path) -> None:
    pools = {name: {"items": 2, "cpus": 0.3, "workers": 2} for name in ("analyse", "swap", "finish")}
    job = SmallJob.make(tmp_path, 60, pools=pools)
    with nodes([{"num_cpus": 2}, {"num_cpus": 1}], tmp_path) as cluster:
        process = job.start(f"ray.address={cluster.address}")
        job.wait_for_results(process, 5)
        cluster.lose_one()
        assert job.results() < 60
        stdout, stderr = process.communicate(timeout=400)
        assert process.returncode == 0, stdout + stderr
    assert check_output(job.inputs, job.output) == {"done": 60}
