"""The analysis as a table: one row a face, so that another checkpoint or source need not detect again.

Columns: `item`, `landmarks` (10 numbers: x, y of the five points in upright frame pixels; null in the
one row of an image without a face) are required; `frame`, `box`, `score`, `embedding`, `track`,
`input_sha256` are used where present. The schema's metadata names the identity encoder.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, UnreadableError
from pipeline.media.store import store_at
from pipeline.types import Faces, Floats

ENCODER_KEY = b"identity_encoder_sha256"

_FARTHEST_PX = 1e5
"""Landmarks beyond this are no place in a picture."""

_GROUP_ROWS = 1024
_OPEN_GROUPS = 4
_MOST_OPEN_BYTES = 64 << 20

_SCHEMA = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("frame", pa.int64()),
        pa.field("box", pa.list_(pa.float32())),
        pa.field("landmarks", pa.list_(pa.float32())),
        pa.field("score", pa.float32()),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("track", pa.int64()),
        pa.field("input_sha256", pa.string()),
    ]
)


class AnalysisTable:
    """Reads faces by item from a Parquet file or folder.

    Args:
        path: the table, a path or an address.
        storage: time-outs and attempts.

    Raises:
        ConfigError: missing, not Parquet, or without the required columns.
    """

    def __init__(self, path: str, storage: StorageConfig | None = None) -> None:
        store = store_at(path, storage)
        try:
            self._dataset = pads.dataset(
                store.root, filesystem=store.files, format="parquet", exclude_invalid_files=False
            )
        except FileNotFoundError:
            mend = "Set analysis.read_table to a Parquet file or folder"
            raise ConfigError(path, "no such analysis table", mend) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(path, f"cannot be read as Parquet ({error})") from error
        missing = [name for name in ("item", "landmarks") if name not in self._dataset.schema.names]
        if missing:
            raise ConfigError(path, f"has no column {', '.join(missing)}", "See the analysis table in docs/swap.md")
        self._path = path
        self._groups: list[pads.ParquetFileFragment] = []
        self._index: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None
        self._open: OrderedDict[int, pa.Table] = OrderedDict()

    def rows(self, item: str) -> list[dict[str, object]]:
        """All rows of an item; none when it is not in the table.

        The first call reads the column `item` once and keeps 12 bytes a row, later ones read the row groups that the
        item is in; neighbours mostly find theirs open.
        """
        if self._index is None:
            self._index = self._indexed()
        (hashes, groups), wanted = self._index, hash(item)
        first, last = (int(np.searchsorted(hashes, wanted, side)) for side in ("left", "right"))
        tables = [self._rows_in(group, item) for group in np.unique(groups[first:last]).tolist()]
        return [row for table in tables for row in table.to_pylist()]

    def _indexed(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Hash of every row's item, sorted, and the row group that it is in."""
        hashes, groups = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        for fragment in self._dataset.get_fragments():
            for group in fragment.split_by_row_group():
                items = group.to_table(schema=self._dataset.schema, columns=["item"]).column("item").to_pylist()
                hashes.append(np.fromiter(map(hash, items), np.int64, len(items)))
                groups.append(np.full(len(items), len(self._groups), np.int32))
                self._groups.append(group)
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(groups)[order]

    def _rows_in(self, number: int, item: str) -> pa.Table:
        """The rows of an item in a row group, which stays open unless it is large."""
        group, schema, wanted = self._groups[number], self._dataset.schema, pads.field("item") == item
        if number not in self._open:
            if sum(part.total_byte_size for part in group.row_groups) > _MOST_OPEN_BYTES:
                return group.to_table(schema=schema, filter=wanted)
            self._open[number] = group.to_table(schema=schema)
            while len(self._open) > _OPEN_GROUPS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number].filter(wanted)

    def encoder_digests(self) -> set[str]:
        """Digests of the identity encoders whose embeddings the files hold; empty without embeddings."""
        if "embedding" not in self._dataset.schema.names:
            return set()
        schemas = (pq.read_schema(file, filesystem=self._dataset.filesystem) for file in self._dataset.files)
        return {(schema.metadata or {}).get(ENCODER_KEY, b"").decode() for schema in schemas}


def rows_to_faces(item: str, rows: Sequence[dict[str, object]], sha256: str, min_score: float = 0.0) -> Faces:
    """Faces of one image from its rows, from left to right.

    Rows of other content are left aside as long as some are of this content, and a face that stands in
    the table twice counts once: a table grows when a killed job is run again.

    Args:
        item: for errors.
        rows: of that item; all of frame 0.
        sha256: of the image as it is now.
        min_score: faces below are left out, as detection would.

    Returns:
        The faces; embeddings are [N, 0] unless every one of them has one.

    Raises:
        UnreadableError: all rows are of other content, or one is not a face.
    """
    current = [row for row in rows if row.get("input_sha256") in (None, "", sha256)]
    if not current:
        raise UnreadableError(item, "has changed since it was analysed", "Analyse it again")
    found = {_landmarks(item, row).tobytes(): row for row in current if row["landmarks"] is not None}
    kept = [row for row in found.values() if _score(row) >= min_score]
    points = [_landmarks(item, row) for row in kept]
    embeddings = [row["embedding"] for row in kept if row.get("embedding") is not None]
    sizes = {len(e) for e in embeddings}  # type: ignore[arg-type]
    width = sizes.pop() if len(embeddings) == len(kept) and len(sizes) == 1 else 0
    return Faces(
        frame=np.zeros(len(kept), np.int64),
        box=_array([_box(item, row, p) for row, p in zip(kept, points, strict=True)], (4,)),
        landmarks=_array(points, (5, 2)),
        score=np.array([_score(row) for row in kept], np.float32),
        embedding=_array(embeddings if width else [[] for _ in kept], (width,)),
    ).left_to_right()


def _landmarks(item: str, row: dict[str, object]) -> Floats:
    """[5, 2] of one row."""
    points = np.asarray(row["landmarks"], np.float32)
    usable = points.size == 10 and np.isfinite(points).all() and np.abs(points).max() < _FARTHEST_PX
    if not usable or np.ptp(points.reshape(5, 2), axis=0).min() < 1.0:
        raise UnreadableError(item, "has landmarks in the analysis table that are not five points", "Mend the table")
    return points.reshape(5, 2)


def _box(item: str, row: dict[str, object], points: Floats) -> Floats:
    """[4] of one row, about its landmarks where it has none."""
    if row.get("box") is None:
        return _box_around(points)
    box = np.asarray(row["box"], np.float32)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise UnreadableError(item, "has a box in the analysis table that is not four numbers", "Mend the table")
    return box


def _score(row: dict[str, object]) -> float:
    return 1.0 if row.get("score") is None else float(row["score"])  # type: ignore[arg-type]


def write_faces(
    folder: str,
    analysed: Sequence[tuple[str, str, Faces]],
    encoder_digest: str,
    storage: StorageConfig | None = None,
) -> None:
    """Add a part with the faces of some images to a table folder, whole or not at all.

    Args:
        folder: the table, a path or an address.
        analysed: (item, sha256 of the image, its faces).
        encoder_digest: sha256 of the identity encoder's file.
        storage: time-outs and attempts.
    """
    rows = [row for item, sha256, faces in analysed for row in _rows(item, sha256, faces)]
    if not rows:
        return
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({ENCODER_KEY: encoder_digest.encode()}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=_GROUP_ROWS)
    name = hashlib.sha256("\n".join(sha256 + item for item, sha256, _ in analysed).encode()).hexdigest()[:20]
    store_at(folder, storage).write(f"part-{name}.parquet", buffer.getvalue())


def _rows(item: str, sha256: str, faces: Faces) -> list[dict[str, object]]:
    if not len(faces):
        return [{"item": item, "frame": 0, "input_sha256": sha256}]
    return [
        {
            "item": item,
            "frame": int(faces.frame[i]),
            "box": faces.box[i],
            "landmarks": faces.landmarks[i].reshape(-1),
            "score": float(faces.score[i]),
            "embedding": faces.embedding[i],
            "input_sha256": sha256,
        }
        for i in range(len(faces))
    ]


def _array(rows: Sequence[object], shape: tuple[int, ...]) -> Floats:
    return np.asarray(rows, np.float32).reshape(len(rows), *shape)


def _box_around(landmarks: Floats) -> Floats:
    """A box about the five points that is roughly what detectors give."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = 0.6 * np.ptp(landmarks, axis=0).max()
    return np.concatenate([low - margin, high + margin])
