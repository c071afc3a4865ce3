"""Threads that a library made real-time ones: given back their place among the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Undo real-time scheduling that threads of this process are given inside; the calling one's holds for all.

    SVT-AV1 4.1 does that where it may, as root: its own threads and, for good, the one that opens an encoder become
    SCHED_FIFO 99. Nothing else on the machine runs then but as they leave it, and what the process starts inherits it.
    """
    if not _TASKS.is_dir():  # not Linux
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), real_time_threads()
    try:
        yield
    finally:
        for thread in real_time_threads() - before:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, parameters)


def real_time_threads() -> set[int]:
    """Ids of the threads of this process that Linux runs before all ordinary ones."""
    found = set()
    for thread in (int(task.name) for task in _TASKS.iterdir()):
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(thread)
    return found
