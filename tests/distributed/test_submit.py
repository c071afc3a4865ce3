"""Jobs submitted to a cluster of several nodes with a token, from other processes, while it loses one of them."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.synthetic.people import Appearance
from tests.factories import encode_png, portrait
from tests.nodes import Nodes, nodes
from tests.processes import named
from tests.unit.runners.test_tracking import free_port

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
SECRET = "canary-" + secrets.token_hex(16)


@dataclass
class Cluster:
    """A cluster, and commands that are given to it from a laptop that has nothing but its token."""

    nodes: Nodes
    root: Path
    token: Path

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        flags = ["--address", self.nodes.dashboard]
        flags += ["--python", sys.executable] if words[0] == "submit" else []
        environment = {
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "MLFLOW_TRACKING_PASSWORD": SECRET,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *words, *flags],
            cwd=self.root,
            env=os.environ | environment | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str, **variables: str) -> tuple[int, dict[str, Any], str]:
        process = self.start(*words, **variables)
        stdout, stderr = process.communicate(timeout=600)
        assert stdout.count("\n") == 1, stdout + stderr
        return process.returncode, json.loads(stdout), stderr


class Metrics:
    """Looks every two seconds at what Prometheus would read; a driver's are there as long as it runs.

    Attributes:
        seen: names of all metrics that were there.
    """

    def __init__(self, cluster: Nodes) -> None:
        self.seen: set[str] = set()
        self._addresses, self._over = cluster.metrics, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._over.wait(2.0):
            for address in self._addresses:
                with suppress(OSError):  # of the node that is lost
                    text = urllib.request.urlopen(address, timeout=5).read().decode()
                    self.seen |= set(re.findall(r"^(ray_\w+)", text, re.MULTILINE))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head, a worker with a (pretended) GPU, and two small workers to lose."""
    root = tmp_path_factory.mktemp("cluster")
    token = root / "token"
    token.write_text(secrets.token_hex(24))
    token.chmod(0o600)
    some = [
        {"num_cpus": 2, "object_store_memory": 200_000_000, "dashboard_agent_listen_port": free_port()},
        {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 200_000_000},
        {"num_cpus": 1, "object_store_memory": 100_000_000},
        {"num_cpus": 1, "object_store_memory": 100_000_000},
    ]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "CUDA_VISIBLE_DEVICES": "0"}
    with nodes(some, root, free_port(), variables) as running:
        yield Cluster(running, root, token)


def photographs(folder: Path, people: int, each: int) -> None:
    random = np.random.default_rng(3)
    for person in range(people):
        (folder / f"person_{person}").mkdir(parents=True)
        who = Appearance.sample(random)
        for number in range(each):
            (folder / f"person_{person}" / f"{number}.png").write_bytes(
                encode_png(portrait(who, random, side=160).frame)
            )


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)


def test_by_one_command_each_all_jobs_end_right_though_a_controller_and_a_node_are_lost(
    cluster: Cluster,
) -> None:
    root, pack = cluster.root, pack_folder("portraits")
    photographs(root / "photos", 8, 3)
    story = {"uri": f"sqlite:///{root / 'mlflow.db'}"}
    prepare = {
        "inputs": "photos",
        "output": "set",
        "models": pack,
        "crop_size": 32,
        "photos_per_shard": 6,
        "filters": {"min_sharpness": 0.0, "outlier_cosine": -1.0},
        "pool": {"workers": 2, "cpus": 0.5},
        "tracking": story,
    }
    (root / "prepare.yaml").write_text(yaml.safe_dump(prepare))
    code, prepared, stderr = cluster.run("submit", "prepare", "prepare.yaml")
    assert code == 0, stderr
    assert (prepared["command"], prepared["status"], prepared["identities"]) == ("submit", "done", 8)

    train = {
        "data": "set",
        "output": "run",
        "models": pack,
        "model": {"crop_size": 32, "widths": [8, 16], "blocks": 1, "embedding_size": 256},
        "discriminator": {"widths": [8, 16]},
        "losses": {"first_layer": 1},
        "trainer": {"global_batch_size": 4, "steps": 12},
        "checkpoints": {"every_steps": 6, "keep": 2},
        "validation": {"every_steps": 12, "identities": 2, "pairs": 4, "grid": [2, 2]},
        "workers": {"workers": 2, "cpus": 0.5},
        "tracking": story,
    }
    (root / "train.yaml").write_text(yaml.safe_dump(train))
    process = cluster.start("submit", "train", "train.yaml", "--id", "small-train")
    wait_for(lambda: named(cluster.nodes.process.pid, "ray::TrainController"), process)
    os.kill(named(cluster.nodes.process.pid, "ray::TrainController")[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=600)
    assert (process.returncode, "another goes on" in stderr) == (0, True), stderr
    trained = json.loads(stdout)
    assert (trained["id"], trained["status"], trained["steps"]) == ("small-train", "done", 12)

    evaluate = {
        "data": "set",
        "checkpoint": trained["checkpoint"],
        "models": pack,
        "judge": pack_folder("judge"),
        "output": "figures",
        "held_out": 2,
        "pairs": 8,
        "grid": [2, 2],
        "worker": {"cpus": 0.2, "gpus": 1, "device": "cpu"},
        "tracking": story,
    }
    (root / "evaluate.yaml").write_text(yaml.safe_dump(evaluate))
    code, measured, stderr = cluster.run("submit", "evaluate", "evaluate.yaml")
    assert code == 0, stderr
    assert (measured["command"], measured["status"], measured["people"]) == ("submit", "done", 2)
    assert json.loads((root / "figures" / "evaluation.json").read_text())["figures"] == measured["figures"]

    photographs(root / "in", 12, 5)
    swap = {
        "inputs": "in",
        "output": "out",
        "source": "photos/person_0",
        "checkpoint": trained["checkpoint"],
        "models": pack,
        "policy": {"no_face": "copy"},
        "pools": {
            "analyse": {"workers": 2, "cpus": 0.5, "items": 2},
            "swap": {"workers": 1, "cpus": 0.2, "gpus": 1, "items": 2},
            "finish": {"workers": 2, "cpus": 0.5, "items": 2},
        },
        "tracking": story,
    }
    (root / "swap.yaml").write_text(yaml.safe_dump(swap))
    process = cluster.start("submit", "swap", "swap.yaml", "--id", "small-swap")
    metrics = Metrics(cluster.nodes)
    results = root / "out"
    wait_for(lambda: len(list(results.rglob("*/*.png"))) >= 4, process)
    again = cluster.start("submit", "swap", "swap.yaml", "--id", "small-swap")
    cluster.nodes.lose_one()
    stdout, stderr = process.communicate(timeout=600)
    metrics.stop()
    assert process.returncode == 0, stderr
    result = json.loads(stdout)
    assert result["items"] == {"total": 60, "done": 60, "skipped": 0, "failed": 0}
    rows = pq.read_table(result["receipts"]).to_pylist()
    assert sorted(row["item"] for row in rows) == sorted(
        p.relative_to(root / "in").as_posix() for p in (root / "in").rglob("*.png")
    )
    assert all((results / row["output"]).is_file() for row in rows)

    stdout, stderr = again.communicate(timeout=600)
    assert json.loads(stdout)["submission_id"] == result["submission_id"], "never a second copy"
    assert again.returncode == 0
    code, listed, _ = cluster.run("jobs", "list")
    assert code == 0
    assert [(job["id"], job["attempt"], job["status"]) for job in listed["jobs"]] == [
        (prepared["id"], 1, "succeeded"), ("small-train", 1, "succeeded"), (measured["id"], 1, "succeeded"),
        ("small-swap", 1, "succeeded"),
    ]  # fmt: skip
    shown = set(re.findall(r"\bray_\w+", (ROOT / "cluster" / "grafana" / "simswap.json").read_text()))
    assert len(shown) > 12
    missing = shown - metrics.seen
    assert not missing - {"ray_node_gpus_utilization"}, (
        "of the dashboard's metrics only those of GPUs may be missing here"
    )


def test_a_job_is_stopped_followed_and_gone_on_with(cluster: Cluster) -> None:
    root = cluster.root
    photographs(root / "many", 20, 10)
    copies = root / "many" / "z"  # comes last, and keeps it at work until it is stopped
    copies.mkdir()
    for number in range(3000):
        shutil.copy(root / "many" / f"person_{number % 20}" / "1.png", copies / f"{number}.png")
    settings = {
        "inputs": "many",
        "output": "stopped",
        "source": "many/person_0/0.png",
        "checkpoint": shipped_generator(),
        "models": pack_folder("portraits"),
        "pools": {"swap": {"workers": 1, "cpus": 0.3}, "analyse": {"cpus": 0.3}, "finish": {"cpus": 0.3}},
        "tracking": {"enabled": False, "contact_sheet": 0},
    }
    (root / "stop.yaml").write_text(yaml.safe_dump(settings))
    process = cluster.start("submit", "swap", "stop.yaml", "--id", "stopped")
    wait_for(lambda: len(list((root / "stopped").rglob("*/*.png"))) >= 8, process)
    process.send_signal(signal.SIGINT)  # nobody to ask: it goes on without us
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, json.loads(stdout)["status"]) == (130, "detached"), stderr
    code, status, _ = cluster.run("jobs", "status", "stopped")
    assert (code, status["status"], status["job_exit_code"]) == (0, "running", None)
    code, stopped, stderr = cluster.run("jobs", "stop", "stopped")
    assert (code, stopped["status"]) == (0, "stopped"), stderr
    done = len(list((root / "stopped").rglob("*/*.png")))
    assert 8 <= done < 3200

    shutil.rmtree(copies)
    code, result, stderr = cluster.run("submit", "swap", "stop.yaml", "--id", "stopped")
    assert (code, result["attempt"], result["items"]["done"]) == (0, 2, 200), stderr
    assert result["done_now"] < 200
    code, logs, stderr = cluster.run("jobs", "logs", "stopped")
    assert (code, logs["items"]["done"]) == (0, 200)
    assert '"event": "progress"' in stderr


def test_failures_and_wrong_uses_come_out_as_they_are(cluster: Cluster) -> None:
    root = cluster.root
    (root / "empty.yaml").write_text(
        yaml.safe_dump({"inputs": "nothing", "output": "nowhere", "source": "x", "models": "x"})
    )
    code, result, stderr = cluster.run("submit", "swap", "empty.yaml", "swapper.passthrough=true")
    assert code == 1  # the pack is looked for here, before anything is submitted
    assert "no such" in result["error"] or "could not download" in result["error"]
    words = ["inputs=photos", "output=nowhere", f"models={pack_folder('portraits')}", "source=none.png"]
    (root / "later.yaml").write_text("{}")
    late = ["submit", "swap", "later.yaml", *words, "swapper.passthrough=true", "--skip-plan", "--id", "late"]
    code, result, stderr = cluster.run(*late)
    assert code == 2, stderr  # the command's own exit code, from the cluster
    assert "no such photograph" in result["error"]
    code, result, _ = cluster.run("jobs", "status", "unknown")
    assert (code, "knows no such job" in result["error"]) == (2, True)
    code, result, _ = cluster.run("jobs", "list", RAY_AUTH_TOKEN_PATH="", RAY_AUTH_TOKEN="wrong")
    assert (code, "does not take this token" in result["error"]) == (3, True)


def test_no_secret_of_this_machine_is_on_the_cluster(cluster: Cluster) -> None:
    """After the tests above: neither in logs nor in what was packaged."""
    searched = 0
    for folder in (cluster.root, Path(cluster.nodes.session)):
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size < 50_000_000:
                searched += 1
                assert SECRET.encode() not in path.read_bytes(), path
    assert searched > 50
