from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, UnreadableError
from pipeline.faces.table import AnalysisTable, rows_to_faces, write_faces
from tests.factories import landmarks_at, no_faces, scene, scene_faces


def test_faces_come_back_from_the_table(tmp_path: Path) -> None:
    faces = scene_faces(scene(3))
    write_faces(str(tmp_path), [("a.png", "f00", faces), ("b.png", "ba4", no_faces())], "e1c0de")
    table = AnalysisTable(str(tmp_path))
    found = table.faces(["a.png", "b.png", "c.png"])
    again, complete = rows_to_faces("a.png", found["a.png"], "f00")
    assert complete
    for name in ("frame", "box", "landmarks", "score", "embedding"):
        assert np.array_equal(getattr(again, name), getattr(faces, name))
    assert len(rows_to_faces("b.png", found["b.png"], "ba4")[0]) == 0
    assert "c.png" not in found
    assert table.encoder_digest == "e1c0de"


def test_a_table_with_landmarks_alone_is_enough(tmp_path: Path) -> None:
    points = landmarks_at(100, 80, 40)
    pq.write_table(pa.table({"item": ["a"], "landmarks": [points.reshape(-1).tolist()]}), tmp_path / "t.parquet")
    table = AnalysisTable(str(tmp_path / "t.parquet"))
    faces, complete = rows_to_faces("a", table.faces(["a"])["a"], "whatever")
    assert not table.has_embeddings
    assert not complete
    assert np.allclose(faces.landmarks[0], points)
    assert faces.score.tolist() == [1.0]
    left, top, right, bottom = faces.box[0]
    assert left < points[:, 0].min() < points[:, 0].max() < right
    assert top < points[:, 1].min() < points[:, 1].max() < bottom


def test_faces_of_other_content_or_without_five_points_are_refused() -> None:
    row: dict[str, object] = {
        "item": "a",
        "landmarks": landmarks_at(9, 9, 9).reshape(-1).tolist(),
        "input_sha256": "old",
    }
    with pytest.raises(UnreadableError, match="has changed since it was analysed"):
        rows_to_faces("a", [row], "new")
    for landmarks in ([1.0, 2.0], [float("nan")] * 10, [3.0] * 10):
        with pytest.raises(UnreadableError, match="not five points"):
            rows_to_faces("a", [{"item": "a", "landmarks": landmarks}], "new")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["a"]}), tmp_path / "short.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    for name, says in (("none", "no such"), ("short.parquet", "has no column landmarks"), ("text.parquet", "Parquet")):
        with pytest.raises(ConfigError, match=says):
            AnalysisTable(str(tmp_path / name))
