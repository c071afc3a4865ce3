"""From finished blocks to a set: everybody's embedding, the index, what became of every photograph, the header."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PrepareConfig
from pipeline.errors import OutputError
from pipeline.media.local_files import write_atomically
from pipeline.media.store import PARTIAL
from pipeline.preparation.dataset import (
    EMBEDDINGS,
    HEADER,
    INDEX,
    INDEX_COLUMNS,
    DatasetHeader,
    header_json,
    shard_name,
)
from pipeline.preparation.listing import Block
from pipeline.preparation.people import People
from pipeline.preparation.shards import RECEIPT_COLUMNS, parquet, read_embeddings, read_receipts
from pipeline.types import Floats, Ints

PHOTOS = "photos.parquet"

_ROWS = 65536
"""Embeddings copied at a time."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """All photographs of a job, and the M faces in its shards, in the order of the shards.

    Attributes:
        receipts: a row a photograph.
        photo: [M] row of the receipts that each face is in.
        shard: [M] number of the shard it is in.
        row: [M] its row there.
        embeddings: [M, E] f32, mapped from a file that goes when the job ends.
    """

    receipts: pa.Table
    photo: Ints
    shard: Ints
    row: Ints
    embeddings: Floats

    def labels(self) -> list[str]:
        """Labelled identity of every face; empty where nothing says so."""
        return list(pc.fill_null(self.receipts.column("identity"), "").take(pa.array(self.photo)).to_pylist())


def gather(output: str, blocks: Sequence[Block]) -> Gathered:
    """What finished blocks hold, without the crops.

    Raises:
        OutputError: a shard and its receipts do not agree.
    """
    receipts = read_receipts(output, blocks)
    kept = receipts.column("faces_kept").to_numpy().astype(np.int64)
    photo = np.repeat(np.arange(len(kept)), kept)
    ends = np.cumsum([0] + [len(block.photos) for block in blocks])
    sizes = [int(kept[a:b].sum()) for a, b in pairwise(ends)]
    embeddings = _everybody(output, sizes)
    row = np.concatenate([np.arange(size) for size in sizes])
    return Gathered(receipts, photo, np.repeat(np.arange(len(sizes)), sizes), row, embeddings)


def photos_table(gathered: Gathered, people: People, settings: PrepareConfig) -> pa.Table:
    """The receipts with what was decided about identities, ordered by path."""
    receipts = gathered.receipts
    kept = np.bincount(gathered.photo, people.kept, receipts.num_rows).astype(np.int32)
    changed = {name: receipts.column(name).to_pylist() for name in ("identity", "cosine", "status", "reason", "detail")}
    for place, face in zip(*np.unique(gathered.photo, return_index=True), strict=True):
        changed["identity"][place] = people.names[people.identity[face]]
        changed["cosine"][place] = None if np.isnan(people.cosine[face]) else float(people.cosine[face])
        if not kept[place]:
            changed["status"][place] = "dropped"
            changed["reason"][place] = "outlier" if people.outlier[face] else "too_few_photos"
            changed["detail"][place] = f"{receipts['path'][place]}: {_why(people, int(face), settings)}."
    columns = {name: receipts.column(name) for name in RECEIPT_COLUMNS.names} | changed | {"faces_kept": kept}
    return pa.table(columns, schema=RECEIPT_COLUMNS).sort_by("path")


def write_set(output: str, gathered: Gathered, people: People) -> None:
    """Write the index and the embeddings: all of the set but its header."""
    kept = np.flatnonzero(people.kept)
    names = pa.array(people.names, pa.string()).take(pa.array(people.identity[kept]))
    columns = [pa.array(gathered.shard[kept], pa.int32()), pa.array(gathered.row[kept], pa.int32()), names]
    write_atomically(Path(output) / INDEX, parquet(pa.table(columns, schema=INDEX_COLUMNS)))
    unfinished = Path(output) / PARTIAL / EMBEDDINGS
    mapped = _array_file(unfinished, (len(kept), gathered.embeddings.shape[1]))
    for start in range(0, len(kept), _ROWS):
        mapped[start : start + _ROWS] = gathered.embeddings[kept[start : start + _ROWS]]
    mapped.flush()
    unfinished.replace(Path(output) / EMBEDDINGS)


def write_header(output: str, header: DatasetHeader) -> None:
    """Say that the set is complete."""
    write_atomically(Path(output) / HEADER, header_json(header))


def set_digest(recipe: str, photos: pa.Table) -> str:
    """sha256 over the recipe and every photograph, hex: the same set again has the same."""
    digest = hashlib.sha256(recipe.encode())
    for path, sha256 in zip(photos.column("path").to_pylist(), photos.column("sha256").to_pylist(), strict=True):
        digest.update(f"\n{path}\0{sha256}".encode())
    return digest.hexdigest()


def _everybody(output: str, sizes: Sequence[int]) -> Floats:
    """The embeddings of all shards, in a file that is mapped."""
    everybody: Floats = np.zeros((0, 0), np.float32)
    start = 0
    for number, size in enumerate(sizes):
        if not size:
            continue
        embeddings = read_embeddings(output, number)
        if len(embeddings) != size:
            where, problem = f"{output}/{shard_name(number)}", f"holds {len(embeddings)} faces, its receipts say {size}"
            raise OutputError(where, problem, "Delete it; the same command makes it again")
        if not len(everybody):
            everybody = _array_file(Path(output) / PARTIAL / "faces.npy", (sum(sizes), embeddings.shape[1]))
        everybody[start : start + size] = embeddings
        start += size
    return everybody


def _array_file(path: Path, shape: tuple[int, int]) -> np.memmap[tuple[int, ...], np.dtype[np.float32]]:
    """A new .npy file of f32, mapped for writing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), shape)
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror})", "Make room or choose another") from error


def _why(people: People, face: int, settings: PrepareConfig) -> str:
    """The sentence for a face that the decision about identities dropped."""
    if people.outlier[face]:
        least = settings.filters.outlier_cosine
        return (
            f"cosine {people.cosine[face]:.2f} to the mean of its identity's other photographs, the least is {least:g}"
        )
    return f"too few photographs of its identity are left, the least is {settings.filters.min_photos}"
