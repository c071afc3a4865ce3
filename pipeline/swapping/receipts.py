"""Receipts on disk: a part per batch while the job runs, one Parquet file when it is done.

    OUTPUT/_simswap/job.json                  recipe, resolved settings, MLflow run, whether it is finished
    OUTPUT/_simswap/receipts/part-*.parquet   while running
    OUTPUT/_simswap/receipts.parquet       one row for every input

A receipt is written after its output, so an output without one is simply made again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.failpoints import fail_point
from pipeline.media.store import BOOKS, PARTIAL, Store
from pipeline.types import Receipt

RECEIPTS = f"{BOOKS}/receipts.parquet"
_PARTS = f"{BOOKS}/receipts"

_FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("action", pa.string()),
        ("source", pa.string()),
        ("source_cosine_before", pa.float32()),
        ("source_cosine_after", pa.float32()),
        ("owner_cosine_after", pa.float32()),
    ]
)

SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("output", pa.string()),
        ("input_bytes", pa.int64()),
        ("input_mtime_ns", pa.int64()),
        ("input_sha256", pa.string()),
        ("output_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("recipe", pa.string()),
        ("faces", pa.list_(_FACE)),
        ("analyse_s", pa.float64()),
        ("swap_s", pa.float64()),
        ("finish_s", pa.float64()),
        ("finished_at", pa.float64()),
    ]
)


class ReceiptBook:
    """The receipts of one output.

    Args:
        store: the job's output.

    Attributes:
        address: of the one file.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.address = f"{store.address}/{RECEIPTS}"

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Write the receipts of a batch as one part, whole or not at all; from any process."""
        if not receipts:
            return
        name = hashlib.sha256("\n".join(f"{r.item}\t{r.recipe}" for r in receipts).encode()).hexdigest()[:20]
        table = pa.Table.from_pylist([asdict(r) for r in receipts], schema=SCHEMA)
        self._store.write(f"{_PARTS}/part-{name}.parquet", parquet_bytes(table), PARTIAL)
        fail_point("receipts written")

    def is_empty(self) -> bool:
        """Whether nothing has ended yet."""
        return self._store.stat(RECEIPTS) is None and not self._part_names()

    def read(self, recipe: str | None = None) -> pa.Table:
        """The latest receipt of every input, ordered by item.

        Args:
            recipe: only receipts of this recipe; None for all.

        Raises:
            OutputError: a receipt file is damaged.
        """
        tables = [SCHEMA.empty_table(), *self._tables()]
        table = pa.concat_tables(tables)
        if recipe is not None:
            table = table.filter(pc.field("recipe") == recipe)
        order = pc.sort_indices(table, sort_keys=[("item", "ascending"), ("finished_at", "descending")])
        table = table.take(order)
        items = table.column("item").to_pylist()
        first = [i for i, item in enumerate(items) if i == 0 or item != items[i - 1]]
        return table.take(pa.array(first, pa.int64()))

    def close(self, recipe: str, items: Set[str]) -> pa.Table:
        """Fold all parts into the one file: exactly one row for every input.

        Args:
            recipe: of the job.
            items: the inputs there are. Of inputs that are gone only those stay that have a result.

        Returns:
            The rows of `items`.
        """
        parts = self._part_names()
        table = self.read(recipe)
        listed = pa.array([item in items for item in table.column("item").to_pylist()], pa.bool_())
        kept = pc.or_(listed, pc.equal(table.column("status"), "done"))
        self._fold(table.filter(kept), parts)
        return table.filter(listed)

    def forget(self, recipe: str, items: Set[str]) -> None:
        """Drop the receipts of some inputs, so that they are done again."""
        parts = self._part_names()
        table = self.read(recipe)
        kept = pa.array([item not in items for item in table.column("item").to_pylist()], pa.bool_())
        self._fold(table.filter(kept), parts)

    def _fold(self, table: pa.Table, parts: Sequence[str]) -> None:
        """One file instead of the parts that are in it."""
        self._store.write(RECEIPTS, parquet_bytes(table), PARTIAL)
        fail_point("receipts folded")
        self._store.remove_all(parts)
        for folder in (_PARTS, PARTIAL):
            self._store.forget_empty(folder)
        fail_point("parts removed")

    def _part_names(self) -> list[str]:
        return [file.name for file in self._store.list(_PARTS) if file.name.endswith(".parquet")]

    def _tables(self) -> Iterator[pa.Table]:
        for name, data in self._store.read_all([RECEIPTS, *self._part_names()]).items():
            try:
                yield pq.read_table(pa.BufferReader(data), schema=SCHEMA)
            except (pa.ArrowInvalid, OSError) as error:
                subject, mend = f"{self._store.address}/{name}", "Delete it; its inputs are done again"
                raise OutputError(subject, f"is damaged ({error})", mend) from error


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
