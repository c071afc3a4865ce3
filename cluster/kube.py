"""Jobs on Kubernetes: each a RayJob of KubeRay, by kubectl. A RayJob's name is the lock that keeps a job single."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cluster.kubectl import kubectl
from cluster.manifests import JOB_LABEL, Tree
from cluster.pod_log import PodLog
from pipeline.errors import ConfigError, FatalError
from pipeline.runners.following import Attempt
from pipeline.runners.progress import say

POLL_S = 5.0
"""Between two questions how a job stands."""

_KIND = "rayjobs.v1.ray.io"
_ATTEMPT = "simswap/attempt"
_ENDED = {"Complete", "Failed", "ValidationFailed"}
_ENDINGS = ("SUCCEEDED", "FAILED", "STOPPED")
_TRIES = 5
_GONE_S = 300.0
_EXIT_CODE = re.compile(r"exit code (\d+)")


class KubeJobs:
    """The jobs of a namespace that `simswap submit --kube` made.

    Args:
        namespace: where they are; kubectl's current context says in which cluster.
    """

    def __init__(self, namespace: str) -> None:
        self.address = f"kubernetes:{namespace}"
        self.words = f" --kube {namespace}"
        self._namespace = namespace

    def attempts(self, id_: str | None = None) -> list[Attempt]:
        """The last attempt at one job, or at each of them, the oldest first: earlier ones are gone."""
        selector = f"{JOB_LABEL}={id_}" if id_ else JOB_LABEL
        text, _ = self._kubectl("get", _KIND, "--selector", selector, "--output", "json")
        return sorted((_attempt(tree) for tree in json.loads(text)["items"]), key=lambda attempt: attempt.started)

    def latest(self, id_: str) -> Attempt:
        """The last attempt at a job.

        Raises:
            ConfigError: there is no such job.
        """
        found = self.attempts(id_)
        if not found:
            known = ", ".join(attempt.id for attempt in self.attempts()[-10:])
            raise ConfigError(f"job {id_}", f"{self.address} knows no such job", f"Known: {known or 'none'}")
        return found[-1]

    def submit(self, submission: Mapping[str, Any], id_: str) -> tuple[Attempt, bool]:
        """Start a job, unless it is at work: of two that try at once the API server takes one.

        A job that has ended is removed, waited for until the pods of its cluster are gone, and made again.

        Args:
            submission: `shared`, objects to bring up to date before, and `rayjob`.
            id_: the job's name.

        Returns:
            The attempt, and whether it is a new one.

        Raises:
            ConfigError: there is a RayJob of this name that is not ours.
            FatalError: kubectl fails, or the last attempt does not go.
        """
        there, number, applied = self._find(id_), 1, False
        until = time.monotonic() + _GONE_S
        while True:
            if there is not None:
                last = _attempt(there)
                if last.at_work:
                    return last, False
                number = last.attempt + 1
                self._remove(last, until)
            if not applied:
                self._apply(submission["shared"])
                applied = True
            made = self._create(submission["rayjob"], number)
            if made is not None:
                return _attempt(made), True
            there = self._find(id_)

    def follow(self, attempt: Attempt, tell: Callable[[str], None]) -> Attempt:
        """Pass on what an attempt prints until it has ended; it prints nothing before its cluster is there.

        Args:
            attempt: to follow.
            tell: takes each piece of the log, once.

        Raises:
            FatalError: the API server has gone.
        """
        tries, said = 0, ""
        with PodLog(self._namespace, attempt.id, tell) as log:
            while True:
                try:
                    tree = self._find(attempt.id)
                    now = _gone(attempt) if tree is None or _uid(tree) != attempt.submission_id else _attempt(tree)
                    if not now.at_work:
                        log.finish()
                        return now
                    status = (tree or {}).get("status", {})
                    # a job that has ended is told: a further pod of its submitter would tell all of it once more
                    if not (log.begun and status.get("jobStatus") in _ENDINGS):
                        log.open()
                    tries, stands = 0, str(status.get("jobDeploymentStatus") or "new")
                    if not log.begun and stands != said:
                        said = stands
                        message = f"{attempt.id}: {stands.lower()}, no log yet; nodes that have to come take minutes"
                        say("waiting", id=attempt.id, stands=stands, message=message)
                except ConfigError:
                    raise
                except FatalError:
                    tries += 1
                    if tries == _TRIES:
                        raise
                log.pass_on(POLL_S * 2**tries)

    def stop(self, attempt: Attempt, longest_s: float) -> Attempt:
        """Remove an attempt, and wait until its pods are gone, or for so many seconds.

        KubeRay asks the job to stop; its pods have the seconds of grace that the manifests give them.
        """
        self._delete(attempt)
        until = time.monotonic() + longest_s
        while (tree := self._find(attempt.id)) and _uid(tree) == attempt.submission_id and time.monotonic() < until:
            time.sleep(min(POLL_S, 1.0))
        return _gone(attempt)

    def _find(self, id_: str) -> Tree | None:
        text, missing = self._kubectl("get", _KIND, id_, "--output", "json", allowed=["NotFound"])
        if missing:
            return None
        tree: Tree = json.loads(text)
        if tree["metadata"].get("labels", {}).get(JOB_LABEL) != id_:
            problem = f"{self.address} has a RayJob of this name that simswap submit did not make"
            raise ConfigError(f"job {id_}", problem, "Give another --id")
        return tree

    def _apply(self, objects: Sequence[Tree]) -> None:
        """Bring objects up to date; once more where somebody else made one of them at the same moment."""
        given = "\n---\n".join(json.dumps(tree) for tree in objects)
        for _ in range(1, _TRIES):
            if not self._kubectl("apply", "--filename", "-", given=given, allowed=["AlreadyExists"])[1]:
                return
        self._kubectl("apply", "--filename", "-", given=given)

    def _create(self, rayjob: Tree, number: int) -> Tree | None:
        """Make a RayJob; None where somebody else was faster."""
        notes = {**rayjob["metadata"].get("annotations", {}), _ATTEMPT: str(number)}
        tree = {**rayjob, "metadata": {**rayjob["metadata"], "annotations": notes}}
        words = ("create", "--filename", "-", "--output", "json")
        text, taken = self._kubectl(*words, given=json.dumps(tree), allowed=["AlreadyExists"])
        return None if taken else json.loads(text)

    def _remove(self, attempt: Attempt, until: float) -> None:
        message = f"{attempt.id}: its attempt {attempt.attempt} is over; waiting until its cluster is gone"
        say("waiting", id=attempt.id, message=message)
        self._delete(attempt)
        while (tree := self._find(attempt.id)) and _uid(tree) == attempt.submission_id:
            if time.monotonic() > until:
                problem = f"what is left of its attempt {attempt.attempt} has not gone in {_GONE_S:g} s"
                mend = f"kubectl -n {self._namespace} get pods --selector ray.io/originated-from-cr-name={attempt.id}"
                raise FatalError(f"job {attempt.id}", problem, f"Look at {mend}")
            time.sleep(min(POLL_S, 1.0))

    def _delete(self, attempt: Attempt) -> None:
        """Delete this very RayJob, not one that somebody made under its name since, after all that belongs to it."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": attempt.submission_id},
            "propagationPolicy": "Foreground",
        }
        place = f"/apis/ray.io/v1/namespaces/{self._namespace}/rayjobs/{attempt.id}"
        words = ("delete", "--raw", place, "--filename", "-")
        self._kubectl(*words, given=json.dumps(options), allowed=["NotFound", "Conflict"])

    def _kubectl(self, *words: str, given: str = "", allowed: Sequence[str] = ()) -> tuple[str, str]:
        return kubectl(*words, "--namespace", self._namespace, given=given, allowed=allowed)


def _attempt(tree: Tree) -> Attempt:
    """A RayJob as an attempt; one that is being deleted is over."""
    metadata, status = tree["metadata"], tree.get("status", {})
    stands = "PENDING"
    if "deletionTimestamp" in metadata:
        stands = "STOPPED"
    elif status.get("jobDeploymentStatus") in _ENDED:
        told = status.get("jobStatus")
        stands = told if told in _ENDINGS and status["jobDeploymentStatus"] == "Complete" else "FAILED"
    elif status.get("jobStatus") == "RUNNING":
        stands = "RUNNING"
    message = status.get("message") or status.get("reason") or ""
    said = _EXIT_CODE.search(message) if stands == "FAILED" else None
    return Attempt(
        metadata["name"],
        int(metadata.get("annotations", {}).get(_ATTEMPT, 1)),
        _uid(tree),
        stands,
        message,
        0 if stands == "SUCCEEDED" else (int(said[1]) or None) if said else None,
        _seconds(status.get("startTime") or metadata.get("creationTimestamp")),
        _seconds(status.get("endTime")),
    )


def _gone(attempt: Attempt) -> Attempt:
    """What is known of an attempt whose RayJob was deleted."""
    message = "it was stopped: its RayJob is deleted"
    return Attempt(
        attempt.id, attempt.attempt, attempt.submission_id, "STOPPED", message, None, attempt.started, time.time()
    )


def _uid(tree: Tree) -> str:
    return str(tree["metadata"]["uid"])


def _seconds(moment: str | None) -> float:
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0
