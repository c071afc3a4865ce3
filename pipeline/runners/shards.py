"""Shards on Ray: the images of many shards at once through the three pools, in waves.

A wave is as many shards as keep the pools busy for long; the next one is listed meanwhile. A shard whose last image has
ended is put together at once. The driver holds the images of one wave, and of all shards only their names.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray

from pipeline.media.inputs import InputFile
from pipeline.runners.cluster import ray_data_job
from pipeline.runners.engine import in_pools, pools_needs, roles_of
from pipeline.swapping import Plan
from pipeline.swapping.shards import Index, assemble_shard, forget_other_shards, index_shard
from pipeline.swapping.shards.state import state_key

_ITEMS_IN_WAVE = 100_000
"""Images in a wave: their names are some tens of MB, and starting the pools costs little of their time."""

_LISTED_AHEAD = 8
"""Shards that are listed or put together at the same time."""


def run_shards(plan: Plan, shards: Sequence[InputFile]) -> Iterator[pa.Table]:
    """Take shards from shards to shards.

    Args:
        plan: of the job.
        shards: what to do.

    Yields:
        Counts (`receipts_to_summary`) of a batch of images, once they are in a part of their shard.

    Raises:
        FatalError: the pools do not fit, or a worker failed for more than one input's sake.
    """
    forget_other_shards(plan.output(), [state_key(shard, plan.recipe) for shard in shards])
    if not shards:
        return
    faults = plan.settings.faults
    with ray_data_job("swap", plan.settings.ray, pools_needs(plan.settings.pools), faults.item_s):
        shared = ray.put(plan)
        coming = _Ahead(shared, shards)
        while wave := coming.wave(_ITEMS_IN_WAVE):
            yield from _wave(plan, shared, wave)


class _Ahead:
    """Lists shards some ahead of who asks."""

    def __init__(self, plan: Any, shards: Sequence[InputFile]) -> None:
        self._plan, self._left = plan, deque(shards)
        self._index = ray.remote(num_cpus=0, max_retries=3)(index_shard)
        self._coming: deque[Any] = deque()

    def wave(self, items: int) -> list[Index]:
        """Some of the shards that are left, in order; none when all were given out."""
        wave, left = list[Index](), 0
        while left < items:
            self._ask()
            if not self._coming:
                break
            wave.append(ray.get(self._coming.popleft()))
            left += len(wave[-1].left)
        self._ask()
        return wave

    def _ask(self) -> None:
        while self._left and len(self._coming) < _LISTED_AHEAD:
            self._coming.append(self._index.remote(self._plan, self._left.popleft()))


def _wave(plan: Plan, shared: Any, wave: Sequence[Index]) -> Iterator[pa.Table]:
    assembling = _Assembling(shared)
    left = Counter({index.shard.item: len(index.left) for index in wave})
    by_name = {index.shard.item: index for index in wave}
    for index in wave:
        if not index.left:
            assembling.begin(index)
    files = [file for index in wave for file in index.left]
    roles = roles_of(plan, files) if files and plan.settings.selection.mode == "anonymise" else None
    for table in in_pools(plan, files, roles) if files else ():
        for shard, count in Counter(table.column("shard").to_pylist()).items():
            left[shard] -= count
            if not left[shard]:
                assembling.begin(by_name[shard])
        yield table
    assembling.finish()


class _Assembling:
    """Puts shards together beside the pools."""

    def __init__(self, plan: Any) -> None:
        self._plan = plan
        self._assemble = ray.remote(num_cpus=0, max_retries=3)(assemble_shard)
        self._running: list[Any] = []

    def begin(self, index: Index) -> None:
        """Begin with a shard of which every image has ended; waits while there are too many."""
        while len(self._running) >= _LISTED_AHEAD:
            done, self._running = ray.wait(self._running)
            ray.get(done)
        self._running.append(self._assemble.remote(self._plan, index.shard, index.end))

    def finish(self) -> None:
        """Wait for all of them."""
        ray.get(self._running)
        self._running = []
