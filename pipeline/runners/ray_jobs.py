"""Ray's job server: which jobs there are, and one more, followed to its end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.errors import ConfigError, FatalError, RefusedError
from pipeline.runners.following import Attempt

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

_VARIABLE = "RAY_API_SERVER_ADDRESS"
_TIMEOUT_S = 20.0
_ATTEMPTS = 5
_NOT_READY = "try again later"
"""What the job server of a cluster says that has only just started."""

_NAME, _ATTEMPT = "simswap_id", "simswap_attempt"


def job_server(address: str | None) -> str:
    """The address of a job server: the one given, else the environment's, else this machine's.

    Raises:
        ConfigError: not an http address.
    """
    near = os.environ.get("RAY_ADDRESS", "")
    found = address or os.environ.get(_VARIABLE) or (near if near.startswith("http") else "") or DEFAULT_ADDRESS
    if urlsplit(found).scheme not in ("http", "https") or not urlsplit(found).hostname:
        raise ConfigError(f"address: {found}", "is no job server", f"Give one as {DEFAULT_ADDRESS}")
    return found.rstrip("/")


def has_address(address: str | None) -> bool:
    """Whether a job server is named, here or in the environment."""
    return bool(address or os.environ.get(_VARIABLE) or os.environ.get("RAY_ADDRESS", "").startswith("http"))


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, or the end of a tunnel on it."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_open(address: str) -> bool:
    """Whether a job server answers who shows no token: then it runs anybody's code.

    Raises:
        FatalError: it does not answer.
    """
    try:
        return requests.get(f"{address}/api/jobs/", timeout=_TIMEOUT_S).status_code == 200
    except requests.RequestException as error:
        raise _no_answer(address, error) from error


for _name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
    logging.getLogger(f"ray.{_name}").setLevel(logging.WARNING)  # what is said to people, we say


class RayJobs:
    """The jobs of a cluster.

    Args:
        address: of its job server.
        token: that it asks for; None without any.

    Raises:
        FatalError: no answer, or another Ray than ours.
        RefusedError: no token, or a wrong one.
    """

    words = ""

    def __init__(self, address: str, token: str | None) -> None:
        os.environ[_VARIABLE] = self.address = address  # the client takes the environment's over what it is given
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        theirs = _ray_version(address, headers)
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            problem = f"the cluster runs Ray {theirs}, this is Ray {ray.__version__}"
            raise FatalError(address, problem, "Use the same minor version on both sides")
        with self._told():
            self._client = JobSubmissionClient(address, headers=headers)

    def attempts(self, id_: str | None = None) -> list[Attempt]:
        """All attempts at one of our jobs, or at all of them, the oldest first."""
        with self._told():
            found = [_attempt(job) for job in self._client.list_jobs() if (job.metadata or {}).get(_NAME)]
        return sorted((a for a in found if id_ in (None, a.id)), key=lambda a: (a.started or math.inf, a.attempt))

    def latest(self, id_: str) -> Attempt:
        """The last attempt at a job.

        Raises:
            ConfigError: there is no such job.
        """
        attempts = self.attempts(id_)
        if not attempts:
            known = list(dict.fromkeys(attempt.id for attempt in self.attempts()))[-10:]
            raise ConfigError(f"job {id_}", f"{self.address} knows no such job", f"Known: {', '.join(known) or 'none'}")
        return max(attempts, key=lambda attempt: attempt.attempt)

    def submit(self, submission: Mapping[str, Any], id_: str) -> tuple[Attempt, bool]:
        """Start a job, unless it is at work: two that try at once start it once.

        Args:
            submission: what `JobSubmissionClient.submit_job` takes.
            id_: the job's name.

        Returns:
            The attempt, and whether it is a new one.
        """
        attempts = self.attempts(id_)
        at_work = [attempt for attempt in attempts if attempt.at_work]
        if at_work:
            return at_work[-1], False
        number = 1 + max((attempt.attempt for attempt in attempts), default=0)
        facts = {"submission_id": f"{id_}-{number}", "metadata": {_NAME: id_, _ATTEMPT: str(number)}}
        for tries in range(_ATTEMPTS):
            try:
                self._client.submit_job(**facts, **submission)
                return self.latest(id_), True
            except RuntimeError as error:
                if "already exists" in str(error):  # somebody else started it just now, or our lost request did
                    return self.latest(id_), False
                if _NOT_READY not in str(error) or tries + 1 == _ATTEMPTS:
                    mend = "See dashboard_agent.log on its head" if _NOT_READY in str(error) else ""
                    raise FatalError(self.address, f"did not take the job ({_first_line(error)})", mend) from error
            except requests.RequestException as error:
                if tries + 1 == _ATTEMPTS:
                    raise _no_answer(self.address, error) from error
            time.sleep(2.0 ** (tries + 1))
        raise AssertionError("at least one attempt")

    def follow(self, attempt: Attempt, tell: Callable[[str], None]) -> Attempt:
        """Pass on what an attempt prints until it has ended; a connection that breaks is made anew.

        Args:
            attempt: to follow.
            tell: takes each piece of the log, once.

        Raises:
            FatalError: the cluster has gone.
        """
        told, tries = 0, 0
        while True:
            try:
                told = asyncio.run(self._tail(attempt.submission_id, told, tell))
                now = self.latest(attempt.id)
                if not now.at_work or now.attempt != attempt.attempt:
                    return now
                tries = 0
            except (RuntimeError, OSError, aiohttp.ClientError, FatalError) as error:
                tries += 1
                if tries == _ATTEMPTS:
                    raise _no_answer(self.address, error) from error
            time.sleep(min(2.0**tries, 20.0))

    def logs(self, attempt: Attempt) -> str:
        """All that an attempt has printed so far."""
        with self._told():
            return str(self._client.get_job_logs(attempt.submission_id))

    def stop(self, attempt: Attempt, longest_s: float) -> Attempt:
        """Ask an attempt to stop, and wait until it has, or for so many seconds.

        A job that is asked saves what it has to, and is killed when it takes too long for that.
        """
        with self._told():
            self._client.stop_job(attempt.submission_id)
        until = time.monotonic() + longest_s
        while (now := self.latest(attempt.id)).at_work and time.monotonic() < until:
            time.sleep(0.5)
        return now

    async def _tail(self, submission_id: str, told: int, tell: Callable[[str], None]) -> int:
        """Pass on the log after its first `told` characters; gives how many have been told then."""
        seen = 0
        async for piece in self._client.tail_job_logs(submission_id):
            new = piece[max(0, told - seen) :]
            seen += len(piece)
            if new:
                tell(new)
        return max(told, seen)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ConnectionError, requests.RequestException) as error:
            raise _no_answer(self.address, error) from error


def _ray_version(address: str, headers: Mapping[str, str]) -> str:
    try:
        answer = requests.get(f"{address}/api/version", headers=dict(headers), timeout=_TIMEOUT_S)
        if answer.status_code in (401, 403):
            problem = "does not take this token" if headers else "asks for a token"
            mend = "Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token of the cluster's head"
            raise RefusedError(address, f"the cluster {problem}", mend)
        answer.raise_for_status()
        return str(answer.json()["ray_version"])
    except (requests.RequestException, ValueError, KeyError) as error:
        raise _no_answer(address, error) from error


def _attempt(job: JobDetails) -> Attempt:
    return Attempt(
        job.metadata[_NAME],
        int(job.metadata.get(_ATTEMPT, 1)),
        str(job.submission_id),
        str(job.status.value),
        str(job.message or ""),
        job.driver_exit_code,
        (job.start_time or 0) / 1000,
        (job.end_time or 0) / 1000,
    )


def _no_answer(address: str, error: Exception) -> FatalError:
    if isinstance(error, requests.exceptions.SSLError):
        said = re.search(r"verify failed: ([^(\"']+)", str(error))
        problem = f"its certificate is not accepted ({said[1].strip() if said else 'TLS'})"
        mend = "Renew it, or give the authority that signed it by REQUESTS_CA_BUNDLE"
        return FatalError(address, problem, mend)
    mend = "Is the cluster up, and its dashboard's port reachable from here (ray dashboard cluster.yaml, or a tunnel)?"
    return FatalError(address, f"no job server answers ({_first_line(error)})", mend)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
