"""What became of a job in all, from its books alone; of shards the driver holds counts, and the receipts of some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.media.store import Store
from pipeline.runners.planning import Job
from pipeline.swapping.counts import Counts, count, total
from pipeline.swapping.receipts import RECEIPTS, SCHEMA
from pipeline.swapping.shards.record import SHARD_RECEIPTS, read_records, receipts_of

_SHOWN_SHARDS = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        counts: of all inputs.
        shown: receipts for people to look at: all of them, or those of some shards.
        receipts: name in the output of all receipts: a file, or a folder with a file a shard.
        notes: what could not be kept of shards, whole sentences.
        paths: where an input lies, if not at its name.
    """

    counts: Counts
    shown: pa.Table
    receipts: str
    notes: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)


def outcome_of(job: Job, closing: bool = False) -> Outcome:
    """Read what became of a job.

    Args:
        job: of which every input has ended.
        closing: fold the receipts into one file first.

    Raises:
        OutputError: the books are damaged.
    """
    if job.layout == "files":
        receipts = job.book.close(job.plan.recipe, job.items) if closing else _listed(job)
        return Outcome(count(receipts), receipts, RECEIPTS, paths=job.paths)
    return shards_outcome(job.plan.output(), job.plan.recipe, job.items)


def shards_outcome(store: Store, recipe: str, names: frozenset[str] | None = None) -> Outcome:
    """What became of shards.

    Args:
        store: the output.
        recipe: of the job.
        names: of the shards; None takes all that the output tells of.
    """
    found = sorted(read_records(store).items())
    records = [one for name, one in found if one.recipe == recipe and (names is None or name in names)]
    chosen = np.linspace(0, len(records) - 1, min(_SHOWN_SHARDS, len(records))).astype(int).tolist()
    tables = [SCHEMA.empty_table()]
    for data in store.read_all([receipts_of(records[n].shard) for n in chosen]).values():
        tables.append(pq.read_table(pa.BufferReader(data), schema=SCHEMA))
    notes = tuple(note for record in records for note in record.notes)
    return Outcome(total(record.counts for record in records), pa.concat_tables(tables), SHARD_RECEIPTS, notes)


def _listed(job: Job) -> pa.Table:
    receipts = job.book.read(job.plan.recipe)
    listed = pa.array([item in job.items for item in receipts.column("item").to_pylist()], pa.bool_())
    return receipts.filter(listed)
