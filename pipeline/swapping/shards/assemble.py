"""The parts of a shard put together: a shard of the same name, layout and order, then its receipts, then its record."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.errors import ItemError, OutputError, RefusedInputError, StoreError, UnreadableError
from pipeline.faces.packs import file_digest
from pipeline.failpoints import fail_point
from pipeline.media.inputs import IMAGE_SUFFIXES, InputFile
from pipeline.media.shards.parquet_shards import ParquetShard, rewrite_parquet
from pipeline.media.shards.reading import ShardReader, is_tar
from pipeline.media.shards.shard import ShardItem
from pipeline.media.shards.side_files import side_files_of, update_side_table, update_stats
from pipeline.media.shards.tars import rewrite_tar
from pipeline.media.store import PARTIAL
from pipeline.media.video import VIDEO_SUFFIXES
from pipeline.swapping.counts import count
from pipeline.swapping.receipts import SCHEMA, parquet_bytes
from pipeline.swapping.shards.index import STORE_ERROR, shard_end
from pipeline.swapping.shards.record import Record, files_of, read_record, receipts_of, write_record
from pipeline.swapping.shards.samples import whole_samples
from pipeline.swapping.shards.state import ShardState, state_key
from pipeline.swapping.work import End, Plan
from pipeline.types import Receipt

_PICTURES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def assemble_shard(plan: Plan, shard: InputFile, end: End | None = None) -> Record:
    """Put a shard together of which every image has ended, and make it visible whole or not at all.

    Args:
        plan: of the job.
        shard: the input.
        end: why it gets no result, where it could not even be read.

    Returns:
        What became of it.

    Raises:
        OutputError: the output cannot be written.
    """
    state, store = ShardState(plan.output(), state_key(shard, plan.recipe)), plan.output()
    receipts, digest, items, notes = SCHEMA.empty_table(), "", 0, list[str]()
    if end is None:
        try:
            receipts, digest, items, notes = _made(plan, shard, state)
        except _TwiceError:
            state.remove()
            return read_record(store, shard.item)
        except (ItemError, StoreError, FileNotFoundError) as error:
            end = shard_end(plan, shard, error)
    if end is not None:
        receipts = pa.Table.from_pylist([asdict(_receipt(plan, shard, end))], schema=SCHEMA)
        store.remove_all(files_of(shard.item))
    store.write(receipts_of(shard.item), parquet_bytes(receipts), PARTIAL)
    fail_point("shard receipts written", shard.item)
    record = Record(shard.item, plan.recipe, shard.size_bytes, shard.mtime_ns, digest, items, count(receipts), notes)
    write_record(store, record)
    fail_point("shard record written", shard.item)
    if end is None or end.code != STORE_ERROR:
        state.remove()
    return record


class _TwiceError(Exception):
    """The shard was put together before, by a worker that died before it could say so."""


def _made(plan: Plan, shard: InputFile, state: ShardState) -> tuple[pa.Table, str, int, list[str]]:
    """Receipts of the images, digest of the new shard, how many images it has, and what could not be kept."""
    store, settings = plan.output(), plan.settings
    _check_unchanged(plan, shard)
    items = ShardReader(plan.originals(), settings.shards, 1).items(shard.item)
    found = state.receipts()
    if found.column("number").to_pylist() != list(range(len(items))):
        if read_record(store, shard.item).is_of(shard, plan.recipe):  # it died while it removed the parts
            raise _TwiceError
        _check_unchanged(plan, shard)
        raise OutputError(f"{store.address}/{shard.item}", "its parts are not all there", "Run the same command again")
    found, failed = whole_samples(items, found) if items else (found, {})
    rows = found.select(["status", "kept", "part", "row"]).to_pylist() if items else []
    carried = list[str]()
    results = _results(plan, shard, state, items, rows, carried)
    with store.making(shard.item) as path:
        notes = plan.originals().tried(shard.item, lambda: _rewrite(plan, shard, path, results, failed))
        digest = file_digest(str(path))
        _check_unchanged(plan, shard)
    fail_point("shard written", shard.item)
    receipts = found.select(SCHEMA.names).cast(SCHEMA)
    notes += _carried_note(shard, carried)
    notes += _write_side_files(plan, shard, items, receipts, failed)
    fail_point("side files written", shard.item)
    return receipts, digest, len(items), notes


def _results(
    plan: Plan,
    shard: InputFile,
    state: ShardState,
    items: Sequence[ShardItem],
    rows: Sequence[Mapping[str, Any]],
    carried: list[str],
) -> Callable[[str], bytes | None]:
    """New bytes by an item's name; those that are kept come from the shard that is in the output.

    Args:
        plan: of the job.
        shard: the input.
        state: with its parts.
        items: of the shard.
        rows: what became of each.
        carried: gets the names that were asked for in vain.
    """
    places = {item.name: row for item, row in zip(items, rows, strict=True) if not item.problem}
    kept, reader = dict[str, ShardItem](), ShardReader(plan.output(), plan.settings.shards, 1)
    if any(row["kept"] for row in rows):
        kept = {item.name: item for item in reader.items(shard.item)}

    def result(name: str) -> bytes | None:
        row = places.get(name)
        if row is None:
            carried.append(name)
        if row is None or row["status"] != "done":
            return None
        if row["kept"]:
            item = kept[name]
            place = InputFile(name, item.size_bytes, 0, shard=shard.item, offset=item.offset).place
            return reader.read(place)
        return state.data(row["part"], row["row"])

    return result


def _rewrite(
    plan: Plan, shard: InputFile, path: Path, results: Callable[[str], bytes | None], failed: Mapping[str, str]
) -> list[str]:
    """Write the new shard; gives notes on what is not in it any more."""
    originals, settings = plan.originals(), plan.settings.shards
    uri = f"{originals.address}/{shard.item}"
    try:
        with originals.open(shard.item) as source, open(path, "wb") as target:
            if is_tar(shard.item):
                hostile = rewrite_tar(source, target, uri, results, failed.keys())
                return [f"{shard.item}: left out as hostile: {', '.join(hostile[:20])}."] if hostile else []
            read = ParquetShard(source, uri, settings.image_column, settings.key_column)
            rewrite_parquet(read, target, results, failed.keys())
            return []
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise  # reading failed
        raise OutputError(str(path), f"cannot be written ({error.strerror})", "Make room or choose another") from error


def _carried_note(shard: InputFile, carried: Sequence[str]) -> list[str]:
    """What looks like a picture and was none by the settings: it is in the result as it was."""
    pictures = sorted({name for name in carried if PurePosixPath(f"x{name}").suffix.lower() in _PICTURES})
    if not pictures:
        return []
    some = ", ".join(pictures[:5])
    return [f"{shard.item}: {len(pictures)} members look like pictures or films and are as they were: {some}."]


def _check_unchanged(plan: Plan, shard: InputFile) -> None:
    found = plan.originals().stat(shard.item)
    if found is None or (found.size_bytes, found.mtime_ns) != (shard.size_bytes, shard.mtime_ns):
        raise RefusedInputError(shard.item, "changed while it was worked on", "Run again", "changed")


def _write_side_files(
    plan: Plan, shard: InputFile, items: Sequence[ShardItem], receipts: pa.Table, failed: Mapping[str, str]
) -> list[str]:
    """The files of img2dataset beside the shard, if there are any; one that is damaged is left out, with a note."""
    facts = receipts.select(["status", "reason", "width", "height", "output_sha256"]).to_pylist()
    names, store = side_files_of(shard.item), plan.output()
    changed = {
        item.key: {"width": row["width"], "height": row["height"], "sha256": row["output_sha256"]}
        for item, row in zip(items, facts, strict=True)
        if row["status"] == "done"
    }
    reasons = {item.key: row["reason"] for item, row in zip(items, facts, strict=True) if item.key in failed}
    done = len({item.key for item in items} - failed.keys())
    counted = dict(Counter(reasons.values()))
    updates: tuple[tuple[str, Callable[[bytes, str], bytes]], ...] = (
        (names.table, lambda data, uri: update_side_table(data, uri, failed, changed)),
        (names.stats, lambda data, uri: update_stats(data, uri, done, counted)),
    )
    notes = []
    for name, update in updates:
        data = plan.originals().read_or_none(name) if name else None
        if data is not None:
            try:
                store.write(name, update(data, f"{plan.originals().address}/{name}"), PARTIAL)
            except (UnreadableError, RefusedInputError) as error:
                store.remove(name)
                notes.append(f"{error} It was left out.")
    return notes


def _receipt(plan: Plan, shard: InputFile, end: End) -> Receipt:
    """The one receipt of a shard that gets no result."""
    return Receipt(
        item=shard.item, status=end.status, reason=end.code, detail=end.detail, output="",
        input_bytes=shard.size_bytes, input_mtime_ns=shard.mtime_ns, input_sha256="", output_sha256="",
        width=0, height=0, recipe=plan.recipe, faces=(), analyse_s=0.0, swap_s=0.0, finish_s=0.0,
        finished_at=time.time(),
    )  # fmt: skip
