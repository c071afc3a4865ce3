"""The analysis as a table: one row a face, so that another checkpoint or source need not detect again.

Columns: `item`, `landmarks` (10 numbers: x, y of the five points in upright frame pixels; null in the
one row of an image without a face) are required; `frame`, `box`, `score`, `embedding`, `track`,
`input_sha256` are used where present. The schema's metadata names the identity encoder.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, UnreadableError
from pipeline.media.storage import write_atomically
from pipeline.types import Faces, Floats

ENCODER_KEY = b"identity_encoder_sha256"

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
        path: the table.

    Raises:
        ConfigError: missing, not Parquet, or without the required columns.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).exists():
            raise ConfigError(path, "no such analysis table", "Set analysis.read_table to a Parquet file or folder")
        try:
            self._dataset = pads.dataset(path, format="parquet", exclude_invalid_files=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(path, f"cannot be read as Parquet ({error})") from error
        missing = [name for name in ("item", "landmarks") if name not in self._dataset.schema.names]
        if missing:
            raise ConfigError(path, f"has no column {', '.join(missing)}", "See the analysis table in docs/swap.md")
        self._path = path
        metadata = self._dataset.schema.metadata or {}
        self.encoder_digest = metadata.get(ENCODER_KEY, b"").decode()
        self.has_embeddings = "embedding" in self._dataset.schema.names

    def faces(self, items: Sequence[str]) -> dict[str, list[dict[str, object]]]:
        """Rows of each item; an item that is not in the table is not in the answer."""
        rows = self._dataset.to_table(filter=pads.field("item").isin(list(items))).to_pylist()
        found: dict[str, list[dict[str, object]]] = {}
        for row in rows:
            found.setdefault(row["item"], []).append(row)
        return found


def rows_to_faces(item: str, rows: Sequence[dict[str, object]], sha256: str) -> tuple[Faces, bool]:
    """Faces of one image from its rows, from left to right.

    Args:
        item: for errors.
        rows: of that item; all of frame 0.
        sha256: of the image as it is now.

    Returns:
        The faces, and whether all came with an embedding ([N, 0] where not).

    Raises:
        UnreadableError: the table is of other content, or its landmarks are not usable.
    """
    if any(row.get("input_sha256") not in (None, "", sha256) for row in rows):
        raise UnreadableError(item, "has changed since it was analysed", "Analyse it again")
    kept = [row for row in rows if row["landmarks"] is not None]
    landmarks = [np.asarray(row["landmarks"], np.float32).reshape(-1, 2) for row in kept]
    if any(points.shape != (5, 2) or not np.isfinite(points).all() or np.ptp(points) < 1.0 for points in landmarks):
        raise UnreadableError(item, "has landmarks in the analysis table that are not five points", "Mend the table")
    order = sorted(range(len(kept)), key=lambda i: float(landmarks[i][:, 0].min()))
    kept, points = [kept[i] for i in order], [landmarks[i] for i in order]
    embeddings = [row.get("embedding") for row in kept]
    complete = all(e is not None for e in embeddings)
    width = len(embeddings[0]) if kept and complete else 0  # type: ignore[arg-type]
    return (
        Faces(
            frame=np.zeros(len(kept), np.int64),
            box=_array([row.get("box") or _box_around(p) for row, p in zip(kept, points, strict=True)], (4,)),
            landmarks=_array(points, (5, 2)),
            score=np.array([1.0 if row.get("score") is None else row["score"] for row in kept], np.float32),
            embedding=_array(embeddings if complete else [[] for _ in kept], (width,)),
        ),
        complete,
    )


def write_faces(folder: str, analysed: Sequence[tuple[str, str, Faces]], encoder_digest: str) -> None:
    """Add a part with the faces of some images to a table folder, whole or not at all.

    Args:
        folder: the table.
        analysed: (item, sha256 of the image, its faces).
        encoder_digest: sha256 of the identity encoder's file.
    """
    rows = [row for item, sha256, faces in analysed for row in _rows(item, sha256, faces)]
    if not rows:
        return
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({ENCODER_KEY: encoder_digest.encode()}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    name = hashlib.sha256("\n".join(sha256 + item for item, sha256, _ in analysed).encode()).hexdigest()[:20]
    write_atomically(Path(folder) / f"part-{name}.parquet", buffer.getvalue())


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
