"""Whom a job is given to, and what is made of what it prints."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import ray

from pipeline.errors import ConfigError, RefusedError
from pipeline.runners.following import Attempt, JobLog, follow
from pipeline.runners.ray_jobs import DEFAULT_ADDRESS, is_loopback, job_server
from pipeline.runners.submitting import connect


class Open(http.server.BaseHTTPRequestHandler):
    """What a job server says that asks nobody for a token."""

    def do_GET(self) -> None:
        body = b"[]" if self.path == "/api/jobs/" else json.dumps({"ray_version": ray.__version__}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def open_job_server() -> Iterator[str]:
    """Its address, which is not this machine's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address of ours would
        host = probe.getsockname()[0]
    server = http.server.ThreadingHTTPServer((host, 0), Open)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_cluster_that_anybody_may_use_gets_no_job_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        made = open_job_server()
        address = made.__enter__()
    except OSError:
        pytest.skip("this machine has no address but its own")
    try:
        with pytest.raises(RefusedError, match="takes jobs from anybody") as caught:
            connect(address, "token", allow_open=False)
        assert caught.value.exit_code == 3
        assert connect(address, "token", allow_open=True).address == address
        assert "unencrypted" in capsys.readouterr().err
    finally:
        made.__exit__(None, None, None)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert job_server(None) == DEFAULT_ADDRESS
    assert job_server("https://head:8265/") == "https://head:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert job_server(None) == DEFAULT_ADDRESS, "that of a GCS is none of a job server"
    monkeypatch.setenv("RAY_ADDRESS", "http://near:8265")
    assert job_server(None) == "http://near:8265"
    for wrong in ("head:8265", "ray://head:10001", "http://"):
        with pytest.raises(ConfigError, match="is no job server"):
            job_server(wrong)
    near = ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1")
    assert all(is_loopback(address) for address in near)
    assert not is_loopback("http://10.0.0.1:1")


def test_on_a_terminal_progress_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = JobLog()
    facts = {"event": "progress", "job": "mine", "command": "swap", "total": 3, "items_per_s": 0.5, "faces": 2}
    for done in (1, 3):
        log(json.dumps({**facts, "done": done}) + "\n")
    log.close()
    err = capsys.readouterr().err
    assert "3/3" in err
    assert "faces=2" in err


def test_a_log_in_pieces_gives_events_lines_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"command": "swap", "status": "done", "items": {"done": 3}}
    text = "starting\n" + json.dumps({"event": "progress", "done": 1, "total": 3}) + "\n{no json\n" + json.dumps(result)
    log = JobLog()
    for n in range(0, len(text), 7):
        log(text[n : n + 7])
    assert log.result is None, "its line has not ended"
    log.close()
    assert log.result == result
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "starting"
    assert json.loads(err[1]) == {"event": "progress", "done": 1, "total": 3}
    assert err[2] == "{no json"
    assert len(err) == 3


class Interrupted:
    """A cluster whose job is followed until somebody presses Ctrl-C."""

    address, words = "http://127.0.0.1:8265", ""

    def __init__(self) -> None:
        self.attempt = Attempt("mine", 1, "mine-1", "RUNNING", "", None, 1.0, 0.0)
        self.stopped = False

    def attempts(self, id_: str | None = None) -> list[Attempt]:
        return [self.attempt]

    def latest(self, id_: str) -> Attempt:
        return self.attempt

    def submit(self, submission: Mapping[str, Any], id_: str) -> tuple[Attempt, bool]:
        return self.attempt, True

    def follow(self, attempt: Attempt, tell: Callable[[str], None]) -> Attempt:
        tell("working\n")
        raise KeyboardInterrupt

    def stop(self, attempt: Attempt, longest_s: float) -> Attempt:
        self.stopped = True
        return replace(attempt, status="STOPPED", ended=2.0)


@pytest.mark.parametrize(
    ("answer", "stopped", "status"),
    [("s", True, "interrupted"), ("stop", True, "interrupted"), ("", False, "detached"), (None, False, "detached")],
)
def test_ctrl_c_asks_whether_to_stop_and_without_anybody_to_ask_it_goes_on(
    answer: str | None, stopped: bool, status: str
) -> None:
    cluster, asked = Interrupted(), list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return str(answer)

    result = follow(cluster, cluster.attempt, None if answer is None else ask)
    assert (cluster.stopped, result["status"], result["exit_code"]) == (stopped, status, 130)
    assert len(asked) == (answer is not None)
