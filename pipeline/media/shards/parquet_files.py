"""Parquet files opened for a few large reads, and others written in the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RefusedInputError, UnreadableError

_BUFFER_BYTES = 4 << 20
_STORE_WORDS = ("AWS Error", "google::cloud", "curl")  # of an object store that does not answer


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns what damaged Parquet raises into errors of the shard; what the file system raises passes.

    Raises:
        UnreadableError: cut off, damaged, or not Parquet.
        RefusedInputError: `unsupported`: whole, but of a kind that pyarrow cannot read.
    """
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        mend = "Write it again with another encoding"
        raise RefusedInputError(uri, f"of an unknown kind ({error})", mend, code="unsupported") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(uri, error) from error
    except OSError as error:  # damaged pages too
        if error.errno is not None or any(word in str(error) for word in _STORE_WORDS):
            raise
        raise _damaged(uri, error) from error


def open_parquet(file: BinaryIO, uri: str) -> pq.ParquetFile:
    """A Parquet file of which nothing but the footer is read.

    Raises:
        UnreadableError: cut off, damaged, or not Parquet.
    """
    with reading(uri):
        opened = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
    facts = opened.metadata
    sizes = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
    if sum(sizes) != facts.num_rows or min(sizes, default=0) < 0:
        raise _damaged(uri, f"{facts.num_rows} rows in all, {sum(sizes)} in its row groups")
    return opened


def read_batches(
    file: pq.ParquetFile, uri: str, group: int, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one row group, so many at a time.

    Memory holds them and a page of each column, not the row group; pyarrow writes pages of up to 1024 values, however
    large.

    Raises:
        UnreadableError: damaged.
    """
    with reading(uri):
        batches = file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
    missing = file.metadata.row_group(group).num_rows
    while True:
        with reading(uri):
            batch = next(batches, None)
        missing -= 0 if batch is None else batch.num_rows
        if missing < 0 or (batch is None and missing):
            raise _damaged(uri, f"not as many rows in row group {group} as it says")
        if batch is None:
            return
        yield batch


def writer_like(target: BinaryIO, file: pq.ParquetFile, uri: str) -> pq.ParquetWriter:
    """A writer with the schema, metadata and per-column compression, dictionaries, statistics and indexes of a file.

    Bloom filters, the size of pages and encodings other than plain and dictionary are not kept.

    Raises:
        UnreadableError: damaged.
    """
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(min(metadata.num_row_groups, 1))]
    for number in range(len(groups)):  # a damaged column's facts would end the process; reading it raises
        next(read_batches(file, uri, number, 1), None)
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    with reading(uri):
        codecs = {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}
    return pq.ParquetWriter(
        target,
        file.schema_arrow,
        version=metadata.format_version,
        compression=codecs or "snappy",
        use_dictionary=[column.path_in_schema for column in columns if column.has_dictionary_page],
        write_statistics=[column.path_in_schema for column in columns if column.is_stats_set],
        use_deprecated_int96_timestamps=any(column.physical_type == "INT96" for column in columns),
        store_schema=b"ARROW:schema" in (metadata.metadata or {}),
        write_page_index=any(column.has_offset_index for column in columns),
        sorting_columns=list(groups[0].sorting_columns) or None if groups else None,
    )


def _damaged(uri: str, error: Exception | str) -> UnreadableError:
    return UnreadableError(uri, f"damaged, cut off or not Parquet ({error})", "Copy it again or write it anew")
