"""Films on Ray: every span and piece of many films at once, in waves.

A wave is as many films as keep the workers busy. All of its spans are looked at, then every film is cast, then all of
its pieces go through the generator's three pools, then every film is put together. What is done lies on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray

from pipeline.config import PoolConfig
from pipeline.media.inputs import InputFile
from pipeline.runners.cluster import in_pool, ray_data_job
from pipeline.runners.engine import SwapStage, pools_needs
from pipeline.runners.receipts import ReceiptBook
from pipeline.runners.wire import receipts_to_summary, spans_to_tables, table_to_spans, table_to_works, works_to_table
from pipeline.swapping import Plan
from pipeline.swapping.films import (
    CutStep,
    FilmState,
    FinishPiece,
    LookStep,
    assemble,
    cast_step,
    forget_other_films,
    open_step,
    roles_step,
)
from pipeline.swapping.people import People

_SPANS_EACH = 16
"""Spans in a wave for each worker that looks: starting the workers costs less than one span takes."""

Step = Callable[[int], None]
"""Told of every span and piece that is done."""


class LookStage:
    """`LookStep` for Ray Data: spans to counts."""

    def __init__(self, plan: Plan) -> None:
        self._look = LookStep(plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Look at spans; what was seen is on disk then."""
        spans = table_to_spans(table)
        for file, number in spans:
            self._look(file, number)
        return pa.table({"faces": pa.array([0] * len(spans), pa.int64())})


class CutStage:
    """`CutStep` for Ray Data: pieces to work."""

    def __init__(self, plan: Plan) -> None:
        self._cut = CutStep(plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of pieces to rows of work."""
        return works_to_table([self._cut(file, number) for file, number in table_to_spans(table)])


class FinishStage:
    """`FinishPiece` for Ray Data: work to encoded parts."""

    def __init__(self, plan: Plan) -> None:
        self._finish = FinishPiece(plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of work to counts; parts are on disk then."""
        return pa.table({"faces": pa.array([self._finish(work) for work in table_to_works(table)], pa.int64())})


def run_films(plan: Plan, files: Sequence[InputFile], step: Step) -> Iterator[pa.Table]:
    """Take videos from files to files.

    Args:
        plan: of the job.
        files: the videos to do.
        step: told of every span that was looked at and every piece that is encoded, with the faces swapped in it.

    Yields:
        Counts (`receipts_to_summary`) of a film, once its output and receipt are on disk.

    Raises:
        FatalError: the pools do not fit, or a worker failed for more than one input's sake.
    """
    forget_other_films(plan, files)
    if not files:
        return
    pools, book, people = plan.settings.pools, ReceiptBook(plan.output()), People(plan)
    with ray_data_job("swap", plan.settings.ray, pools_needs(pools)):
        lookers = _all_workers(plan)
        wave, spans = list[InputFile](), list[tuple[InputFile, int]]()
        for file, count in _in_tasks(open_step, plan, files, pools.analyse):
            wave.append(file)
            spans += [(file, number) for number in range(count)]
            if len(spans) >= _SPANS_EACH * lookers.workers:
                yield from _wave(plan, people, book, wave, spans, step)
                wave, spans = [], []
        yield from _wave(plan, people, book, wave, spans, step)
    forget_other_films(plan, ())


def _wave(
    plan: Plan,
    people: People,
    book: ReceiptBook,
    files: Sequence[InputFile],
    spans: Sequence[tuple[InputFile, int]],
    step: Step,
) -> Iterator[pa.Table]:
    pools = plan.settings.pools
    done = {file.item: FilmState(plan, file).done() for file in files}
    unseen = [(file, number) for file, number in spans if number not in done[file.item].seen]
    _through(plan, unseen, [(LookStage, _all_workers(plan))], step)
    troupes = [troupe for _, troupe in _in_tasks(cast_step, plan, files, pools.analyse)]
    kept = roles_step(plan, people, troupes)
    pieces = [(troupe.file, number) for troupe in kept for number in range(troupe.pieces)]
    left = [(file, number) for file, number in pieces if number not in done[file.item].rendered]
    stages = [(CutStage, pools.analyse), (SwapStage, pools.swap), (FinishStage, pools.finish)]
    _through(plan, left, [(stage, pool.model_copy(update={"items": 1})) for stage, pool in stages], step)
    for file, receipt in _in_tasks(assemble, plan, files, pools.finish):
        book.add([receipt])
        FilmState(plan, file).remove()
        yield receipts_to_summary([receipt])


def _through(
    plan: Plan, spans: Sequence[tuple[InputFile, int]], stages: Sequence[tuple[type, PoolConfig]], step: Step
) -> None:
    """Spans through stages on pools of their own."""
    if not spans:
        return
    tables = spans_to_tables(spans)
    dataset = ray.data.from_arrow(tables)
    for stage, pool in stages:
        dataset = in_pool(dataset, stage, plan, pool, len(tables))
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for faces in table.column("faces").to_pylist():
            step(faces)


def _all_workers(plan: Plan) -> PoolConfig:
    """The pool that looks: nobody else works meanwhile, so it has the CPUs of those before and after the generator."""
    pools = plan.settings.pools
    if pools.analyse.gpus:  # the others' part of a GPU is not there to take
        return pools.analyse.model_copy(update={"items": 1})
    workers = pools.analyse.workers + pools.finish.workers
    cpus = min(pools.analyse.cpus, pools.finish.cpus)
    return pools.analyse.model_copy(update={"workers": workers, "cpus": cpus, "items": 1})


def _in_tasks(
    function: Callable[[Plan, InputFile], Any], plan: Plan, files: Sequence[InputFile], pool: PoolConfig
) -> Iterator[tuple[InputFile, Any]]:
    """A function of each file in tasks of a pool's size, results in the order of the files."""
    remote = ray.remote(num_cpus=pool.cpus, max_retries=3)(function)
    shared, ahead = ray.put(plan), 2 * pool.workers
    waiting: list[tuple[InputFile, Any]] = []
    for file in files:
        waiting.append((file, remote.remote(shared, file)))
        if len(waiting) >= ahead:
            first, result = waiting.pop(0)
            yield first, ray.get(result)
    for file, result in waiting:
        yield file, ray.get(result)
