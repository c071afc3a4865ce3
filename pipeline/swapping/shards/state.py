"""What is done of a shard so far: results and receipts together, in parts that are there whole or not at all.

OUTPUT/_simswap/shards/<digest of shard and recipe>/part-<numbers>.parquet   a row an image: receipt and bytes
OUTPUT/_simswap/shards/<digest of shard and recipe>/kept-<numbers>.parquet   the same, bytes in the output's shard
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError, StoreError
from pipeline.failpoints import fail_point
from pipeline.media.inputs import InputFile
from pipeline.media.store import BOOKS, PARTIAL, Store
from pipeline.swapping.receipts import SCHEMA
from pipeline.types import Receipt

SHARDS = f"{BOOKS}/shards"
"""Folder in an output for shards that are being worked on."""

_PART_SCHEMA = pa.schema([*SCHEMA, ("number", pa.int64()), ("kept", pa.bool_()), ("data", pa.large_binary())])
_OPEN_PARTS = 3
_READ_TOGETHER = 8
_MOST_RUNS = 8


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one image of a shard.

    Attributes:
        number: its place among the shard's images.
        receipt: of it.
        data: the result, encoded; empty where there is none.
    """

    number: int
    receipt: Receipt
    data: bytes


class ShardState:
    """The parts of one shard.

    Args:
        store: the output.
        key: of the shard as it is now, in this recipe (`state_key`).
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._folder = store, f"{SHARDS}/{key}"
        self._open: OrderedDict[str, pa.ChunkedArray] = OrderedDict()
        self._parts: list[str] = []

    def add(self, made: Sequence[Made]) -> None:
        """Keep what became of some images.

        Raises:
            OutputError: no room.
        """
        rows = [asdict(m.receipt) | {"number": m.number, "kept": False, "data": m.data} for m in made]
        self._write(pa.Table.from_pylist(rows, schema=_PART_SCHEMA))

    def keep(self, receipts: pa.Table) -> None:
        """Keep images of a shard that is in the output already.

        Args:
            receipts: of them, with `number`.

        Raises:
            OutputError: no room.
        """
        table = receipts.append_column("kept", pc.equal(receipts.column("status"), "done"))
        table = table.append_column("data", pa.array([b""] * len(table), pa.large_binary()))
        self._write(table.cast(_PART_SCHEMA), "kept")

    def _write(self, table: pa.Table, kind: str = "part") -> None:
        """Rows as parts, each named by not too many runs of numbers."""
        table = table.sort_by("number")
        runs = _runs(table.column("number").to_pylist())
        for first in range(0, len(runs), _MOST_RUNS):
            some = runs[first : first + _MOST_RUNS]
            inside = pc.and_(
                pc.greater_equal(table.column("number"), some[0][0]), pc.less_equal(table.column("number"), some[-1][1])
            )
            buffer = io.BytesIO()
            pq.write_table(table.filter(inside), buffer, compression="none")
            name = "_".join(f"{begin}-{end}" for begin, end in some)
            self._store.write(f"{self._folder}/{kind}-{name}.parquet", buffer.getvalue(), PARTIAL)
            fail_point("part written", name)

    def done(self, shard: str) -> set[int]:
        """Numbers of the images that have ended.

        Args:
            shard: its name; where it has gone from the output, nothing of it is kept any more.
        """
        names = self._names()
        kept = [name for name in names if name.startswith(f"{self._folder}/kept-")]
        if kept and self._store.stat(shard) is None:
            self._store.remove_all(kept)
            names = [name for name in names if name not in kept]
        return {number for name in names for number in _numbers(name)}

    def receipts(self) -> pa.Table:
        """Receipts of all that have ended, with `number`, `kept`, `part` and `row`; by number, one each.

        Raises:
            OutputError: a part cannot be read.
        """
        tables = [SCHEMA.append(pa.field("number", pa.int64())).append(pa.field("kept", pa.bool_())).empty_table()]
        self._parts = self._names()
        columns = [*SCHEMA.names, "number", "kept"]
        with ThreadPoolExecutor(_READ_TOGETHER) as pool:
            parts = list(pool.map(lambda name: self._read(name, columns), self._parts))
        for place, table in enumerate(parts):
            table = table.append_column("part", pa.array([place] * len(table), pa.int64()))
            tables.append(table.append_column("row", pa.array(range(len(table)), pa.int64())))
        table = pa.concat_tables(tables, promote_options="default").sort_by([("number", "ascending")])
        numbers = table.column("number").to_pylist()
        return table.take(
            pa.array([n for n, value in enumerate(numbers) if n == 0 or value != numbers[n - 1]], pa.int64())
        )

    def data(self, part: int, row: int) -> bytes:
        """The result of an image, by the part and row that `receipts` has told.

        Raises:
            OutputError: the part cannot be read.
        """
        name = self._parts[part]
        if name not in self._open:
            self._open[name] = self._read(name, ["data"]).column("data")
            while len(self._open) > _OPEN_PARTS:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return bytes(self._open[name][row].as_buffer())

    def remove(self) -> None:
        """Forget all of it."""
        self._store.remove_folder(self._folder)
        self._store.forget_empty(SHARDS)

    def _read(self, name: str, columns: list[str]) -> pa.Table:
        """Some columns of a part.

        Raises:
            OutputError: it cannot be read.
        """

        def read() -> pa.Table:
            with self._store.open(name) as file:
                return pq.read_table(file, columns=columns, use_threads=False)

        try:
            return self._store.tried(name, read)
        except (StoreError, FileNotFoundError) as error:
            subject, mend = f"{self._store.address}/{name}", "Run the same command again"
            raise OutputError(subject, f"cannot be read ({error})", mend) from error

    def _names(self) -> list[str]:
        return [file.name for file in self._store.list(self._folder) if file.name.endswith(".parquet")]


def images_at_work(store: Store) -> int:
    """How many images have ended whose shard is not put together."""
    return sum(1 for file in store.list(SHARDS) for _ in _numbers(file.name))


def state_key(shard: InputFile, recipe: str) -> str:
    """What tells a shard, as it is now and for a recipe, from others."""
    facts = f"{shard.item}\0{shard.size_bytes}\0{shard.mtime_ns}\0{recipe}"
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def forget_other_shards(store: Store, keys: Collection[str]) -> None:
    """Remove the state of all shards but some: of those that have changed or gone, or of another recipe."""
    for key in {file.name.split("/")[2] for file in store.list(SHARDS)} - set(keys):
        store.remove_folder(f"{SHARDS}/{key}")
    store.forget_empty(SHARDS)


def by_shard(made: Iterable[tuple[InputFile, Made]]) -> Mapping[str, list[Made]]:
    """What was made, by the state of its shard."""
    groups: dict[str, list[Made]] = {}
    for file, one in made:
        groups.setdefault(file.state, []).append(one)
    return groups


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as runs, each from first to last: a part is named by them, `part-12-43_57-57`."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _numbers(name: str) -> Iterable[int]:
    said = name.rpartition("/")[2].partition("-")[2].removesuffix(".parquet")
    for run in said.split("_"):
        first, _, last = run.partition("-")
        yield from range(int(first), int(last) + 1)
