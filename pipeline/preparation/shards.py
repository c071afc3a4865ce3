"""Blocks on disk: a shard with the faces that are kept, and a receipt for every photograph.

    OUTPUT/shards/00000.parquet              the faces
    OUTPUT/_simswap/receipts/00000.parquet   the photographs; written after the shard

Both carry the digest of their block, so that a block that has both files with the right digest is done.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.media.local_files import write_atomically
from pipeline.media.store import BOOKS, PARTIAL
from pipeline.preparation.dataset import SHARD_COLUMNS, shard_name
from pipeline.preparation.listing import Block
from pipeline.preparation.prepare import Prepared
from pipeline.types import Floats

BLOCK_KEY = b"simswap_block"

RECEIPT_COLUMNS = pa.schema(
    [
        ("path", pa.string()),  # below the inputs
        ("identity", pa.string()),  # as labelled, or found by clustering; null where nothing says so
        ("status", pa.string()),  # kept or dropped
        ("reason", pa.string()),  # code; empty when kept
        ("detail", pa.string()),  # the whole sentence
        ("faces_found", pa.int32()),
        ("faces_kept", pa.int32()),
        ("cosine", pa.float32()),  # of its face to the identity's other photographs; null where there are none
        ("box", pa.list_(pa.float32())),  # 4, of the face that was judged first, photograph pixels
        ("face_px", pa.float32()),  # shorter side of that box
        ("score", pa.float32()),
        ("sharpness", pa.float32()),
        ("yaw", pa.float32()),  # degrees
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("width", pa.int32()),  # of the upright photograph
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("seconds", pa.float32()),
    ]
)
"""A row of `photos.parquet`: what became of one photograph."""

Row = dict[str, object]


def write_block(output: str, block: Block, prepared: Sequence[Prepared]) -> None:
    """Write a block's shard, then its receipts, each whole or not at all.

    Args:
        output: folder of the set.
        block: which.
        prepared: its photographs, in its order.

    Raises:
        OutputError: they cannot be written.
    """
    faces = pa.Table.from_pylist([row for one in prepared for row in _face_rows(one)], schema=SHARD_COLUMNS)
    receipts = pa.Table.from_pylist([_receipt(one) for one in prepared], schema=RECEIPT_COLUMNS)
    plain = {"crop": "none"}  # it is compressed already
    codecs = {name: plain.get(name, "zstd") for name in SHARD_COLUMNS.names}
    for path, table, codec in ((_shard(output, block.number), faces, codecs), (_book(output, block), receipts, "zstd")):
        table = table.replace_schema_metadata({BLOCK_KEY: block.digest.encode()})
        write_atomically(path, parquet(table, codec), Path(output) / PARTIAL)


def is_done(output: str, block: Block) -> bool:
    """Whether a block's files are there and of its digest."""
    return all(_digest(path) == block.digest for path in (_shard(output, block.number), _book(output, block)))


def clear_outdated(output: str, blocks: Sequence[Block]) -> None:
    """Remove the files of blocks that there are no longer."""
    current = {path for block in blocks for path in (_shard(output, block.number), _book(output, block))}
    for folder in (Path(output) / "shards", _books(output)):
        for path in folder.glob("*.parquet"):
            if path not in current:
                path.unlink()


def read_embeddings(output: str, number: int) -> Floats:
    """[N, E] of a shard; [0, 0] where it holds no faces."""
    column = _read(_shard(output, number), ["embedding"]).column("embedding")
    flat = np.asarray(pc.list_flatten(column).to_numpy(), np.float32)
    return flat.reshape(len(column), len(flat) // max(len(column), 1))


def read_crops(output: str, places: Iterable[tuple[int, int]]) -> list[bytes]:
    """Encoded crops at (shard, row), in that order."""
    wanted, crops = list(places), {}
    for number in sorted({shard for shard, _ in wanted}):
        column = _read(_shard(output, number), ["crop"]).column("crop")
        crops.update({(number, row): column[row].as_py() for shard, row in wanted if shard == number})
    return [crops[place] for place in wanted]


def read_receipts(output: str, blocks: Sequence[Block]) -> pa.Table:
    """The receipts of all blocks, in their order."""
    tables = [_read(_book(output, block), RECEIPT_COLUMNS.names) for block in blocks]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def parquet(table: pa.Table, compression: str | dict[str, str] = "zstd") -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


def _shard(output: str, number: int) -> Path:
    return Path(output) / shard_name(number)


def _books(output: str) -> Path:
    return Path(output) / BOOKS / "receipts"


def _book(output: str, block: Block) -> Path:
    return _books(output) / f"{block.number:05d}.parquet"


def _digest(path: Path) -> str:
    """Of the block that a file was written for; empty when there is none that can be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return ""
    return str(metadata.get(BLOCK_KEY, b"").decode())


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        mend = "Delete it; the same command makes it again"
        raise OutputError(str(path), f"cannot be read ({error})", mend) from error


def _face_rows(prepared: Prepared) -> list[Row]:
    """Rows of `SHARD_COLUMNS`."""
    if prepared.kept is None:
        return []
    kept, faces = prepared.kept, prepared.kept.measures.faces
    return [
        {
            "crop": kept.crops[i],
            "embedding": kept.embedding[i],
            "identity": prepared.photo.identity or None,
            "box": faces.box[i],
            "landmarks": faces.landmarks[i].reshape(-1),
            "score": float(faces.score[i]),
            "sharpness": float(kept.measures.sharpness[i]),
            **_angles(kept.measures.angles[i]),
            "source_path": prepared.photo.file.item,
            "source_sha256": prepared.sha256,
        }
        for i in range(len(faces))
    ]


def _receipt(prepared: Prepared) -> Row:
    """A row of `RECEIPT_COLUMNS`."""
    file, measures = prepared.photo.file, prepared.measures
    row: Row = {
        "path": file.item,
        "identity": prepared.photo.identity or None,
        "status": "dropped" if prepared.kept is None else "kept",
        "reason": prepared.reason,
        "detail": prepared.detail,
        "faces_found": prepared.found,
        "faces_kept": 0 if prepared.kept is None else len(prepared.kept.crops),
        "width": prepared.width,
        "height": prepared.height,
        "bytes": file.size_bytes,
        "mtime_ns": file.mtime_ns,
        "sha256": prepared.sha256,
        "seconds": prepared.seconds,
    }
    if measures is not None:
        row |= {"box": measures.faces.box[0], "score": float(measures.faces.score[0])} | _angles(measures.angles[0])
        row |= {"face_px": float(measures.face_px[0]), "sharpness": float(measures.sharpness[0])}
    return row


def _angles(angles: Iterable[float]) -> Row:
    return dict(zip(("yaw", "pitch", "roll"), (float(angle) for angle in angles), strict=True))
