"""Shards on Ray: the images of many shards at once through the three pools, in waves.

A wave is as many shards as keep the pools busy for long; the next one is listed meanwhile. A shard whose last image has
ended is put together at once. The driver holds the images of one wave, and of all shards only their names.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import WorkerCrashedError

from pipeline.media.inputs import InputFile
from pipeline.media.video import is_video
from pipeline.runners.cluster import ray_data_job
from pipeline.runners.engine import in_pools, pools_needs, roles_of
from pipeline.runners.films import Step, run_films
from pipeline.swapping import End, Plan
from pipeline.swapping.shards import Index, assemble_shard, forget_other_shards, index_shard
from pipeline.swapping.shards.state import state_key

_ITEMS_IN_WAVE = 100_000
"""Images in a wave: their names are some tens of MB, and starting the pools costs little of their time."""

_MOST_AT_ONCE = 8
"""Shards that are listed or put together at the same time, on as many CPUs; on fewer, as many as there are."""

_TASK_ATTEMPTS = 4
"""Times that a task is begun whose worker dies: of nodes that go away some are no shard's fault."""


def run_shards(plan: Plan, shards: Sequence[InputFile], step: Step) -> Iterator[pa.Table]:
    """Take shards from shards to shards.

    Args:
        plan: of the job.
        shards: what to do.
        step: told of every span and piece of a video, as `run_films` does.

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
            yield from _wave(plan, shared, wave, step)


class _Ahead:
    """Lists shards some ahead of who asks."""

    def __init__(self, plan: Any, shards: Sequence[InputFile]) -> None:
        self._plan, self._left = plan, deque(shards)
        self._index = ray.remote(num_cpus=0, max_retries=_TASK_ATTEMPTS - 1)(index_shard)
        self._coming: deque[tuple[InputFile, Any]] = deque()

    def wave(self, items: int) -> list[Index]:
        """Some of the shards that are left, in order; none when all were given out."""
        wave, left = list[Index](), 0
        while left < items:
            self._ask()
            if not self._coming:
                break
            shard, index = self._coming.popleft()
            try:
                wave.append(ray.get(index))
            except WorkerCrashedError:
                wave.append(Index(shard, 0, (), _killed(shard)))
            left += len(wave[-1].left)
        self._ask()
        return wave

    def _ask(self) -> None:
        while self._left and len(self._coming) < _at_once():
            shard = self._left.popleft()
            self._coming.append((shard, self._index.remote(self._plan, shard)))


def _wave(plan: Plan, shared: Any, wave: Sequence[Index], step: Step) -> Iterator[pa.Table]:
    assembling = _Assembling(plan, shared)
    left = Counter({index.shard.item: len(index.left) for index in wave})
    by_name = {index.shard.item: index for index in wave}
    for index in wave:
        if not index.left:
            assembling.begin(index)
    files = [file for index in wave for file in index.left]
    films = [file for file in files if is_video(file.item)]
    stills = [file for file in files if not is_video(file.item)]
    for table in chain(_stills(plan, stills), run_films(plan, films, step)):
        for shard, count in Counter(table.column("shard").to_pylist()).items():
            left[shard] -= count
            if not left[shard]:
                assembling.begin(by_name[shard])
        yield table
    assembling.finish()


def _stills(plan: Plan, files: Sequence[InputFile]) -> Iterator[pa.Table]:
    if files:
        roles = roles_of(plan, files) if plan.settings.selection.mode == "anonymise" else None
        yield from in_pools(plan, files, roles)


def _killed(shard: InputFile) -> End:
    """The end of a shard that keeps ending who reads it."""
    problem = f"{shard.item}: ended its worker {_TASK_ATTEMPTS} times. Look at it with care."
    return End("failed", "killed_worker", problem)


def _at_once() -> int:
    """Each takes a process of its own, which is some hundred MB."""
    return max(1, min(_MOST_AT_ONCE, int(ray.cluster_resources().get("CPU", 1))))


class _Assembling:
    """Puts shards together beside the pools."""

    def __init__(self, plan: Plan, shared: Any) -> None:
        self._plan, self._shared = plan, shared
        self._assemble = ray.remote(num_cpus=0, max_retries=_TASK_ATTEMPTS - 1)(assemble_shard)
        self._running: dict[Any, InputFile] = {}

    def begin(self, index: Index) -> None:
        """Begin with a shard of which every image has ended; waits while there are too many."""
        while len(self._running) >= _at_once():
            self._wait()
        self._running[self._assemble.remote(self._shared, index.shard, index.end)] = index.shard

    def finish(self) -> None:
        """Wait for all of them."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        for one in ray.wait(list(self._running))[0]:
            shard = self._running.pop(one)
            try:
                ray.get(one)
            except WorkerCrashedError:
                assemble_shard(self._plan, shard, _killed(shard))
