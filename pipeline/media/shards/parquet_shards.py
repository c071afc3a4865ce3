"""Parquet shards: a row for each sample, with the bytes of its image in a column."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import accumulate
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RefusedInputError
from pipeline.media.shards.parquet_files import open_parquet, read_batches, reading, writer_like
from pipeline.media.shards.shard import HEAD_BYTES, NOT_UTF8, ShardItem, guessed_suffix, name_problem, shown

NO_IMAGE = "no image in its row"
ONLY_A_PATH = "a path in its row, but no bytes"
KEY_COLUMNS = ("key", "id", "__key__")

_BATCH_BYTES = 16 << 20
_MOST_BATCH_ROWS = 32  # few: a small file can refer to one huge value in every row
_MOST_GROUP_BYTES = 8 << 30


class ParquetShard:
    """The images in a Parquet file.

    Rows are read a few at a time (up to 16 MB, and the file's own page, which may be larger): going forward reads
    everything once, going back begins the row group again.

    Args:
        file: can seek; stays open.
        uri: names the shard in errors.
        image_column: bytes of the images: binary, or a struct with binary `bytes` as Hugging Face datasets has; empty
            takes the only column of these kinds.
        key_column: strings or whole numbers, each once; empty takes the first of `key`, `id`, `__key__` that fits,
            else the number of the row.

    Raises:
        UnreadableError: cut off, damaged, or not Parquet.
        RefusedInputError: `no_image_column` or `no_key_column`.
    """

    def __init__(self, file: BinaryIO, uri: str, image_column: str = "", key_column: str = "") -> None:
        self.file, self.uri = open_parquet(file, uri), uri
        self.image_column = _image_column(self.file.schema_arrow, uri, image_column)
        self._keys = self._read_keys(key_column)
        self._taken = frozenset(self._keys or ())
        metadata = self.file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = list(accumulate(sizes, initial=0))
        self._group, self._first_row, self._batch = -1, 0, pa.array([], pa.binary())
        self._ahead: Iterator[pa.RecordBatch] = iter(())

    @property
    def num_groups(self) -> int:
        """Row groups in the file."""
        return len(self._starts) - 1

    def rows(self, group: int) -> range:
        """The rows of a row group."""
        return range(self._starts[group], self._starts[group + 1])

    def items(self, groups: Iterable[int] | None = None) -> Iterator[ShardItem]:
        """One item for each row, in order; this reads the images, so `read` an item before asking for the next.

        Args:
            groups: which row groups; None takes all.

        Raises:
            UnreadableError: damaged.
        """
        for group in range(self.num_groups) if groups is None else groups:
            row = self._starts[group]
            for batch in self._batches(group):
                self._group, self._first_row, self._batch = group, row, batch.column(0)
                self._ahead = iter(())
                yield from self.described(row, batch.column(0))
                row += batch.num_rows

    def read(self, row: int) -> bytes:
        """The image of a row.

        Raises:
            UnreadableError: damaged.
            RefusedInputError: the row holds none.
        """
        self._go_to(row)
        column, index = self._batch, row - self._first_row
        image = image_bytes(column)[index]
        if not image.is_valid:
            raise RefusedInputError(f"{self.uri}/{row}", _missing(column, index), code="no_image")
        return bytes(image.as_buffer())

    def described(self, first_row: int, column: pa.Array) -> Iterator[ShardItem]:
        """The items of consecutive rows.

        Args:
            first_row: number of the first.
            column: their values in the image column.
        """
        for index, image in enumerate(image_bytes(column)):
            row = first_row + index
            stored = str(row) if self._keys is None else self._keys[row]
            key = shown(stored)
            problem = name_problem(key) or (NOT_UTF8 if key != stored else "")
            if not image.is_valid:
                yield ShardItem(key, key, row, 0, problem or _missing(column, index))
                continue
            data = image.as_buffer()
            yield ShardItem(key, self._name(key, data.slice(0, min(HEAD_BYTES, data.size))), row, data.size, problem)

    def batch_rows(self, group: int) -> int:
        """How many rows to read at once, by their mean size."""
        facts = self.file.metadata.row_group(group)
        return int(max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES * facts.num_rows // max(facts.total_byte_size, 1))))

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        return read_batches(self.file, self.uri, group, self.batch_rows(group), [self.image_column])

    def _go_to(self, row: int) -> None:
        """Reads on, or begins the row group again, until the batch holds the row."""
        group = bisect_right(self._starts, row) - 1
        if not 0 <= group < self.num_groups:
            raise IndexError(row)
        for _ in range(2):
            while group == self._group and row >= self._first_row:
                if row < self._first_row + len(self._batch):
                    return
                if (batch := next(self._ahead, None)) is None:
                    break
                self._first_row, self._batch = self._first_row + len(self._batch), batch.column(0)
            self._group, self._first_row, self._batch = group, self._starts[group], self._batch.slice(0, 0)
            self._ahead = self._batches(group)
        raise IndexError(row)

    def _name(self, key: str, head: pa.Buffer) -> str:
        named = key if PurePosixPath(key).suffix else key + guessed_suffix(head.to_pybytes())
        return key if named in self._taken else named

    def _read_keys(self, wanted: str) -> list[str] | None:
        """The key of each row; None where rows go by their number."""
        names = self.file.schema_arrow.names
        for name in (wanted,) if wanted else KEY_COLUMNS:
            keys = self._column_keys(name) if names.count(name) == 1 else []
            if len(set(keys)) == self.file.metadata.num_rows:
                return keys
        if wanted:
            problem = f"no column '{wanted}' of strings or whole numbers, each once; it has {', '.join(names)}"
            raise RefusedInputError(self.uri, problem, "Name another, or none", code="no_key_column")
        return None

    def _column_keys(self, name: str) -> list[str]:
        """The values of a column as strings; none where it is of another kind or holds nulls."""
        kind = self.file.schema_arrow.field(name).type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (is_text or pa.types.is_integer(kind)):
            return []
        with reading(self.uri):
            column = self.file.read([name]).column(name)
        if column.null_count:
            return []
        values = column.cast(pa.large_binary()) if is_text else column
        return [value.decode("utf-8", "surrogateescape") if is_text else str(value) for value in values.to_pylist()]


def rewrite_parquet(
    shard: ParquetShard, target: BinaryIO, results: Callable[[str], bytes | None], dropped: Set[str]
) -> None:
    """Write a Parquet shard again with other images in it.

    Schema, metadata, rows, row groups, compression and the other columns stay. Memory holds one row group, and once
    more as it is encoded. The same input and results give the same bytes. After an error the target is not to be used.

    Args:
        shard: the source.
        target: only written to, forward.
        results: new bytes of the item of that name; None keeps the old. Asked once for each item without a problem.
        dropped: keys of rows that lose their image: null where the schema allows it, else no bytes; the row stays.

    Raises:
        UnreadableError: damaged.
        RefusedInputError: `too_large`: a row group above 8 GiB.
    """
    schema = shard.file.schema_arrow
    place = schema.get_field_index(shard.image_column)
    with writer_like(target, shard.file, shard.uri) as writer:
        for group in range(shard.num_groups):
            batches, row, size_bytes = [], shard.rows(group).start, 0
            for batch in read_batches(shard.file, shard.uri, group, shard.batch_rows(group)):
                columns = batch.columns
                changed = _changed(shard.described(row, columns[place]), row, results, dropped)
                columns[place] = _with_images(columns[place], schema.field(place), changed)
                batches.append(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
                row += batch.num_rows
                size_bytes += batch.nbytes
                if size_bytes > _MOST_GROUP_BYTES:
                    problem = f"row group {group} takes more than {_MOST_GROUP_BYTES} bytes"
                    raise RefusedInputError(shard.uri, problem, "Write it in smaller row groups", code="too_large")
            writer.write_table(pa.Table.from_batches(batches, schema), row_group_size=max(row, 1))


def image_bytes(column: pa.Array) -> pa.Array:
    """The bytes in a column of images, null where there are none."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _changed(
    items: Iterator[ShardItem], first_row: int, results: Callable[[str], bytes | None], dropped: Set[str]
) -> dict[int, bytes | None]:
    """New bytes by the place in the batch; None for what is dropped."""
    changed: dict[int, bytes | None] = {}
    for item in items:
        if item.key in dropped:
            changed[item.offset - first_row] = None
        elif not item.problem and (data := results(item.name)) is not None:
            changed[item.offset - first_row] = data
    return changed


def _with_images(column: pa.Array, field: pa.Field, changed: dict[int, bytes | None]) -> pa.Array:
    """A column of images in which some are others."""
    if not changed:
        return column
    is_struct = pa.types.is_struct(field.type)
    bytes_field = field.type.field("bytes") if is_struct else field
    nothing = None if bytes_field.nullable or field.nullable else b""
    new = {index: nothing if data is None else data for index, data in changed.items()}
    old = image_bytes(column)
    images = pa.array([new[i] if i in new else old[i].as_py() for i in range(len(old))], bytes_field.type)
    if not is_struct:
        return images
    parts = [images if part.name == "bytes" else column.field(i) for i, part in enumerate(field.type)]
    is_null = [
        not column[i].is_valid or (field.nullable and i in changed and changed[i] is None) for i in range(len(old))
    ]
    return pa.StructArray.from_arrays(parts, fields=list(field.type), mask=pa.array(is_null, pa.bool_()))


def _image_column(schema: pa.Schema, uri: str, wanted: str) -> str:
    """Name of the column with the images."""
    fitting = [field.name for field in schema if _holds_images(field.type) and schema.names.count(field.name) == 1]
    if wanted in fitting:
        return wanted
    if not wanted and len(fitting) == 1:
        return str(fitting[0])
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    problem = f"no column '{wanted}' of image bytes" if wanted else f"{len(fitting)} columns could hold the images"
    raise RefusedInputError(uri, f"{problem}; it has {listed}", "Name one of binary values", code="no_image_column")


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        fields = [field for field in kind if field.name == "bytes"]
        return len(fields) == 1 and not pa.types.is_struct(fields[0].type) and _holds_images(fields[0].type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _missing(column: pa.Array, index: int) -> str:
    return ONLY_A_PATH if pa.types.is_struct(column.type) and column[index].is_valid else NO_IMAGE
