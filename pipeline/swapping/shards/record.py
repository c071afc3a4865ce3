"""What became of a shard: written last, so that a shard without it is simply done again.

OUTPUT/_simswap/records/<shard>.json         of what input, by which recipe, and the counts
OUTPUT/_simswap/receipts/<shard>.parquet     a row an image
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline.media.inputs import InputFile
from pipeline.media.shards.side_files import side_files_of
from pipeline.media.store import BOOKS, PARTIAL, Store
from pipeline.swapping.counts import Counts

RECORDS = f"{BOOKS}/records"
SHARD_RECEIPTS = f"{BOOKS}/receipts"
INCOMPLETE = "incomplete_sample"
"""Reason of an image that could be done, and is left out with its sample for another image's sake."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a shard.

    Attributes:
        shard: its name below the inputs; the same below the output.
        recipe: of the job.
        input_bytes: size of the shard in the inputs.
        input_mtime_ns: its modification time.
        output_sha256: of the shard in the output; empty where none was made.
        items: images in it.
        counts: of their receipts.
        notes: what could not be kept, whole sentences.
    """

    shard: str
    recipe: str
    input_bytes: int
    input_mtime_ns: int
    output_sha256: str
    items: int
    counts: Counts
    notes: list[str]

    def is_of(self, shard: InputFile, recipe: str) -> bool:
        """Whether it tells of the shard as it is now, in this recipe."""
        known = (self.shard, self.input_bytes, self.input_mtime_ns, self.recipe)
        return known == (shard.item, shard.size_bytes, shard.mtime_ns, recipe)


def write_record(store: Store, record: Record) -> None:
    """Write the record of a shard.

    Raises:
        OutputError: no room.
    """
    store.write(f"{RECORDS}/{record.shard}.json", json.dumps(asdict(record)).encode(), PARTIAL)


def read_record(store: Store, shard: str) -> Record:
    """The record of a shard; of none where there is none, or a damaged one.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    return _parsed(store.read_or_none(f"{RECORDS}/{shard}.json") or b"") or Record("", "", 0, 0, "", 0, {}, [])


def read_records(store: Store) -> dict[str, Record]:
    """The records of an output by the shard's name; a damaged one counts as none.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    names = [file.name for file in store.list(RECORDS) if file.name.endswith(".json")]
    records = {}
    for data in store.read_all(names).values():
        record = _parsed(data)
        if record is not None:
            records[record.shard] = record
    return records


def files_of(shard: str) -> list[str]:
    """Names in the output of all that a finished shard has: itself, what is beside it, and its books; results first."""
    beside = side_files_of(shard)
    named = [shard, beside.table, beside.stats, receipts_of(shard), f"{RECORDS}/{shard}.json"]
    return [name for name in named if name]


def receipts_of(shard: str) -> str:
    """Name of the file with the receipts of a shard's images."""
    return f"{SHARD_RECEIPTS}/{shard}.parquet"


def _parsed(data: bytes) -> Record | None:
    try:
        return Record(**json.loads(data))
    except (ValueError, TypeError):
        return None
