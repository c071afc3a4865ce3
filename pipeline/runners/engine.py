"""The three stages on Ray Data: one pool each, back-pressure between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import ray

from pipeline.config import PoolConfig, PoolsConfig
from pipeline.faces.packs import encoder_digest
from pipeline.faces.table import write_faces
from pipeline.media.inputs import InputFile
from pipeline.runners.attempts import Attempts, attempt_book
from pipeline.runners.cluster import Needs, dataset_of, in_pool, pool_needs, ray_data_job
from pipeline.runners.metrics import MeasuredStage
from pipeline.runners.wire import (
    files_to_table,
    files_with_roles,
    receipts_to_summary,
    sightings_to_table,
    table_to_files,
    table_to_sightings,
    table_to_works,
    works_to_table,
)
from pipeline.swapping import Analyse, Finish, Plan, Swap, Work
from pipeline.swapping.people import People, choose_sources
from pipeline.swapping.receipts import ReceiptBook
from pipeline.swapping.shards.state import Made, ShardState, by_shard
from pipeline.types import Faces

_T = TypeVar("_T")

_MOST_ROWS = 32
"""Inputs in a block at the most: what is analysed again after a kill, for each worker."""


class AnalyseStage(MeasuredStage):
    """`Analyse` for Ray Data: a table of inputs to a table of work."""

    name = "analyse"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._analyse = Analyse(plan)
        self._attempts = Attempts(book, "analyse", plan.settings.faults.item_s)
        self._table = plan.settings.analysis.write_table
        self._encoder_digest, self._storage = encoder_digest(plan.settings.models), plan.settings.storage

    def work(self, files: pa.Table) -> pa.Table:
        """Rows of inputs to rows of work."""
        self._analyse.inputs.ahead(table_to_files(files))
        some = list(files_with_roles(files))
        works = self._attempts.in_turn(
            [file.item for file, _ in some],
            lambda n: self._analyse(*some[n]),
            lambda n, error: Work.of(some[n][0]).ended_by(error),
        )
        if self._table is not None:
            analysed = [(work.file.path or work.file.item, work.sha256, work.faces) for work in works if work.width]
            write_faces(self._table, analysed, self._encoder_digest, self._storage)
        return works_to_table(works)


class SightStage(MeasuredStage):
    """Who is in each input, for Ray Data: what has to be known of all before anything is decided."""

    name = "sight"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._analyse = Analyse(plan)
        self._attempts = Attempts(book, "look at", plan.settings.faults.item_s)

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of inputs to rows of embeddings."""
        files = table_to_files(table)
        self._analyse.inputs.ahead(files)
        keys = [file.item for file in files]
        seen: list[Faces | None] = self._attempts.in_turn(
            keys, lambda n: self._analyse.look(files[n]), lambda n, error: None
        )
        return sightings_to_table(files, seen)


class SwapStage(MeasuredStage):
    """`Swap` for Ray Data: target crops become results."""

    name = "swap"

    def __init__(self, plan: Plan, book: Any, limit_s: float | None = None) -> None:
        self._swap = Swap(plan)
        self._attempts = Attempts(book, "swap", plan.settings.faults.item_s if limit_s is None else limit_s)

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of work to the same rows with results for crops."""
        works = table_to_works(table)
        keys = [f"{work.file.item}\0{work.segment}" for work in works]
        done = self._attempts.together(
            keys, lambda rows: self._swap([works[n] for n in rows]), lambda n, error: works[n].ended_by(error)
        )
        return works_to_table(done)


class FinishStage(MeasuredStage):
    """`Finish` for Ray Data: outputs become visible, then their receipts; the driver gets counts.

    What becomes of the images of a shard goes into a part of it, result and receipt together.
    """

    name = "finish"

    def __init__(self, plan: Plan, book: Any) -> None:
        self._finish = Finish(plan)
        self._attempts = Attempts(book, "finish", plan.settings.faults.item_s)
        self._output, self._book = plan.output(), ReceiptBook(plan.output())

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of work to rows of counts; outputs and receipts are on disk then."""
        works = table_to_works(table)
        self._finish.inputs.ahead([work.file for work in works if work.end is None])
        receipts = self._all([work for work in works if not work.file.shard], self._finish)
        self._book.add(receipts)
        in_shards = [work for work in works if work.file.shard]
        made = self._all(in_shards, self._made)
        for key, some in by_shard(zip([work.file for work in in_shards], made, strict=True)).items():
            ShardState(self._output, key).add(some)
        told = [(receipt, "") for receipt in receipts]
        told += [(one.receipt, work.file.shard) for one, work in zip(made, in_shards, strict=True)]
        return receipts_to_summary(*zip(*told, strict=True))

    def _made(self, work: Work) -> Made:
        return Made(work.file.number, *self._finish.make(work))

    def _all(self, works: Sequence[Work], finish: Callable[[Work], _T]) -> list[_T]:
        keys = [work.file.item for work in works]
        return self._attempts.in_turn(
            keys, lambda n: finish(works[n]), lambda n, error: finish(works[n].ended_by(error))
        )


def run_stages(plan: Plan, files: Sequence[InputFile]) -> Iterator[pa.Table]:
    """Take inputs through the three pools, on a running Ray or one of our own.

    Args:
        plan: of the job.
        files: what to do.

    Yields:
        Counts (`receipts_to_summary`) of a batch, once its outputs and receipts are on disk.

    Raises:
        FatalError: the pools do not fit, or a worker failed for more than one input's sake.
    """
    if files:
        faults = plan.settings.faults
        with ray_data_job("swap", plan.settings.ray, pools_needs(plan.settings.pools), faults.item_s):
            roles = roles_of(plan, files) if plan.settings.selection.mode == "anonymise" else None
            yield from in_pools(plan, files, roles)


def roles_of(plan: Plan, files: Sequence[InputFile]) -> list[list[int] | None]:
    """Who the faces of every input become, where that depends on who is in the others."""
    people, pool = People(plan), plan.settings.pools.analyse
    tables, options = blocks(files, pool), ray.data.DataContext.get_current().execution_options
    options.preserve_order = True  # who is met first decides who gets which source
    book = attempt_book(plan.settings.faults)
    sights = in_pool(dataset_of(tables), SightStage, plan, pool, len(tables), book)
    roles = dict[str, list[int]]()
    for table in sights.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for sighting in table_to_sightings(table):
            if sighting is not None:
                file, embeddings, areas = sighting
                key = hashlib.sha256(f"{file.item}\0{file.size_bytes}\0{file.mtime_ns}".encode()).hexdigest()[:24]
                roles[file.item] = choose_sources(plan, people, key, file.item, embeddings, areas).tolist()
    options.preserve_order = False
    people.save()
    return [roles.get(file.item) for file in files]


def in_pools(
    plan: Plan, files: Sequence[InputFile], roles: Sequence[list[int] | None] | None = None
) -> Iterator[pa.Table]:
    """The three pools on a Ray that runs; `roles` are the inputs', where those were decided before."""
    pools, book = plan.settings.pools, attempt_book(plan.settings.faults)
    tables = blocks(files, pools.analyse, roles)
    dataset = dataset_of(tables)
    finish = pools.finish
    if files[0].shard:  # a batch becomes a part of its shard: not too many
        finish = finish.model_copy(update={"items": max(finish.items, _MOST_ROWS)})
    for stage, pool in ((AnalyseStage, pools.analyse), (SwapStage, pools.swap), (FinishStage, finish)):
        dataset = in_pool(dataset, stage, plan, pool, len(tables), book)
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def blocks(
    files: Sequence[InputFile], pool: PoolConfig, roles: Sequence[list[int] | None] | None = None
) -> list[pa.Table]:
    """Blocks of inputs: a worker hands one on when all of it is done, so they are small; there are not too many."""
    rows = max(pool.items, min(_MOST_ROWS, len(files) // (8 * pool.workers)))
    tables = [files_to_table(files[i : i + rows]) for i in range(0, len(files), rows)]
    if roles is None:
        return tables
    column = [pa.array(roles[i : i + rows], pa.list_(pa.int64())) for i in range(0, len(files), rows)]
    return [table.append_column("roles", some) for table, some in zip(tables, column, strict=True)]


def pools_needs(pools: PoolsConfig) -> dict[str, Needs]:
    """What the three pools reserve."""
    every = {"analyse": pools.analyse, "swap": pools.swap, "finish": pools.finish}
    return {f"pools.{name}": pool_needs(pool) for name, pool in every.items()}
