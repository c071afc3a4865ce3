"""Progress on stderr: a bar on a terminal, JSON lines otherwise."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pipeline.redaction import redacted

JOB_ID = "SIMSWAP_JOB_ID"
"""Environment variable with the name of a job that was submitted."""

_SECONDS_BETWEEN_LINES = 5.0
_MOST_ITEMS, _MOST_ITEMS_ON_A_TERMINAL = 1000, 10
_PLURAL = {"img": "items", "step": "steps"}


class Progress:
    """Tells how far a long job is.

    Args:
        command: the job's name, for the lines.
        total: inputs to do, None where nobody knows; a context manager shows nothing before and clears up after.
        unit: what is counted.
    """

    def __init__(self, command: str, total: int | None, unit: str = "img") -> None:
        self._command = command
        self._total = total
        self._unit = unit
        self._began: int | None = None
        self._done = 0
        self._facts: dict[str, float] = {}
        self._told = True
        self._start = self._last_line = time.monotonic()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, desc=self._command, unit=self._unit, file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._told:
            self._tell()

    def reach(self, done: int, facts: Mapping[str, float]) -> None:
        """So many have ended in all; where a resumed job begins does not count for its speed."""
        if self._began is None:
            self._began, self._start = done, time.monotonic()
        self.advance(done - self._done, facts)

    def advance(self, done: int, facts: Mapping[str, float]) -> None:
        """Count inputs that have ended, with facts to show beside them; a fact is shown until it is given anew."""
        self._done += done
        self._facts.update(facts)
        self._told = False
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:g}" for k, v in self._facts.items()}, refresh=False)
            self._bar.update(done)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES or self._done == self._total:
            self._tell()

    def _tell(self) -> None:
        self._last_line, self._told = time.monotonic(), True
        here = self._done - (self._began or 0)
        rate = here / max(self._last_line - self._start, 1e-9)
        line = {"done": self._done, "total": self._total, f"{_PLURAL[self._unit]}_per_s": round(rate, 3)}
        say("progress", command=self._command, **line, **self._facts)


class ItemLog:
    """Tells which inputs got no result, as they end: the first of them, since the receipts tell all.

    Args:
        run: the MLflow run that they belong to.
    """

    def __init__(self, run: str | None) -> None:
        self._run = run
        self._left = _MOST_ITEMS_ON_A_TERMINAL if sys.stderr.isatty() else _MOST_ITEMS

    def tell(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """A line for each row of `item`, `status` and `reason` that names an item."""
        for row in rows:
            if row["item"] and self._left:
                self._left -= 1
                more = "" if self._left else "; of more there is nothing here, but in the receipts"
                message = f"{row['item']}: {row['status']} ({row['reason']}){more}"
                say("item", run=self._run, **row, message=message)


def say(event: str, **facts: object) -> None:
    """One event: a JSON line, or on a terminal a plain sentence; of a submitted job with the job's name."""
    if name := os.environ.get(JOB_ID):
        facts = {"job": name, **facts}
    if sys.stderr.isatty():
        text = str(facts.pop("message", "")) or ", ".join(f"{k} {v}" for k, v in facts.items())
        tqdm.write(redacted(f"{event}: {text}"), file=sys.stderr)
    else:
        print(redacted(json.dumps({"event": event, **facts}, default=str)), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """A warning about something that does not stop the job."""
    say("warning", message=message)
