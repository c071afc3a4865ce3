"""What a worker asks the book of attempts: a real actor, a real process that dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import ray
from ray.exceptions import WorkerCrashedError

from pipeline.runners.attempts import AttemptBook, Attempts, Verdict

pytestmark = pytest.mark.ray

KEYS = ["a", "b", "c", "d"]


class CountingBook(AttemptBook):
    """Counts how often it is asked."""

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self._asked = 0

    def begin(self, stage: str, ended: Sequence[str], keys: Sequence[str]) -> tuple[bool, list[Verdict]]:
        """As the book does."""
        self._asked += 1
        return super().begin(stage, ended, keys)

    def asked(self) -> int:
        """How often since the last call."""
        asked, self._asked = self._asked, 0
        return asked


def worker(book: Any, limit_s: float, killer: str, sleeper: str) -> list[str]:
    """Does its batch in turn, unless an input kills it or does not end."""

    def do(number: int) -> str:
        if KEYS[number] == killer:
            os._exit(1)
        if KEYS[number] == sleeper:
            time.sleep(60)
        return KEYS[number].upper()

    attempts = Attempts(book, "try", limit_s)
    return attempts.in_turn(KEYS, do, lambda number, error: f"{KEYS[number]}: {error.code}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
    yield
    ray.shutdown()


def run(book: Any, limit_s: float = 0.0, killer: str = "", sleeper: str = "") -> tuple[list[str], int]:
    """The batch until it is done, as Ray Data begins it again, and how many workers died meanwhile."""
    deaths = 0
    while True:
        try:
            task = ray.remote(max_retries=0)(worker)
            return ray.get(task.remote(book, limit_s, killer, sleeper)), deaths
        except WorkerCrashedError:
            deaths += 1


def test_a_batch_that_ends_asks_once(cluster: None) -> None:
    book = ray.remote(CountingBook).remote(2)
    assert run(book) == (["A", "B", "C", "D"], 0)
    assert ray.get(book.asked.remote()) == 1


def test_what_kills_its_worker_is_found_among_the_others(cluster: None) -> None:
    book = ray.remote(CountingBook).remote(2)
    assert run(book, killer="c") == (["A", "B", "c: killed_worker", "D"], 3), "once together, twice alone"


def test_what_never_ends_is_given_up_by_its_own_time_not_by_the_batchs(cluster: None) -> None:
    book, start = ray.remote(CountingBook).remote(3), time.monotonic()
    assert run(book, limit_s=1.0, sleeper="b") == (["A", "b: timed_out", "C", "D"], 1)
    assert time.monotonic() - start < 30
