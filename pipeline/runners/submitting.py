"""Submit a job to a cluster and follow it; what is asked of jobs that are there."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import Section, SubmitConfig
from pipeline.errors import RefusedError
from pipeline.redaction import has_password
from pipeline.runners.progress import Progress, say, warn
from pipeline.runners.ray_jobs import Attempt, RayJobs, is_loopback, is_open, job_server

Ask = Callable[[str], str]

_PLANS = {
    "prepare": ("preparation_plan", "plan_preparation", "describe_preparation"),
    "train": ("training_plan", "plan_training", "describe_training"),
    "swap": ("planning", "plan_job", "describe_plan"),
}
"""Of each command the module that plans it, and its functions; only that one is loaded: each takes seconds."""

_STOP_S = 150.0
_UNITS = {"items_per_s": "img", "steps_per_s": "step"}


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
        left_out = {"event", "command", "done", "total", *_UNITS}
        self._bar.reach(int(facts["done"]), {k: v for k, v in facts.items() if k not in left_out})


def connect(address: str | None, token: str | None, *, allow_open: bool) -> RayJobs:
    """The jobs of a cluster that it is safe to talk to.

    Raises:
        RefusedError: anybody may run code there; or it does not take the token.
        FatalError: no answer.
    """
    server = job_server(address)
    if not is_loopback(server):
        if is_open(server) and not allow_open:
            problem = "the cluster takes jobs from anybody: it asks for no token"
            mend = "Start it with RAY_AUTH_MODE=token, or say --allow-open where nobody else can reach it"
            raise RefusedError(server, problem, mend)
        if server.startswith("http://") and token:
            warn(f"{server}: the token travels unencrypted; a tunnel (ray dashboard, kubectl port-forward) hides it")
    return RayJobs(server, token)


def checked(command: str, settings: Section, *, here: bool) -> tuple[Section, dict[str, Any]]:
    """Settings as they hold wherever the job runs, and its plan; `here` False looks at neither inputs nor models.

    Raises:
        FatalError: whatever the plan finds.
    """
    module, plan, describe = _PLANS[command]
    plans = importlib.import_module(f"pipeline.runners.{module}")
    absolute = plans.with_absolute_paths(settings)
    uri: str | None = absolute.tracking.address()
    if has_password(str(uri)):
        warn("MLFLOW_TRACKING_URI holds a password and does not go along: the cluster has to have its own")
        uri = None
    tracking = absolute.tracking.model_copy(update={"uri": uri})
    absolute = absolute.model_copy(update={"tracking": tracking})
    return absolute, getattr(plans, describe)(getattr(plans, plan)(absolute)) if here else {}


def warn_of_paths(paths: Mapping[str, str]) -> None:
    """Say which settings are paths: they have to be the same on every node of the cluster."""
    if paths:
        named = ", ".join(f"{name}={path}" for name, path in paths.items())
        warn(f"paths, which every node of the cluster has to see: {named}. Addresses (s3://…) need nothing shared")


def submit(jobs: RayJobs, job: Mapping[str, Any], given: SubmitConfig, name: str, ask: Ask | None) -> dict[str, Any]:
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


def follow(jobs: RayJobs, attempt: Attempt, ask: Ask | None) -> dict[str, Any]:
    """Follow an attempt; Ctrl-C leaves it at work, unless a person wants it stopped."""
    log = JobLog()
    while True:
        try:
            ended = jobs.follow(attempt, log)
            break
        except KeyboardInterrupt:
            if ask is None or not ask("Stop the job (s), or leave it at work (Enter)? ").lower().startswith("s"):
                mend = f"simswap jobs logs {attempt.id} follows it, simswap jobs stop {attempt.id} ends it"
                say("detached", id=attempt.id, message=f"{attempt.id} goes on; {mend}")
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


def _object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def look_after(jobs: RayJobs, action: str, name: str, dry_run: bool) -> dict[str, Any]:
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
