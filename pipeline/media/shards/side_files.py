"""The files that img2dataset and video2dataset write beside a shard: a row for each sample, and counts.

00000.tar    00000.parquet    00000_stats.json
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.parquet_files import open_parquet, reading, writer_like

FAILED_TO_SWAP = "failed_to_swap"


@dataclass(frozen=True, slots=True)
class SideFiles:
    """Where the side files of a shard are, if it has any.

    Attributes:
        table: Parquet with a row for each sample; empty for a shard that is Parquet itself.
        stats: JSON with counts.
    """

    table: str
    stats: str


def side_files_of(shard: str) -> SideFiles:
    """The names of a shard's side files, by its own name or address."""
    stem = shard.removesuffix(".tar").removesuffix(".parquet")
    return SideFiles("" if shard.endswith(".parquet") else f"{stem}.parquet", f"{stem}_stats.json")


def count_from_stats(data: bytes) -> int | None:
    """How many samples a stats file says are in its shard; None where it does not say."""
    stats = _parsed(data)
    count = None if stats is None else stats.get("successes")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def update_stats(data: bytes, uri: str, done: int, failed: Mapping[str, int]) -> bytes:
    """A stats file after the swap.

    Args:
        data: the file before.
        uri: names it in errors.
        done: samples in the new shard.
        failed: samples that are not, by reason.

    Returns:
        The file with `successes` and the counts in `status_dict` adapted, `failed_to_swap` added, all else kept.

    Raises:
        UnreadableError: not a JSON object.
    """
    stats = _parsed(data)
    if stats is None:
        raise UnreadableError(uri, "not a JSON object", "Replace the file, or delete it: the shard can do without")
    stats |= {"successes": done, FAILED_TO_SWAP: sum(failed.values())}
    counts = stats.get("status_dict")
    if isinstance(counts, dict):
        before = {reason: counts[reason] for reason in failed if isinstance(counts.get(reason), int)}
        added = {reason: before.get(reason, 0) + count for reason, count in failed.items()}
        stats["status_dict"] = counts | {"success": done} | added
    return json.dumps(stats, indent=4).encode()


def update_side_table(
    data: bytes, uri: str, failed: Mapping[str, str], changed: Mapping[str, Mapping[str, object]]
) -> bytes:
    """A side table after the swap.

    Args:
        data: the Parquet file before.
        uri: names it in errors.
        failed: key of a sample that could not be swapped -> the whole sentence why: its `status` becomes
            `failed_to_swap`, its `error_message` the sentence.
        changed: key -> new values by column, for example `width`, `height`, `sha256`; columns that the table lacks
            are not added.

    Returns:
        The file with the same schema, metadata, rows, row groups and compression.

    Raises:
        UnreadableError: damaged, cut off, or not Parquet.
        RefusedInputError: `no_key_column`, or `unsupported`: a value that does not fit its column.
    """
    file = open_parquet(io.BytesIO(data), uri)
    if file.schema_arrow.names.count("key") != 1:
        mend = "Give the table of img2dataset or video2dataset, or delete it"
        raise RefusedInputError(uri, "no column 'key'", mend, code="no_key_column")
    new = {key: dict(values) for key, values in changed.items()}
    for key, sentence in failed.items():
        new[key] = new.get(key, {}) | {"status": FAILED_TO_SWAP, "error_message": sentence}
    target = io.BytesIO()
    with writer_like(target, file, uri) as writer:
        for group in range(file.num_row_groups):
            with reading(uri):
                table = file.read_row_group(group)
            writer.write_table(_updated(table, uri, new), row_group_size=max(len(table), 1))
    return target.getvalue()


def _updated(table: pa.Table, uri: str, new: Mapping[str, Mapping[str, object]]) -> pa.Table:
    """A table in which rows with these keys have these values."""
    with reading(uri):
        keys = table.column("key").cast(pa.string()).cast(pa.large_binary()).to_pylist()
    found = {key.encode("utf-8", "surrogateescape"): values for key, values in new.items()}
    for place, field in enumerate(table.schema):
        rows = [key in found and field.name in found[key] for key in keys]
        if not any(rows) or pa.types.is_null(field.type) or field.name == "key":
            continue
        values = [found[key][field.name] for key, is_new in zip(keys, rows, strict=True) if is_new]
        try:
            column = table.column(place).combine_chunks()
            column = pc.replace_with_mask(column, pa.array(rows), pa.array(values, field.type))
        except (pa.ArrowException, TypeError) as error:
            problem = f"a new value does not fit column '{field.name}' ({error})"
            raise RefusedInputError(uri, problem, code="unsupported") from error
        table = table.set_column(place, field, column)
    return table


def _parsed(data: bytes) -> dict[str, object] | None:
    try:
        stats = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return stats if isinstance(stats, dict) else None
