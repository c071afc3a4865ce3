"""A finished shard once more: what failed in it is done again, what was done is kept."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.media.inputs import InputFile
from pipeline.media.store import Store
from pipeline.swapping.receipts import SCHEMA
from pipeline.swapping.shards.record import INCOMPLETE, RECORDS, Record, receipts_of
from pipeline.swapping.shards.state import ShardState, state_key


def receipts_in(store: Store, record: Record) -> pa.Table:
    """The receipts of a shard's images."""
    with store.open(receipts_of(record.shard)) as file:
        return pq.read_table(file, schema=SCHEMA)


def failed_in(store: Store, record: Record) -> pa.Table:
    """The receipts of a shard's images that failed."""
    return receipts_in(store, record).filter(pc.field("status") == "failed")


def reopen_shard(store: Store, record: Record, reasons: Collection[str]) -> None:
    """Have the failures of a shard done again; all else of it is kept.

    Args:
        store: the output.
        record: of the shard.
        reasons: that count; none for all.

    Raises:
        OutputError: no room.
    """
    if reasons and not record.output_sha256 and not set(reasons) & set(record.counts["reasons"]):
        return
    if record.output_sha256:
        table = receipts_in(store, record)
        again = pc.equal(table.column("status"), "failed")
        if reasons:
            wanted = pc.is_in(table.column("reason"), pa.array(list(reasons)))
            if not pc.any(pc.and_(again, wanted)).as_py():
                return
            wanted = pc.or_(wanted, pc.equal(table.column("reason"), INCOMPLETE))  # it may be whole afterwards
            again = pc.and_(again, wanted)
        shard = InputFile(record.shard, record.input_bytes, record.input_mtime_ns)
        table = table.append_column("number", pa.array(range(len(table)), pa.int64())).filter(pc.invert(again))
        ShardState(store, state_key(shard, record.recipe)).keep(table)
    store.remove(f"{RECORDS}/{record.shard}.json")
