"""What is in a shard, and what of it is left to do."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ItemError, StoreError
from pipeline.media.inputs import InputFile
from pipeline.media.shards.reading import ShardReader
from pipeline.swapping.shards.state import ShardState, state_key
from pipeline.swapping.work import End, Plan


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
        items = reader.items(shard.item)
    except ItemError as error:
        return Index(shard, 0, (), End(error.status, error.code, str(error)))
    except FileNotFoundError:
        return Index(shard, 0, (), End("failed", "gone", f"{shard.item}: has gone since it was listed. Run again."))
    except StoreError as error:
        return Index(shard, 0, (), End("failed", "store_error", str(error)))
    key = state_key(shard, plan.recipe)
    done = ShardState(plan.output(), key).done()
    files = [
        InputFile(
            f"{shard.item}/{item.name}", item.size_bytes, shard.mtime_ns, item.problem, shard.item, key, item.offset, n
        )
        for n, item in enumerate(items)
    ]
    return Index(shard, len(items), tuple(file for file in files if file.number not in done))
