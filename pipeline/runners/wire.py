"""Work between the stages as Arrow rows: crops and geometry as raw bytes, dense and without pickles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.media.inputs import InputFile
from pipeline.preparation.listing import Block, Photo
from pipeline.swapping import End, Work
from pipeline.types import Faces, Floats, Ints, Receipt

FILE_SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("problem", pa.string()),
        ("shard", pa.string()),
        ("state", pa.string()),
        ("offset", pa.int64()),
        ("number", pa.int64()),
        ("path", pa.string()),
        ("source", pa.int64()),
        ("face", pa.string()),
    ]
)

_FLOATS = ("box", "landmarks", "score", "embedding", "to_frame", "source_before", "source_after", "owner_after")

_SCHEMA = pa.schema(
    [
        *FILE_SCHEMA,
        ("end", pa.list_(pa.string())),  # status, code, detail; null while the input is on its way to a result
        ("sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("crop_size", pa.int64()),
        ("become", pa.binary()),
        *((name, pa.binary()) for name in _FLOATS),
        ("crops", pa.large_binary()),
        ("masks", pa.large_binary()),
        ("reason", pa.string()),
        ("whole", pa.string()),
        ("analyse_s", pa.float64()),
        ("swap_s", pa.float64()),
        ("segment", pa.int64()),
        ("ticks", pa.binary()),
        ("weight", pa.binary()),
    ]
)


def files_to_table(files: Iterable[InputFile]) -> pa.Table:
    """Inputs as rows."""
    return pa.Table.from_pylist([_file_row(file) for file in files], schema=FILE_SCHEMA)


def files_with_roles(table: pa.Table) -> list[tuple[InputFile, Ints | None]]:
    """Inputs, and the sources of their faces where a column says so."""
    roles = table.column("roles").to_pylist() if "roles" in table.column_names else [None] * table.num_rows
    return [
        (file, None if become is None else np.array(become, np.int64))
        for file, become in zip(table_to_files(table), roles, strict=True)
    ]


def sightings_to_table(files: Sequence[InputFile], sightings: Sequence[Faces | None]) -> pa.Table:
    """Whom each input shows: embeddings and areas in pixels of its faces, null where it cannot be read."""
    rows = []
    for file, faces in zip(files, sightings, strict=True):
        row = _file_row(file) | {"embeddings": None, "areas": None}
        if faces is not None:
            areas = np.prod(np.maximum(faces.box[:, 2:] - faces.box[:, :2], 0.0), axis=1)
            row |= {"embeddings": faces.embedding.tobytes(), "areas": areas.astype(np.float32).tobytes()}
        rows.append(row)
    schema = pa.schema([*FILE_SCHEMA, ("embeddings", pa.binary()), ("areas", pa.binary())])
    return pa.Table.from_pylist(rows, schema=schema)


def table_to_sightings(table: pa.Table) -> Iterator[tuple[InputFile, Floats, Floats] | None]:
    """The sightings that `sightings_to_table` wrote: input, [K, E] embeddings, [K] areas."""
    for row in table.to_pylist():
        if row["areas"] is None:
            yield None
        else:
            areas = np.frombuffer(row["areas"], np.float32)
            embeddings = np.frombuffer(row["embeddings"], np.float32)
            yield _file(row), embeddings.reshape(len(areas), len(embeddings) // max(len(areas), 1)), areas


def table_to_files(table: pa.Table) -> list[InputFile]:
    """The inputs that `files_to_table` wrote."""
    return [_file(row) for row in table.select(FILE_SCHEMA.names).to_pylist()]


def spans_to_tables(spans: Iterable[tuple[InputFile, int]]) -> list[pa.Table]:
    """Numbered spans of videos as tables of one row: each may go to another worker."""
    schema = pa.schema([*FILE_SCHEMA, ("span", pa.int64())])
    return [pa.Table.from_pylist([_file_row(file) | {"span": number}], schema=schema) for file, number in spans]


def table_to_spans(table: pa.Table) -> list[tuple[InputFile, int]]:
    """The spans that `spans_to_tables` wrote."""
    return [(_file(row), int(row["span"])) for row in table.to_pylist()]


def works_to_table(works: Sequence[Work]) -> pa.Table:
    """Work as rows."""
    return pa.Table.from_pylist([_work_row(work) for work in works], schema=_SCHEMA)


def table_to_works(table: pa.Table) -> list[Work]:
    """The work that `works_to_table` wrote."""
    return [_work(row) for row in table.to_pylist()]


def receipts_to_summary(receipts: Sequence[Receipt], shards: Sequence[str] = ()) -> pa.Table:
    """What the driver learns of a batch: a row an input, no pixels, no geometry; names only of those without a result.

    Args:
        receipts: of the batch.
        shards: that each input is in; empty where none is in one.
    """
    faces = [sum(face.action == "swapped" for face in receipt.faces) for receipt in receipts]
    columns = {
        "status": [receipt.status for receipt in receipts],
        "reason": [receipt.reason for receipt in receipts],
        "item": ["" if receipt.status == "done" else receipt.item for receipt in receipts],
        "shard": list(shards) or [""] * len(receipts),
    }
    return pa.table({k: pa.array(v, pa.string()) for k, v in columns.items()} | {"faces": pa.array(faces, pa.int64())})


def blocks_to_tables(blocks: Sequence[Block]) -> list[pa.Table]:
    """Blocks of photographs as tables of one row."""
    photos = pa.list_(pa.struct([*FILE_SCHEMA, ("identity", pa.string())]))
    schema = pa.schema([("number", pa.int64()), ("digest", pa.string()), ("photos", photos)])
    rows = [
        {
            "number": block.number,
            "digest": block.digest,
            "photos": [_file_row(photo.file) | {"identity": photo.identity} for photo in block.photos],
        }
        for block in blocks
    ]
    return [pa.Table.from_pylist([row], schema=schema) for row in rows]


def table_to_blocks(table: pa.Table) -> list[Block]:
    """The blocks that `blocks_to_tables` wrote."""
    return [
        Block(row["number"], tuple(Photo(_file(photo), photo["identity"]) for photo in row["photos"]), row["digest"])
        for row in table.to_pylist()
    ]


def _file(row: dict[str, object]) -> InputFile:
    return InputFile(*(row[name] for name in FILE_SCHEMA.names))  # type: ignore[arg-type]


def _file_row(file: InputFile) -> dict[str, object]:
    return {name: getattr(file, name) for name in FILE_SCHEMA.names}


def _work_row(work: Work) -> dict[str, object]:
    values = {name: getattr(work.faces, name) for name in ("box", "landmarks", "score", "embedding")}
    values |= {name: getattr(work, name) for name in ("to_frame", "source_before", "source_after", "owner_after")}
    return _file_row(work.file) | {
        "end": None if work.end is None else [work.end.status, work.end.code, work.end.detail],
        "sha256": work.sha256,
        "width": work.width,
        "height": work.height,
        "crop_size": work.crops.shape[-1],
        "become": work.become.astype(np.int64).tobytes(),
        **{name: np.ascontiguousarray(value, np.float32).tobytes() for name, value in values.items()},
        "crops": work.crops.contiguous().numpy().tobytes(),
        "masks": None if work.masks is None else work.masks.contiguous().numpy().tobytes(),
        "reason": work.reason,
        "whole": work.whole,
        "analyse_s": work.analyse_s,
        "swap_s": work.swap_s,
        "segment": work.segment,
        "ticks": work.ticks.astype(np.int64).tobytes(),
        "weight": work.weight.astype(np.float32).tobytes(),
    }


def _work(row: dict[str, object]) -> Work:
    become = np.frombuffer(row["become"], np.int64)  # type: ignore[call-overload]
    count, size = len(become), int(row["crop_size"])  # type: ignore[call-overload]

    def floats(name: str, *shape: int) -> Floats:
        return np.frombuffer(row[name], np.float32).reshape(count, *shape)  # type: ignore[call-overload, no-any-return]

    embedding = np.frombuffer(row["embedding"], np.float32)  # type: ignore[call-overload]
    faces = Faces(
        frame=np.zeros(count, np.int64),
        box=floats("box", 4),
        landmarks=floats("landmarks", 5, 2),
        score=floats("score"),
        embedding=embedding.reshape(count, len(embedding) // max(count, 1)),
    )
    return Work(
        file=_file(row),
        sha256=str(row["sha256"]),
        width=int(row["width"]),  # type: ignore[call-overload]
        height=int(row["height"]),  # type: ignore[call-overload]
        faces=faces,
        to_frame=floats("to_frame", 2, 3),
        become=become,
        crops=_bytes_to_tensor(row["crops"], (-1, 3, size, size)),
        masks=None if row["masks"] is None else _bytes_to_tensor(row["masks"], (-1, size, size)),
        source_before=floats("source_before"),
        source_after=floats("source_after"),
        owner_after=floats("owner_after"),
        reason=str(row["reason"]),
        whole=str(row["whole"]),
        analyse_s=float(row["analyse_s"]),  # type: ignore[arg-type]
        swap_s=float(row["swap_s"]),  # type: ignore[arg-type]
        end=None if row["end"] is None else End(*row["end"]),  # type: ignore[misc]
        segment=int(row["segment"]),  # type: ignore[call-overload]
        ticks=np.frombuffer(row["ticks"], np.int64),  # type: ignore[call-overload]
        weight=np.frombuffer(row["weight"], np.float32),  # type: ignore[call-overload]
    )


def _bytes_to_tensor(data: object, shape: tuple[int, ...]) -> Tensor:
    """[K, ...] u8; `shape` begins with -1 for K, which is 0 where nothing was written."""
    array = np.frombuffer(data, np.uint8)  # type: ignore[call-overload]
    count = len(array) // max(int(np.prod(shape[1:])), 1)
    return torch.from_numpy(array.reshape(count, *shape[1:]).copy())
