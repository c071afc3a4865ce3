"""Films on Ray: every span and piece of many films at once, in waves.

A wave is as many films as keep the workers busy. All of its spans are looked at, then every film is cast, then all of
its pieces go through the generator's three pools, then every film is put together. What is done lies on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import WorkerCrashedError

from pipeline.config import PoolConfig
from pipeline.media.inputs import InputFile
from pipeline.runners.attempts import Attempts, attempt_book
from pipeline.runners.cluster import dataset_of, in_pool, ray_data_job
from pipeline.runners.engine import SwapStage, pools_needs
from pipeline.runners.metrics import MeasuredStage
from pipeline.runners.wire import receipts_to_summary, spans_to_tables, table_to_spans, table_to_works, works_to_table
from pipeline.swapping import End, Plan, Work
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
from pipeline.swapping.receipts import ReceiptBook

_SPANS_EACH = 16
"""Spans in a wave for each worker that looks: starting the workers costs less than one span takes."""

_TASK_ATTEMPTS = 4
"""Times that a task is begun whose worker dies: of nodes that go away some are no film's fault."""

Step = Callable[[int], None]
"""Told of every span and piece that is done."""


class LookStage(MeasuredStage):
    """`LookStep` for Ray Data: spans to counts."""

    name = "look"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._plan, self._look = plan, LookStep(plan)
        self._attempts = Attempts(book, "look at", plan.settings.faults.span_s)

    def work(self, table: pa.Table) -> pa.Table:
        """Look at spans; what was seen is on disk then."""
        spans = table_to_spans(table)
        for file, number in spans:
            end = FilmState(self._plan, file).ended
            self._attempts.each(f"{file.item}\0{number}", partial(self._look, file, number), end)
        return pa.table({"faces": pa.array([0] * len(spans), pa.int64())})


class CutStage(MeasuredStage):
    """`CutStep` for Ray Data: pieces to work."""

    name = "cut"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._cut = CutStep(plan)
        self._attempts = Attempts(book, "cut", plan.settings.faults.span_s)

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of pieces to rows of work."""
        return works_to_table([self._work(file, number) for file, number in table_to_spans(table)])

    def _work(self, file: InputFile, number: int) -> Work:
        end = Work.of(file, number).ended_by
        return self._attempts.each(f"{file.item}\0{number}", lambda: self._cut(file, number), end)


class FinishStage(MeasuredStage):
    """`FinishPiece` for Ray Data: work to encoded parts."""

    name = "finish"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._finish = FinishPiece(plan)
        self._attempts = Attempts(book, "finish", plan.settings.faults.span_s)

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of work to counts; parts are on disk then."""
        return pa.table({"faces": pa.array([self._faces(work) for work in table_to_works(table)], pa.int64())})

    def _faces(self, work: Work) -> int:
        key = f"{work.file.item}\0{work.segment}"
        return self._attempts.each(key, lambda: self._finish(work), lambda error: self._finish(work.ended_by(error)))


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
    with ray_data_job("swap", plan.settings.ray, pools_needs(pools), plan.settings.faults.span_s):
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
        if not file.shard:
            book.add([receipt])
        FilmState(plan, file).remove()
        yield receipts_to_summary([receipt], [file.shard])


def _through(
    plan: Plan, spans: Sequence[tuple[InputFile, int]], stages: Sequence[tuple[type, PoolConfig]], step: Step
) -> None:
    """Spans through stages on pools of their own."""
    if not spans:
        return
    tables, book = spans_to_tables(spans), attempt_book(plan.settings.faults)
    dataset = dataset_of(tables)
    for stage, pool in stages:
        further = (book, plan.settings.faults.span_s) if stage is SwapStage else (book,)
        dataset = in_pool(dataset, stage, plan, pool, len(tables), *further)
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
    remote = ray.remote(num_cpus=pool.cpus, max_retries=_TASK_ATTEMPTS - 1)(function)
    shared, ahead = ray.put(plan), 2 * pool.workers
    waiting: list[tuple[InputFile, Any]] = []
    for file in files:
        waiting.append((file, remote.remote(shared, file)))
        if len(waiting) >= ahead:
            yield _result(function, plan, *waiting.pop(0))
    for file, result in waiting:
        yield _result(function, plan, file, result)


def _result(
    function: Callable[[Plan, InputFile], Any], plan: Plan, file: InputFile, task: Any
) -> tuple[InputFile, Any]:
    """What a task gives; where it keeps ending its worker, what the function gives for a film without a result."""
    try:
        return file, ray.get(task)
    except WorkerCrashedError:
        problem = f"{file.item}: ended its worker {_TASK_ATTEMPTS} times. Look at it with care."
        FilmState(plan, file).ended(End("failed", "killed_worker", problem))
        return file, function(plan, file)
