"""Small datasets as a folder, as tars and as Parquet, and jobs over them in this process, without Ray."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import SwapConfig
from pipeline.faces.table import write_faces
from pipeline.media.store import store_at
from pipeline.runners.books import write_job
from pipeline.runners.planning import Job, plan_job
from pipeline.swapping import FaceSwapper, Plan
from pipeline.swapping.receipts import ReceiptBook
from pipeline.swapping.shards import Made, Record, ShardState, assemble_shard, index_shard
from pipeline.swapping.shards.index import Index
from pipeline.swapping.shards.record import receipts_of
from pipeline.swapping.shards.state import state_key
from pipeline.types import Faces
from tests.factories import ENCODER, no_faces, scene, scene_faces, small_job
from tests.shards import Member, make_parquet, make_tar, member

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@dataclass(frozen=True)
class Picture:
    """A file name, its bytes, and the faces that the analysis table knows; None where it has no row."""

    name: str
    data: bytes
    faces: Faces | None

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[0]


def pictures(count: int, side: int = 96) -> list[Picture]:
    """Portraits in three formats; of every 12 one has no face, one is cut off, and one is not in the table."""
    made = []
    for number in range(count):
        suffix = sorted(FORMATS)[number % 3]
        drawn, buffer = scene(1 + number % 2, seed=number, side=side), io.BytesIO()
        Image.fromarray(drawn.frame).save(buffer, FORMATS[suffix])
        data, faces = buffer.getvalue(), scene_faces(drawn)
        if number % 12 == 4:
            faces = no_faces()
        if number % 12 == 7:
            data = data[: len(data) // 2]
        made.append(Picture(f"{number:05d}.{suffix}", data, None if number % 12 == 9 else faces))
    return made


def in_shards(some: Sequence[Picture], each: int) -> Iterator[tuple[str, Sequence[Picture]]]:
    """The stem of each shard, and what is in it."""
    for first in range(0, len(some), each):
        yield f"{first // each:05d}", some[first : first + each]


def members(some: Sequence[Picture]) -> list[Member]:
    """A picture, its caption and its facts for each."""
    return [
        one
        for p in some
        for one in (member(p.name, p.data), member(f"{p.key}.txt", b"a face"), member(f"{p.key}.json", b"{}", mtime=7))
    ]


def side_table(some: Sequence[Picture]) -> bytes:
    """The table that img2dataset writes beside a tar."""
    count = len(some)
    columns: dict[str, Any] = {"key": [p.key for p in some], "url": ["u"] * count, "status": ["success"] * count}
    columns |= {"error_message": pa.array([None] * count, pa.string()), "width": [1] * count, "sha256": ["x"] * count}
    return make_parquet(columns)


def stats(count: int) -> bytes:
    return json.dumps({"count": count, "successes": count, "status_dict": {"success": count}}).encode()


def as_folder(some: Sequence[Picture]) -> dict[str, bytes]:
    return {p.name: p.data for p in some}


def as_tars(some: Sequence[Picture], each: int) -> dict[str, bytes]:
    """Tars with their side files."""
    files = {}
    for stem, part in in_shards(some, each):
        files[f"{stem}.tar"] = make_tar(members(part))
        files[f"{stem}.parquet"] = side_table(part)
        files[f"{stem}_stats.json"] = stats(len(part))
    return files


def as_parquet(some: Sequence[Picture], each: int) -> dict[str, bytes]:
    """Parquet as Hugging Face datasets write it, with a key."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'}
    schema = pa.schema([("key", pa.string()), ("image", image), ("label", pa.int64())], metadata=metadata)
    files = {}
    for stem, part in in_shards(some, each):
        images = [{"bytes": p.data, "path": p.name} for p in part]
        columns = {"key": [p.name for p in part], "image": images, "label": list(range(len(part)))}
        files[f"{stem}.parquet"] = make_parquet(columns, schema, row_group_size=4)
    return files


def items_of(some: Sequence[Picture], each: int) -> Iterator[tuple[str, Picture]]:
    """Every item that a picture is, in whatever layout."""
    for stem, part in in_shards(some, each):
        for p in part:
            yield p.name, p
            yield f"{stem}.tar/{p.name}", p
            yield f"{stem}.parquet/{p.name}", p


def write_files(address: str, files: Mapping[str, bytes]) -> None:
    store = store_at(address)
    for name, data in files.items():
        store.write(name, data)


def read_files(address: str) -> dict[str, bytes]:
    """What is below an address, books left out."""
    store = store_at(address)
    return store.read_all([file.name for file in store.list() if not file.name.startswith("_simswap/")])


def make_job(root: Path, some: Sequence[Picture], each: int = 12, **changes: Any) -> SwapConfig:
    """A job whose analysis table knows the pictures in whatever layout; its inputs are still to be written."""
    (root / "table").mkdir(parents=True)
    known = [(item, hashlib.sha256(p.data).hexdigest(), p.faces) for item, p in items_of(some, each)]
    write_faces(str(root / "table"), [row for row in known if row[2] is not None], ENCODER.digest)  # type: ignore[misc]
    (root / "in").mkdir()
    return small_job(root, 0, **changes)


def in_layout(settings: SwapConfig, inputs: str, output: str) -> SwapConfig:
    return settings.model_copy(update={"inputs": inputs, "output": output})


@dataclass
class HereJob:
    """A job over shards in this process."""

    plan: Plan
    job: Job
    swapper: FaceSwapper

    @classmethod
    def of(cls, settings: SwapConfig) -> HereJob:
        job = plan_job(settings)
        facts = {"command": "swap", "recipe": job.plan.recipe, "layout": job.layout, "finished": False}
        write_job(settings.output, facts, settings.storage)
        return cls(job.plan, job, FaceSwapper(job.plan))

    def make(self, index: Index, part: int = 5) -> None:
        """The images of a shard into parts, the last ones first."""
        state = ShardState(self.plan.output(), state_key(index.shard, self.plan.recipe))
        left = list(index.left)[::-1]
        for first in range(0, len(left), part):
            works = self.swapper.swap([self.swapper.analyse(file) for file in left[first : first + part]])
            state.add([Made(work.file.number, *self.swapper.finish.make(work)) for work in works])

    def run(self) -> dict[str, Record]:
        """All shards that are left."""
        records = {}
        for shard in self.job.todo:
            index = index_shard(self.plan, shard)
            self.make(index)
            records[shard.item] = assemble_shard(self.plan, shard, index.end)
        return records

    def run_files(self) -> None:
        """All files that are left."""
        ReceiptBook(self.plan.output()).add([self.swapper(file) for file in self.job.todo])

    def receipts(self, shard: str) -> list[dict[str, Any]]:
        data = self.plan.output().read(receipts_of(shard))
        return list(pq.read_table(pa.BufferReader(data)).to_pylist())
