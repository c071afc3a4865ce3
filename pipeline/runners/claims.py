"""One job at a time on one output.

    OUTPUT/_simswap/claims/<token>.json     who works here; written anew every few seconds while it lives

A job writes its claim and then looks for others: of two that begin at once both see each other, and step back. That
needs no more of a store than that it lists what was written before.
"""

from __future__ import annotations

import _thread
import json
import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError, SimSwapError
from pipeline.media.store import BOOKS, Store
from pipeline.runners.progress import say

CLAIMS = f"{BOOKS}/claims"
"""Folder in an output for those who work on it."""

_BEAT_S = 5.0
_BEATS_TO_WATCH = 3
_TRIES = 5


@contextmanager
def claimed(store: Store) -> Iterator[None]:
    """Work on an output as the only job.

    Args:
        store: the output.

    Raises:
        OutputError: another job works there, or has taken it over because this one seemed dead.
    """
    claim = _Claim(store)
    claim.take()
    beating = threading.Thread(target=claim.beat, daemon=True)
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if claim.lost:
            problem = "another job has taken it over, since this one was not heard of for some time"
            raise OutputError(store.address, problem, "Let it work; or stop it and run this again") from None
        raise
    finally:
        claim.over.set()
        beating.join()
        claim.drop()


class _Claim:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = f"{CLAIMS}/{uuid.uuid4().hex}.json"
        self._beats = 0
        self._facts = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "since": time.time()}
        self._facts["started"] = _started(os.getpid())
        self.over, self.lost = threading.Event(), False

    def take(self) -> None:
        for attempt in range(_TRIES):
            self._refuse(self._others())
            self._write()
            others = self._others()
            if not others:
                return
            self.drop()
            if attempt == _TRIES - 1:
                self._refuse(others)
            time.sleep(random.uniform(0.2, 2.0))  # noqa: S311 - it only has to differ from the other's

    def beat(self) -> None:
        """Write the claim anew until the job is over; stop the job where the claim has gone."""
        while not self.over.wait(_BEAT_S):
            with suppress(SimSwapError):  # a store that does not answer now may answer at the next beat
                if self._store.stat(self._name) is None:
                    self.lost = True
                    _thread.interrupt_main(signal.SIGTERM)
                    return
                self._write()

    def drop(self) -> None:
        with suppress(SimSwapError):
            self._store.remove(self._name)
            self._store.forget_empty(CLAIMS)

    def _write(self) -> None:
        self._beats += 1
        self._store.write(self._name, json.dumps(self._facts | {"beat": self._beats}).encode())

    def _others(self) -> dict[str, dict[str, Any]]:
        """The claims of jobs that live; those of dead ones are removed."""
        claims = read_claims(self._store)
        claims.pop(self._name, None)
        gone = {name for name, facts in claims.items() if _is_dead(facts)}
        far = {name: facts for name, facts in claims.items() if name not in gone and not _is_near(facts)}
        if far:
            say("waiting", message=f"whether the job on {next(iter(far.values())).get('host')} is alive")
            time.sleep(_BEATS_TO_WATCH * _BEAT_S)
            now = read_claims(self._store)
            gone |= {name for name, facts in far.items() if now.get(name, facts) == facts}
        self._store.remove_all(sorted(gone))
        return {name: facts for name, facts in claims.items() if name not in gone}

    def _refuse(self, others: dict[str, dict[str, Any]]) -> None:
        for facts in others.values():
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(facts.get("since", 0))))
            problem = f"another job works on it (process {facts.get('pid')} on {facts.get('host')}, since {since})"
            raise OutputError(self._store.address, problem, "Wait for it, or stop it")


def read_claims(store: Store) -> dict[str, dict[str, Any]]:
    """The claims on an output, by name; one that is damaged is an empty one."""
    found: dict[str, dict[str, Any]] = {}
    for name, data in store.read_all([file.name for file in store.list(CLAIMS) if file.name.endswith(".json")]).items():
        try:
            found[name] = dict(json.loads(data))
        except (ValueError, TypeError):
            found[name] = {}
    return found


def living_claims(store: Store) -> list[dict[str, Any]]:
    """Claims of jobs that are not known to be dead."""
    return [facts for facts in read_claims(store).values() if not _is_dead(facts)]


def forget_dead(store: Store) -> None:
    """Remove the claims of jobs that are known to be dead: one was killed when it had finished."""
    dead = [name for name, facts in read_claims(store).items() if _is_dead(facts)]
    if dead:
        store.remove_all(dead)
        store.forget_empty(CLAIMS)


def _is_near(facts: dict[str, Any]) -> bool:
    """Whether the job runs on this machine, so that its process can be looked for."""
    return (facts.get("host"), facts.get("boot")) == (socket.gethostname(), _boot())


def _is_dead(facts: dict[str, Any]) -> bool:
    if not facts:
        return True
    if not _is_near(facts):
        return False
    return _started(int(facts["pid"])) != facts.get("started")


def _started(pid: int) -> str | None:
    """When a process was started, so that another one with its number is not taken for it; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        return None if Path("/proc/self").exists() or not _answers(pid) else ""


def _answers(pid: int) -> bool:
    """Whether there is such a process, where there is no /proc to look into."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _boot() -> str:
    """What tells this start of this machine from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
