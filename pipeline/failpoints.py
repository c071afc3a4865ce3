"""Places where a test can make a process die, hang or fail, to prove what is promised of killed jobs.

SIMSWAP_FAILPOINTS names them, separated by commas: `NAME[:SUBJECT]=ACTION[@N]`. At the N-th time (from 1, else each
time) that a process comes by NAME with a subject that holds SUBJECT, it does the action:

    kill          SIGKILL to itself
    abort         SIGABRT to itself, as a segmentation fault in a library would end it
    hang          sleeps for ever
    killjob       SIGKILL to the process group of SIMSWAP_FAILPOINTS_JOB, a file with its number: all of the job at once

Without the variable a place costs a look into a dictionary.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

_VARIABLE = "SIMSWAP_FAILPOINTS"
_passed: Counter[str] = Counter()


def fail_point(name: str, subject: str = "") -> None:
    """A place where a test may end this process."""
    wanted = os.environ.get(_VARIABLE)
    if not wanted:
        return
    for rule in wanted.split(","):
        place, _, action = rule.partition("=")
        where, _, who = place.partition(":")
        what, _, number = action.partition("@")
        if where == name and who in subject:
            _passed[rule] += 1
            if not number or _passed[rule] == int(number):
                _act(what)


def _act(what: str) -> None:
    if what == "hang":
        time.sleep(1e6)
    elif what == "abort":
        os.abort()
    elif what == "killjob":
        with suppress(ProcessLookupError):
            os.killpg(int(Path(os.environ[f"{_VARIABLE}_JOB"]).read_text()), signal.SIGKILL)
        time.sleep(60)
    os.kill(os.getpid(), signal.SIGKILL)
