"""A node is lost in the middle: the run goes on with fewer workers and the same global batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.e2e.test_train_command import make_run, start, told_steps, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.slow]

STEPS = 60


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_run_goes_on_with_the_workers_that_are_left(tmp_path: Path, cluster: Cluster) -> None:
    doomed = cluster.add_node(num_cpus=3)
    make_run(
        tmp_path,
        trainer={"steps": STEPS},
        checkpoints={"every_steps": 4},
        validation={"every_steps": 1000},
        workers={"workers": 2, "min_workers": 1, "cpus": 2},
        ray={"address": cluster.address},
    )
    process = start(tmp_path)
    wait_for(process, lambda: list((tmp_path / "run/checkpoints").glob("step-00000008/history.json")))
    cluster.remove_node(doomed, allow_graceful=False)
    stdout, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    assert sorted(told_steps(tmp_path, json.loads(stdout))) == list(range(1, STEPS + 1))
