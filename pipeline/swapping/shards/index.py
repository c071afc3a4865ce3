"""What is in a shard, and what of it is left to do."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ItemError, RefusedInputError, StoreError
from pipeline.media.inputs import InputFile
from pipeline.media.shards.reading import ShardReader, is_tar
from pipeline.media.shards.shard import ShardItem
from pipeline.media.video import is_video
from pipeline.media.video_joining import result_name
from pipeline.swapping.shards.state import ShardState, state_key
from pipeline.swapping.work import End, Plan

STORE_ERROR = "store_error"
"""Reason of a shard whose store does not answer: what was made of it stays for another try."""


@dataclass(frozen=True, slots=True)
class Index:
    """The images of a shard.

    Attributes:
        shard: the input.
        items: images in it.
        left: those that have not ended.
        end: why the shard gets no result, if it cannot be read.
    """

    shard: InputFile
    items: int
    left: tuple[InputFile, ...]
    end: End | None = None


def index_shard(plan: Plan, shard: InputFile) -> Index:
    """List the images of a shard; of what is wrong with it the index tells."""
    settings = plan.settings
    reader = ShardReader(plan.originals(), settings.shards, settings.storage.concurrency)
    try:
        if shard.problem:  # a pipe would be waited for
            raise RefusedInputError(shard.item, shard.problem, code="not_a_file", status="skipped")
        items = reader.items(shard.item)
    except (ItemError, StoreError, FileNotFoundError) as error:
        return Index(shard, 0, (), shard_end(plan, shard, error))
    key = state_key(shard, plan.recipe)
    done = ShardState(plan.output(), key).done(shard.item)
    files = [
        InputFile(
            f"{shard.item}/{item.name}",
            item.size_bytes,
            shard.mtime_ns,
            _problem(plan, shard, item),
            shard.item,
            key,
            item.offset,
            n,
        )
        for n, item in enumerate(items)
    ]
    return Index(shard, len(items), tuple(file for file in files if file.number not in done))


def _problem(plan: Plan, shard: InputFile, item: ShardItem) -> str:
    """Why an image or video can get no result under its own name; empty when it can."""
    if item.problem or not is_video(item.name):
        return item.problem
    if plan.settings.models is None:
        return "a video, and without models nobody finds faces in it"
    if not is_tar(shard.item):
        return "a video in Parquet; videos are read from tars"
    return "" if result_name(item.name) == item.name else "its container cannot hold a result; .mkv can"


def shard_end(plan: Plan, shard: InputFile, error: Exception) -> End:
    """Why a shard gets no result, from what reading it raised."""
    if isinstance(error, ItemError):
        return End(error.status, error.code, str(error))
    if isinstance(error, FileNotFoundError):
        return End("failed", "gone", f"{shard.item}: has gone since it was listed. Run again.")
    return End("failed", "unreadable" if plan.originals().local is not None else STORE_ERROR, str(error))
