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
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.media.storage import clear_folder, write_atomically
from pipeline.swapping import BOOKS, PARTIAL
from pipeline.types import Receipt

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
    """The receipts of one output folder.

    Args:
        output: the job's output folder.
    """

    def __init__(self, output: str) -> None:
        self.folder = Path(output) / BOOKS
        self.path = self.folder / "receipts.parquet"
        self.partial = Path(output) / PARTIAL
        self._parts = self.folder / "receipts"

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Write the receipts of a batch as one part, whole or not at all; from any process."""
        if not receipts:
            return
        name = hashlib.sha256("\n".join(f"{r.item}\t{r.recipe}" for r in receipts).encode()).hexdigest()[:20]
        table = pa.Table.from_pylist([asdict(r) for r in receipts], schema=SCHEMA)
        write_atomically(self._parts / f"part-{name}.parquet", _parquet(table), self.partial)

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
        parts = self._part_paths()
        table = self.read(recipe)
        listed = pa.array([item in items for item in table.column("item").to_pylist()], pa.bool_())
        kept = pc.or_(listed, pc.equal(table.column("status"), "done"))
        write_atomically(self.path, _parquet(table.filter(kept)))
        for part in parts:
            part.unlink(missing_ok=True)
        with suppress(OSError):  # somebody has added a part meanwhile
            self._parts.rmdir()
        clear_folder(self.partial)
        return table.filter(listed)

    def _part_paths(self) -> list[Path]:
        return sorted(self._parts.glob("part-*.parquet"))

    def _tables(self) -> Iterator[pa.Table]:
        for path in [self.path] * self.path.exists() + self._part_paths():
            try:
                yield pq.read_table(path, schema=SCHEMA)
            except (pa.ArrowInvalid, OSError) as error:
                raise OutputError(str(path), f"is damaged ({error})", "Delete it; its inputs are done again") from error


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
