"""Inputs that kill their worker or never end: counted, and given up after some attempts.

Ray begins a batch again when its worker dies, for ever. Each stage therefore tells a book that outlives it which input
it is about to begin, and hears whether that one has been begun too often without an end.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import ray

from pipeline.config import FaultsConfig
from pipeline.errors import ItemError, RefusedInputError
from pipeline.runners.cluster import job_actor

_T = TypeVar("_T")
Verdict = tuple[str, str] | None

_GRACE_S = 20.0
"""Seconds after which a worker that does not even run its own clock is ended from outside of Python."""


class AttemptBook:
    """Who has begun what; an actor of the job.

    Args:
        attempts: that an input has.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._open: dict[tuple[str, str], int] = {}
        self._given_up: dict[str, tuple[str, str]] = {}

    def begin(self, stage: str, ended: Sequence[str], keys: Sequence[str]) -> tuple[bool, list[Verdict]]:
        """Note what a worker begins.

        Args:
            stage: of the worker.
            ended: what it began before, and has done.
            keys: what it begins, together.

        Returns:
            Whether some were begun before without an end, so that they had better be taken one by one; then none of
            them counts as begun. Only what is begun alone is one attempt more: of several nobody knows which one it
            is. For each None, or code and problem where it is given up.
        """
        for key in ended:
            self._open.pop((stage, key), None)
        alone = len(keys) == 1
        verdicts = [self._verdict(stage, key, alone) for key in keys]
        suspect = not alone and (any(verdicts) or any((stage, key) in self._open for key in keys))
        for key, verdict in zip(keys, verdicts, strict=True):
            if verdict is None and not suspect:
                self._open[stage, key] = self._open.get((stage, key), 0) + alone
        return suspect, verdicts

    def timed_out(self, stage: str, key: str, limit_s: float) -> None:
        """Give up an input that takes too long."""
        self._given_up[key] = ("timed_out", f"took longer than {limit_s:g} s to {stage}")

    def _verdict(self, stage: str, key: str, alone: bool) -> Verdict:
        attempts = self._open.get((stage, key), 0)
        if alone and attempts >= self._attempts:
            self._given_up.setdefault(key, ("killed_worker", f"ended its worker {attempts} times ({stage})"))
        return self._given_up.get(key)


class Attempts:
    """What one worker asks and tells the book.

    Args:
        book: the actor.
        stage: what the worker does, as a verb for errors.
        limit_s: seconds that one input may take; 0 for ever.
    """

    def __init__(self, book: Any, stage: str, limit_s: float) -> None:
        self._book, self._stage, self._limit_s = book, stage, limit_s
        self._ended: list[str] = []

    def each(self, key: str, do: Callable[[], _T], give_up: Callable[[ItemError], _T]) -> _T:
        """Do one input, or give it up.

        Args:
            key: of the input: its name; what follows a NUL tells its parts apart.
            do: the work.
            give_up: what comes of it otherwise.
        """
        _, (verdict,) = self._begin([key])
        if verdict is not None:
            code, problem = verdict
            mend = "Look at it with care" + (", or raise faults.item_s" if code == "timed_out" else "")
            return give_up(RefusedInputError(key.partition("\0")[0], problem, mend, code=code))
        return self._timed(key, do)

    def together(
        self, keys: Sequence[str], do: Callable[[Sequence[int]], list[_T]], give_up: Callable[[int, ItemError], _T]
    ) -> list[_T]:
        """Do several inputs at once; one by one if a worker has died of them.

        Args:
            keys: of the inputs.
            do: the work, of the inputs with these numbers.
            give_up: what comes of the input with this number otherwise.
        """
        if len(keys) > 1 and not self._begin(keys)[0]:
            with self._in_time(keys):
                return do(range(len(keys)))

        def one(number: int) -> _T:
            return self.each(keys[number], lambda: do([number])[0], lambda error: give_up(number, error))

        return [one(number) for number in range(len(keys))]

    def in_turn(
        self, keys: Sequence[str], do: Callable[[int], _T], give_up: Callable[[int, ItemError], _T]
    ) -> list[_T]:
        """Do several inputs one after the other, each in its own time; the book is asked about all of them at once.

        Args:
            keys: of the inputs.
            do: the work, of the input with this number.
            give_up: what comes of the input with this number otherwise.
        """
        if len(keys) < 2 or self._begin(keys)[0]:
            return [self.each(key, partial(do, n), partial(give_up, n)) for n, key in enumerate(keys)]
        try:
            return [self._timed(key, partial(do, n)) for n, key in enumerate(keys)]
        finally:
            self._ended = list(keys)

    def _timed(self, key: str, do: Callable[[], _T]) -> _T:
        with self._in_time([key]):
            return do()

    def _begin(self, keys: Sequence[str]) -> tuple[bool, list[Verdict]]:
        ended, self._ended = self._ended, []
        asked = self._book.begin.remote(self._stage, ended, list(keys))
        return ray.get(asked)  # type: ignore[no-any-return]

    @contextmanager
    def _in_time(self, keys: Sequence[str]) -> Iterator[None]:
        """End this process if the block takes too long; Ray then begins the batch again."""
        limit_s = self._limit_s * len(keys)
        if limit_s:
            timer = threading.Timer(limit_s, self._too_long, [keys])
            timer.daemon = True
            timer.start()
            faulthandler.dump_traceback_later(limit_s + _GRACE_S, exit=True)
        try:
            yield
        finally:
            if limit_s:
                timer.cancel()
                faulthandler.cancel_dump_traceback_later()
            self._ended = list(keys)

    def _too_long(self, keys: Sequence[str]) -> None:
        try:
            if len(keys) == 1:  # of several it is not known which one it is
                ray.get(self._book.timed_out.remote(self._stage, keys[0], self._limit_s), timeout=_GRACE_S / 2)
        finally:
            faulthandler.dump_traceback()
            os._exit(1)


def attempt_book(settings: FaultsConfig) -> Any:
    """An attempt book of this job."""
    return job_actor(AttemptBook, settings.attempts)
