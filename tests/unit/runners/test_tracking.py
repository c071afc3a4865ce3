from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline.config import TrackingConfig
from pipeline.runners import tracking
from pipeline.runners.tracking import Tracker, tell_what_waits
from pipeline.runners.tracking_spool import Spool, spool_file, spool_folder
from pipeline.settings import flatten

DEAD = "http://127.0.0.1:9"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real server with a store in a folder; killed at the end, as by a power cut."""
    uri = f"http://127.0.0.1:{port}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):
                break
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def between(upstream: str, fate: Callable[[str], str]) -> Iterator[str]:
    """A proxy whose `fate` of each path is `pass`, `drop` (never arrives) or `lose` (arrives; the answer does not)."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            now = fate(self.path)
            if now != "drop":
                server = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=60)
                server.request(self.command, self.path, body, {"Content-Type": self.headers.get("Content-Type", "")})
                answer = server.getresponse()
                data = answer.read()
            self.close_connection = True
            if now == "pass":
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with mlflow_server(folder, free_port()) as uri:
        yield uri


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def settings(empty_store: Path, tmp_path: Path) -> TrackingConfig:
    """Of a store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="tests")


def spool_of(tmp_path: Path) -> Path:
    return spool_file(str(tmp_path / "out"), "recipe")


def kept(spool: Path) -> list[dict[str, Any]]:
    return [record for record, _ in Spool(spool).records()]


def history(client: MlflowClient, run_id: str | None, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(str(run_id), key)]


def runs(client: MlflowClient, experiment: str = "tests") -> list[str]:
    found = client.get_experiment_by_name(experiment)
    return [run.info.run_id for run in client.search_runs([found.experiment_id])] if found else []


def test_a_run_is_begun_continued_and_ended(tmp_path: Path, settings: TrackingConfig) -> None:
    spool = spool_of(tmp_path)
    first = Tracker(settings, spool)
    first.log_params(flatten(settings), {"recipe": "abc"})
    first.log_metrics({"faces/swapped": 3}, step=1)
    note = tmp_path / "note.txt"
    note.write_text("hello")
    first.log_artifact(note)
    first.end("KILLED")
    second = Tracker(settings, spool, first.run_id)
    second.log_params(flatten(settings), {})
    second.end("FINISHED")
    run = MlflowClient(settings.uri).get_run(str(first.run_id))
    assert second.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["experiment"] == "tests"
    assert run.data.tags["recipe"] == "abc"
    assert run.data.metrics["faces/swapped"] == 3
    assert list((tmp_path / "mlartifacts").rglob("note.txt"))
    assert not (tmp_path / "out").exists()


def test_a_dead_server_costs_a_moment_and_one_warning_never_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.perf_counter()
    tracker = Tracker(TrackingConfig(uri=DEAD), spool_of(tmp_path))
    for step in range(300):
        tracker.log_metrics({"x": 1.0}, step=step)
    assert capsys.readouterr().err.count("cannot be used") == 1
    tracker.end("FINISHED")
    assert time.perf_counter() - start < 5
    assert str(spool_of(tmp_path)) in capsys.readouterr().err
    assert tracker.run_id is None
    assert [r["what"] for r in kept(spool_of(tmp_path))] == ["begin", *["metrics"] * 300, "end"]


def test_a_server_that_never_answers_costs_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        start = time.perf_counter()
        tracker = Tracker(TrackingConfig(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), spool_of(tmp_path))
        for step in range(300):
            tracker.log_metrics({"x": 1.0}, step=step)
        tracker.end("FINISHED")
        assert time.perf_counter() - start < 10
    assert len(kept(spool_of(tmp_path))) == 302


def test_a_database_that_cannot_be_opened_costs_seconds(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    start = time.perf_counter()
    tracker = Tracker(TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), spool_of(tmp_path))
    tracker.end("FINISHED")
    assert time.perf_counter() - start < 10
    assert [r["what"] for r in kept(spool_of(tmp_path))] == ["begin", "end"]


def test_a_dead_server_is_asked_again_later_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], list[float]()

    def dead(uri: str) -> MlflowClient:
        asked.append(now[0])
        raise OSError("down")

    monkeypatch.setattr(tracking, "connect", dead)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tracker = Tracker(TrackingConfig(uri=DEAD), spool_of(tmp_path))
    for second in range(1, 1000):
        now[0] = float(second)
        tracker.log_metrics({"x": 1.0}, step=second)
    assert asked == [0, 10, 30, 70, 150, 310, 610, 910]


def test_the_next_run_tells_what_the_last_could_not(tmp_path: Path, settings: TrackingConfig) -> None:
    spool = spool_of(tmp_path)
    lasting, passing = tmp_path / "note.txt", tmp_path / "grid.png"
    lasting.write_text("hello")
    passing.write_text("picture")
    gone = tmp_path / "gone.txt"
    gone.write_text("")
    before = time.time()
    down = Tracker(TrackingConfig(uri=DEAD, experiment="tests"), spool)
    down.log_params({"a": 1}, {"recipe": "abc"})
    down.log_metrics({"x": 1.0, "bad": float("nan")}, step=1)
    down.log_history([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    down.log_artifact(lasting)
    down.log_artifact(passing, "validation", passing=True)
    down.log_artifact(gone)
    down.register("generator", "best.txt", {"steps": "2"})
    down.end("KILLED")
    after = time.time()
    passing.unlink()
    gone.unlink()
    with open(spool, "ab") as file:
        file.write(b'{"what": "metr')  # killed while it wrote

    up = Tracker(settings, spool)
    up.log_history([{"step": 2, "loss": 9.0}, {"step": 3, "loss": 0.125}])
    up.end("FINISHED")
    client = MlflowClient(settings.uri)
    assert runs(client) == [up.run_id]
    run = client.get_run(str(up.run_id))
    assert before * 1000 - 1 <= run.info.start_time <= after * 1000
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a": "1"}
    assert run.data.tags["recipe"] == "abc"
    assert history(client, up.run_id, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert all(point.timestamp <= after * 1000 for point in client.get_metric_history(str(up.run_id), "x"))
    assert list((tmp_path / "mlartifacts").rglob("note.txt"))
    assert list((tmp_path / "mlartifacts").rglob("validation/grid.png"))
    assert len(client.search_model_versions("name = 'generator'")) == 1
    assert not (tmp_path / "out" / "_simswap" / "mlflow-spool").exists()


def test_a_job_with_nothing_to_do_tells_what_waits_and_learns_its_run(tmp_path: Path, settings: TrackingConfig) -> None:
    output = str(tmp_path / "out")
    for recipe, status in (("recipe", "FINISHED"), ("another", "FAILED")):
        Tracker(TrackingConfig(uri=DEAD, experiment="tests"), spool_file(output, recipe)).end(status)
    assert tell_what_waits(TrackingConfig(uri=DEAD), output, "recipe") is None
    run_id = tell_what_waits(settings, output, "recipe")
    client = MlflowClient(settings.uri)
    assert len(runs(client)) == 2
    assert client.get_run(str(run_id)).info.status == "FINISHED"
    assert not spool_folder(output).exists()
    assert tell_what_waits(settings, output, "recipe") is None


def test_another_process_may_begin_the_run(tmp_path: Path, settings: TrackingConfig) -> None:
    driver = Tracker(TrackingConfig(uri=DEAD, experiment="tests"), spool_of(tmp_path))
    driver.log_params({"a": 1}, {})
    controller = Tracker(settings, spool_of(tmp_path), driver.run_id)
    controller.log_history([{"step": 1, "loss": 0.5}])
    driver.uri = controller.uri
    driver.end("FINISHED")
    client = MlflowClient(controller.uri)
    assert runs(client) == [driver.run_id] == [controller.run_id]
    assert client.get_run(str(driver.run_id)).info.status == "FINISHED"


def test_what_the_server_will_never_take_does_not_block_the_rest(tmp_path: Path, settings: TrackingConfig) -> None:
    tracker = Tracker(settings, spool_of(tmp_path))
    tracker.log_metrics({"no:such*name": 1.0}, step=1)
    tracker.log_metrics({"x": 1.0}, step=1)
    assert MlflowClient(tracker.uri).get_run(str(tracker.run_id)).data.metrics == {"x": 1.0}
    assert not Spool(spool_of(tmp_path))


def test_a_disk_that_is_full_as_well_does_not_stop_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file in the way")
    tracker = Tracker(TrackingConfig(uri=DEAD), spool_of(tmp_path))
    tracker.log_metrics({"x": 1.0}, step=0)
    tracker.end("FINISHED")
    assert "cannot be kept" in capsys.readouterr().err


def test_tracking_can_be_switched_off(tmp_path: Path) -> None:
    tracker = Tracker(TrackingConfig(enabled=False), spool_of(tmp_path))
    tracker.log_metrics({"x": 1.0}, step=0)
    tracker.end("FINISHED")
    assert tracker.run_id is None
    assert tell_what_waits(TrackingConfig(enabled=False), str(tmp_path / "out"), "recipe") is None
    assert not list(tmp_path.iterdir())


def test_the_spool_of_an_output_in_a_store_is_in_the_users_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert spool_folder("s3://bucket/a").parent == tmp_path / "simswap" / "mlflow-spool"
    assert spool_folder("s3://bucket/a/") == spool_folder("s3://bucket/a") != spool_folder("s3://bucket/b")


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_lost_requests_and_lost_answers_lose_and_double_nothing(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(tracking, "_FIRST_WAIT_S", 0.0)
    dice, experiment = random.Random(seed), f"lossy-{seed}"
    note = tmp_path / "note.txt"
    note.write_text("hello")
    good = threading.Event()

    def fate(path: str) -> str:
        return "pass" if good.is_set() or dice.random() < 0.8 else dice.choice(["drop", "lose"])

    with between(server, fate) as uri:
        spool = spool_of(tmp_path)
        tracker = Tracker(TrackingConfig(uri=uri, experiment=experiment), spool)
        tracker.log_params({"a": 1}, {"recipe": "abc"})
        for step in range(30):
            tracker.log_metrics({"x": step}, step=step)
            tracker.log_history([{"step": 2 * step, "loss": step}, {"step": 2 * step + 1, "loss": step + 0.5}])
            if step == 15:  # the process is killed and begun again, and comes past steps that were told
                tracker = Tracker(TrackingConfig(uri=uri, experiment=experiment), spool, tracker.run_id)
                tracker.log_history([{"step": 2 * step, "loss": -1}])
        tracker.log_artifact(note)
        tracker.register(f"generator-{seed}", "note.txt", {"steps": "29"})
        good.set()
        tracker.end("FINISHED")
    client = MlflowClient(server)
    assert runs(client, experiment) == [tracker.run_id]
    assert history(client, tracker.run_id, "x") == [(step, float(step)) for step in range(30)]
    assert history(client, tracker.run_id, "loss") == [(step, step / 2) for step in range(60)]
    assert client.get_run(str(tracker.run_id)).info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(str(tracker.run_id))] == ["note.txt"]
    assert len(client.search_model_versions(f"name = 'generator-{seed}'")) == 1
    assert not Spool(spool)


@pytest.mark.long
def test_a_server_killed_and_started_again_has_the_whole_story(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "_FIRST_WAIT_S", 0.2)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    port = free_port()
    settings = TrackingConfig(uri=f"http://127.0.0.1:{port}", experiment="tests")
    tracker = Tracker(settings, spool_of(tmp_path))  # not there yet
    slowest = 0.0

    def tell(steps: range) -> None:
        nonlocal slowest
        for step in steps:
            start = time.perf_counter()
            tracker.log_metrics({"x": step}, step=step)
            slowest = max(slowest, time.perf_counter() - start)

    tell(range(10))
    with mlflow_server(tmp_path, port):
        tracker._next_try_s = 0.0
        tell(range(10, 20))
        assert tracker.run_id is not None
    tell(range(20, 30))
    assert slowest < 10
    with mlflow_server(tmp_path, port) as uri:
        tracker.end("FINISHED")
        client = MlflowClient(uri)
        assert runs(client) == [tracker.run_id]
        assert history(client, tracker.run_id, "x") == [(step, float(step)) for step in range(30)]
        assert client.get_run(str(tracker.run_id)).info.status == "FINISHED"
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in said] == ["warning", "mlflow", "warning", "mlflow"]
