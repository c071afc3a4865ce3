"""A job on a cluster, started once and followed to its end, whatever runs it: Ray's job server or Kubernetes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config import SubmitConfig
from pipeline.runners.progress import Progress, say

Ask = Callable[[str], str]

_STOP_S = 150.0
_AT_WORK = ("PENDING", "RUNNING")
_UNITS = {"items_per_s": "img", "steps_per_s": "step"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job on a cluster.

    Attributes:
        id: the job's name.
        attempt: counted from 1.
        submission_id: what Ray calls it; of Kubernetes the uid of its RayJob.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: what Ray says of it.
        exit_code: of the command; None while it runs, and where it never ran.
        started: seconds since 1970; 0 before.
        ended: the same; 0 before.
    """

    id: str
    attempt: int
    submission_id: str
    status: str
    message: str
    exit_code: int | None
    started: float
    ended: float

    @property
    def at_work(self) -> bool:
        """Whether it has not ended."""
        return self.status in _AT_WORK


class Jobs(Protocol):
    """Where jobs run: `pipeline.runners.ray_jobs.RayJobs` or `cluster.kube.KubeJobs`."""

    address: str
    """Of the cluster, for people."""
    words: str
    """What `simswap jobs` needs besides, to find them: for example ` --kube NAMESPACE`."""

    def attempts(self, id_: str | None = None) -> list[Attempt]:
        """All attempts that are known, at one job or at all, the oldest first."""

    def latest(self, id_: str) -> Attempt:
        """The last attempt at a job; ConfigError where there is no such job."""

    def submit(self, submission: Mapping[str, Any], id_: str) -> tuple[Attempt, bool]:
        """Start a job, unless it is at work; the attempt, and whether it is a new one."""

    def follow(self, attempt: Attempt, tell: Callable[[str], None]) -> Attempt:
        """Pass on what an attempt prints until it has ended."""

    def stop(self, attempt: Attempt, longest_s: float) -> Attempt:
        """Ask an attempt to stop, and wait until it has, or for so many seconds."""


class JobLog:
    """What a job prints, line by line as it comes: its events told here, the rest passed on, its result kept.

    Attributes:
        result: the one JSON object that the command writes to stdout; None before.
    """

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None
        self._rest = ""
        self._bar: Progress | None = None

    def __call__(self, text: str) -> None:
        """Take a piece of the log; it need not end with a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def close(self) -> None:
        """The log has ended."""
        if self._rest:
            self._line(self._rest)
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _line(self, line: str) -> None:
        facts = _object(line)
        if facts is None:
            print(line, file=sys.stderr, flush=True)
        elif "event" not in facts:
            if {"command", "status"} <= facts.keys():
                self.result = facts
        elif facts["event"] == "progress" and sys.stderr.isatty():
            self._progress(facts)
        else:
            say(str(facts.pop("event")), **facts)

    def _progress(self, facts: dict[str, Any]) -> None:
        unit = next((unit for name, unit in _UNITS.items() if name in facts), "img")
        if self._bar is None:
            self._bar = Progress(str(facts.get("command")), facts.get("total"), unit)
            self._bar.__enter__()
        numbers = {k: v for k, v in facts.items() if isinstance(v, int | float) and k not in ("done", "total", *_UNITS)}
        self._bar.reach(int(facts["done"]), numbers)


def submit(jobs: Jobs, job: Mapping[str, Any], given: SubmitConfig, name: str, ask: Ask | None) -> dict[str, Any]:
    """Start a job, or find it at work, and follow it to its end.

    Args:
        jobs: of the cluster.
        job: what Ray's client takes.
        given: how.
        name: of the job.
        ask: a person to ask on Ctrl-C, by a question; None without anybody.

    Returns:
        The job's own result with the job's name; `exit_code` is the command's.
    """
    attempt, new = jobs.submit(job, name)
    said = "submitted" if new else "is at work already, nothing new was started"
    say("job", id=name, attempt=attempt.attempt, message=f"{name}: {said}")
    where = {"id": name, "attempt": attempt.attempt, "submission_id": attempt.submission_id, "address": jobs.address}
    if given.detach:
        return {"status": "submitted" if new else "at_work", **where, "exit_code": 0}
    return {**follow(jobs, attempt, ask), **where}


def follow(jobs: Jobs, attempt: Attempt, ask: Ask | None) -> dict[str, Any]:
    """Follow an attempt; Ctrl-C leaves it at work, unless a person wants it stopped."""
    log = JobLog()
    while True:
        try:
            ended = jobs.follow(attempt, log)
            break
        except KeyboardInterrupt:
            if ask is None or not ask("Stop the job (s), or leave it at work (Enter)? ").lower().startswith("s"):
                logs, stop = (f"simswap jobs {action} {attempt.id}{jobs.words}" for action in ("logs", "stop"))
                say("detached", id=attempt.id, message=f"{attempt.id} goes on; {logs} follows it, {stop} ends it")
                return {"status": "detached", "exit_code": 130}
            say("stopping", id=attempt.id, message=f"stopping {attempt.id}: it saves what it has to")
            ended = jobs.stop(attempt, _STOP_S)
            break
    log.close()
    if log.result is None:
        return ending(ended)
    return {**log.result, "exit_code": code_of(ended)}


def code_of(attempt: Attempt) -> int:
    """The exit code of the command; of one that was stopped, or never began, what stands for it."""
    if attempt.exit_code is not None:
        return attempt.exit_code
    return {"SUCCEEDED": 0, "STOPPED": 130}.get(attempt.status, 1)


def ending(attempt: Attempt) -> dict[str, Any]:
    """What became of an attempt that left no result."""
    said = (attempt.message.strip().splitlines() or [attempt.status])[0][:500]
    status = "interrupted" if attempt.status == "STOPPED" else "failed"
    return {"status": status, "error": said, "exit_code": code_of(attempt) or 1}


def described(attempt: Attempt) -> dict[str, Any]:
    """An attempt for people and machines."""
    seconds = (attempt.ended or time.time()) - attempt.started if attempt.started else 0.0
    return {
        "id": attempt.id,
        "attempt": attempt.attempt,
        "submission_id": attempt.submission_id,
        "status": attempt.status.lower(),
        "seconds": round(seconds, 1),
        "job_exit_code": attempt.exit_code,
    }


def look_after(jobs: Jobs, action: str, name: str, dry_run: bool) -> dict[str, Any]:
    """What `simswap jobs` answers.

    Args:
        jobs: of the cluster.
        action: list, status, logs or stop.
        name: of the job; nothing for list.
        dry_run: stop nothing.

    Raises:
        ConfigError: no such job.
    """
    if action == "list":
        return {"status": "done", "jobs": [described(attempt) for attempt in jobs.attempts()]}
    attempt = jobs.latest(name)
    if action == "stop" and attempt.at_work and not dry_run:
        attempt = jobs.stop(attempt, _STOP_S)
    if action == "logs":
        return {**described(attempt), **follow(jobs, attempt, ask())}
    return described(attempt)


def ask() -> Ask | None:
    """Somebody at a terminal, or nobody."""
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(question: str) -> str:
    print(f"\n{question}", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
