"""What a Prometheus that watches the Ray cluster sees of a swap, beside Ray's own metrics, of which queues are some.

ray_simswap_busy_seconds_total{stage}       seconds that workers of a stage have worked
ray_simswap_workers{stage}                  workers of a stage: the rate of busy seconds over it is their busy share,
and where they hold a GPU, the GPU's
ray_simswap_batch_seconds{stage}            how long batches take (a histogram)
ray_simswap_rows_total{stage}               inputs, spans or pieces that a stage has taken
ray_simswap_items_total{status,reason}      inputs that have ended
ray_simswap_faces_total                     faces that were swapped
ray_simswap_items_left                      inputs that have not ended
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar

import pyarrow as pa
from ray.util.metrics import Counter, Gauge, Histogram

_BATCH_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class MeasuredStage(ABC):
    """A stage for Ray Data: what it does to a batch is its `work`, which is measured.

    Attributes:
        name: what metrics call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def work(self, table: pa.Table) -> pa.Table:
        """Rows through the stage."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows through the stage, measured."""
        start = time.perf_counter()
        try:
            return self.work(table)
        finally:
            self._metrics.batch(table.num_rows, time.perf_counter() - start)

    @cached_property
    def _metrics(self) -> _StageMetrics:
        return _StageMetrics(self.name)


class _StageMetrics:
    """Of one worker of a stage."""

    def __init__(self, stage: str) -> None:
        self._busy = Counter("simswap_busy_seconds", "Seconds that workers have worked", ("stage",))
        self._rows = Counter("simswap_rows", "Rows that a stage has taken", ("stage",))
        self._seconds = Histogram("simswap_batch_seconds", "Seconds a batch", list(_BATCH_S), ("stage",))
        workers = Gauge("simswap_workers", "Workers of a stage", ("stage",))
        for metric in (self._busy, self._rows, self._seconds, workers):
            metric.set_default_tags({"stage": stage})
        workers.set(1)

    def batch(self, rows: int, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._rows.inc(max(rows, 0))
        self._busy.inc(seconds)


class EndMetrics:
    """What has ended, as the driver counts it.

    Args:
        left: inputs to do; None where nobody knows.
    """

    def __init__(self, left: int | None) -> None:
        self._left = left
        self._items = Counter("simswap_items", "Inputs that have ended", ("status", "reason"))
        self._faces = Counter("simswap_faces", "Faces that were swapped")
        self._gauge = Gauge("simswap_items_left", "Inputs that have not ended")
        self._tell_left()

    def count(self, ends: Iterable[Mapping[str, object]], faces: int) -> None:
        """Count inputs by `status` and `reason`, and the faces swapped in them."""
        tally = Tally((str(end["status"]), str(end["reason"])) for end in ends)
        for (status, reason), number in tally.items():
            self._items.inc(number, {"status": status, "reason": reason})
        if faces:
            self._faces.inc(faces)
        if self._left is not None:
            self._left -= sum(tally.values())
        self._tell_left()

    def _tell_left(self) -> None:
        if self._left is not None:
            self._gauge.set(self._left)
