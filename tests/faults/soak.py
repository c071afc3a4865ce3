"""Jobs under all faults at once, by chance that a seed fixes, until the time is over: `make soak`.

A job over a folder and one over shards take turns, on this machine and in a bucket. Each is started again until it has
ended, and then looked at from outside. Prints what was done to them, and what is lost and doubled: nothing, or it
ends with 1.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fault_proxy import Fault, FaultProxy, Schedule
from tests.faults.commands import Command
from tests.faults.jobs import SmallJob, failing
from tests.faults.places import in_bucket
from tests.object_store import ObjectStore, keeps_attributes, swift_python
from tests.outside import Folder, History, check_output, check_shards, check_visible, lost_and_doubled, shards_in

_POINTS = {
    "files": ("output written", "receipts written", "receipts folded", "parts removed", "story told", "job finished"),
    "shards": ("part written", "shard written", "side files written", "shard receipts written", "shard record written"),
}
_PATIENCE = 4
_AGAIN = "killed_worker", "timed_out", "store_error"
_RATES = dict.fromkeys(Fault, 0.02)


@dataclass
class Tally:
    """What was done to jobs, and what came of it."""

    injected: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    items: int = 0
    lost: int = 0
    doubled: int = 0
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """One line of the log, with the second it was written."""
        print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.injected.items()) if count)
        return f"jobs {self.jobs}; injected: {faults}\nitems {self.items}, lost {self.lost}, doubled {self.doubled}"


class Torment:
    """One job, and what is done to it.

    Args:
        job: that suffers.
        layout: `files` or `shards`.
        pictures: that it has.
        chance: decides what, and when.
        tally: of all jobs.
    """

    def __init__(self, job: SmallJob, layout: str, pictures: int, chance: random.Random, tally: Tally) -> None:
        self._job, self._layout, self._pictures, self._chance, self._tally = job, layout, pictures, chance, tally
        self._history, self._is_finished = History(job.output), False
        self._kinds: dict[str, Callable[[], int]] = {
            "worker killed": self._workers_killed,
            "job killed": self._job_killed,
            "job killed while it commits": self._killed_at_a_point,
            "told to stop": self._told_to_stop,
            "aborts and hangs": self._aborts_and_hangs,
            "second job": self._second_job,
        }

    def until_finished(self, faults: int, deadline: float) -> None:
        """Start the job again and again, after some faults or from the deadline on without any."""
        names = list(self._kinds)
        self._chance.shuffle(names)
        for name in names[:faults]:
            if time.monotonic() > deadline:
                break
            if self._is_finished:
                self._remove_some()
            code = self._kinds[name]()
            self._is_finished = code == 0
            seen = check_visible(self._job.inputs, self._job.output)
            self._tally.say(f"  {name}: exit code {code}, {self._history.note()} have their receipt, {seen} visible")
        result = self._at_last()
        again = [reason for reason in _AGAIN if reason in result["reasons"]]
        if again:
            self._history.note()
            redriven = self._job.run(f"reasons=[{', '.join(again)}]", command="redrive")[1]
            self._tally.say(f"  redriven: {redriven['redriven']} that were {', '.join(again)}")

    def _remove_some(self) -> None:
        """Take results of a finished job away, so that there is something to do."""
        here = Folder(self._job.output)
        names = [name for name in here.visible() if not name.endswith(".json")]
        results = names if self._layout == "files" else shards_in(names)
        gone = self._chance.sample(results, (len(results) + 1) // 2)
        for name in gone:
            here.remove(name)
        self._history.forget(*(f"{name}/" for name in gone))
        self._tally.injected["results removed"] += len(gone)

    def _at_last(self) -> dict[str, Any]:
        """The result of a job that ends; of a machine that is too busy to start Ray nothing is learned."""
        for _ in range(_PATIENCE):
            code, result = self._job.run()
            if code == 0:
                return result
            self._tally.say(f"  exit code {code}: {result['error']}")
        raise AssertionError(result["stderr"])

    def look(self) -> None:
        """The outside checker, and the count of what is lost and doubled."""
        check = check_output if self._layout == "files" else check_shards
        counts = check(self._job.inputs, self._job.output)
        code, result = self._job.run()
        assert (code, result["done_now"]) == (0, 0), result
        items, lost, doubled = lost_and_doubled(self._job.inputs, self._job.output)
        doubled += len(self._history.done_again)
        self._tally.jobs += 1
        self._tally.items += items
        self._tally.lost += lost
        self._tally.doubled += doubled
        self._tally.say(f"  {dict(counts)}: items {items}, lost {lost}, doubled {doubled}")

    def _started(self, *points: str) -> Command:
        return self._job.start(**failing(*points)) if points else self._job.start()

    def _wait(self, process: Command, least: float = 8.0, most: float = 30.0) -> bool:
        """Let the job work for a while; whether it still does."""
        with suppress(TimeoutError):
            process.wait(self._chance.uniform(least, most))
        return process.poll() is None

    def _count(self, name: str) -> None:
        self._tally.injected[name] += 1

    def _workers_killed(self) -> int:
        process = self._started()
        for _ in range(self._chance.randint(1, 4)):
            workers = sorted(self._job.workers()) if self._wait(process, 3, 12) else []
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(workers), signal.SIGKILL)
                    self._count("worker killed")
        return self._job.end(process)[0]

    def _job_killed(self) -> int:
        process = self._started()
        if self._wait(process):
            self._count("job killed")
            self._job.kill(process)
        else:
            self._job.end(process)
        return process.wait(60)

    def _killed_at_a_point(self) -> int:
        point = self._chance.choice(_POINTS[self._layout])
        code = self._job.end(self._started(f"{point}=killjob@{self._chance.randint(1, 3)}"))[0]
        self._tally.injected[f"killed at '{point}'"] += code == -signal.SIGKILL
        return code

    def _told_to_stop(self) -> int:
        process = self._started()
        if self._wait(process):
            process.send_signal(signal.SIGTERM)
            self._count("told to stop")
        return self._job.end(process)[0]

    def _aborts_and_hangs(self) -> int:
        digits = 4 if self._layout == "files" else 9
        names = [f"{self._chance.randrange(self._pictures):0{digits}d}.png" for _ in range(3)]
        points = [f"{stage}:{name}" for stage, name in zip(("analyse", "swap", "finish"), names, strict=True)]
        actions = self._chance.choice((("abort", "hang", "kill"), ("hang", "abort", "abort")))
        self._tally.injected.update(actions)
        return self._job.end(self._started(*(f"{p}={a}" for p, a in zip(points, actions, strict=True))))[0]

    def _second_job(self) -> int:
        process = self._started()
        self._wait(process, 2, 10)
        second = self._job.start()
        self._count("second job")
        said = second.communicate(timeout=600)
        assert second.returncode == 0 or (second.returncode == 1 and "another job works on it" in said[0]), said
        code, result = self._job.end(process)
        busy = "did not start" in result.get("error", "")  # a machine that is too busy to start Ray: nothing is learned
        assert code == 0 or second.returncode == 0 or busy, f"of two jobs neither worked: {result} {said}"
        return code


def soak(minutes: float, seed: int, pictures: int, faults: int) -> Tally:
    """Torment jobs for so many minutes.

    Args:
        minutes: after which no further fault is injected and no further job begun.
        seed: of the chance.
        pictures: of each job.
        faults: kinds of them that each job suffers, besides those of its store.
    """
    tally, deadline = Tally(), time.monotonic() + 60 * minutes
    tally.say(f"seed {seed}, {minutes:g} minutes, {pictures} pictures a job")
    number = 0
    while time.monotonic() < deadline:
        chance = random.Random(f"{seed} {number}")
        layout, where = ("files", "shards")[number % 2], ("folder", "bucket")[number // 2 % 2]
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="soak-"))).resolve()
            settings: dict[str, Any] = {"faults": {"item_s": 6.0, "attempts": 3}, "max_failed_fraction": 1.0}
            if layout == "files":
                job = SmallJob.make(folder / "job", pictures, **settings)
            else:
                job = SmallJob.make_shards(folder / "job", 6, max(pictures // 6, 3), **settings)
            tally.say(f"job {number}: {layout} in a {where}")
            proxy = None
            if where == "bucket" and swift_python() is not None:
                job, proxy = _behind_a_proxy(job, stack, folder, seed)
            torment = Torment(job, layout, pictures, chance, tally)
            torment.until_finished(faults, deadline)
            if proxy is not None:
                tally.injected.update({f"store: {fault}": count for fault, count in proxy.faults.items()})
                proxy.calm()
            torment.look()
        number += 1
    return tally


def _behind_a_proxy(job: SmallJob, stack: ExitStack, folder: Path, seed: int) -> tuple[SmallJob, FaultProxy]:
    """The job with inputs and output in a store that fails now and then."""
    own = folder / "store"
    own.mkdir()
    if not keeps_attributes(own):
        python = swift_python()
        assert python is not None
        own = Path(stack.enter_context(TemporaryDirectory(dir=python.parents[1])))
    store = stack.enter_context(ObjectStore(own))
    os.environ.update(store.environment())  # for the outside checker
    job = in_bucket(job, store, "soak")
    proxy = stack.enter_context(FaultProxy(store.endpoint, Schedule(seed, _RATES)))
    job.environment = store.environment(proxy.endpoint)
    return job, proxy


def main() -> int:
    """The command line: time, seed, size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--faults", type=int, default=6)
    given = parser.parse_args()
    tally = soak(given.minutes, given.seed, given.pictures, given.faults)
    print(tally, flush=True)
    return 1 if tally.lost or tally.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
