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
    again = rows_to_faces("a.png", table.rows("a.png"), "f00")
    for name in ("frame", "box", "landmarks", "score", "embedding"):
        assert np.array_equal(getattr(again, name), getattr(faces, name))
    assert len(rows_to_faces("b.png", table.rows("b.png"), "ba4")) == 0
    assert table.rows("c.png") == []
    assert table.encoder_digests() == {"e1c0de"}


def test_a_face_that_was_written_twice_counts_once(tmp_path: Path) -> None:
    """A killed job analyses some images again, in other parts; an edited image leaves its old rows behind."""
    faces, older = scene_faces(scene(2)), scene_faces(scene(1, seed=5))
    write_faces(str(tmp_path), [("a.png", "old", older)], "e")
    write_faces(str(tmp_path), [("a.png", "new", faces), ("b.png", "b", faces)], "e")
    write_faces(str(tmp_path), [("a.png", "new", faces)], "e")
    found = rows_to_faces("a.png", AnalysisTable(str(tmp_path)).rows("a.png"), "new")
    assert np.array_equal(found.landmarks, faces.landmarks)


def test_the_table_knows_the_same_order_and_threshold_as_detection() -> None:
    left, right = landmarks_at(100, 80, 20), landmarks_at(300, 80, 20)
    rows: list[dict[str, object]] = [
        {"item": "a", "landmarks": right, "box": [50.0, 0, 400, 100], "score": 0.9},
        {"item": "a", "landmarks": left, "box": [80.0, 0, 120, 100], "score": 0.7},
    ]
    assert rows_to_faces("a", rows, "").box[:, 0].tolist() == [50.0, 80.0]
    assert rows_to_faces("a", rows, "", min_score=0.8).box[:, 0].tolist() == [50.0]


def test_a_table_with_landmarks_alone_is_enough(tmp_path: Path) -> None:
    points = landmarks_at(100, 80, 40)
    pq.write_table(pa.table({"item": ["a"], "landmarks": [points.reshape(-1).tolist()]}), tmp_path / "t.parquet")
    table = AnalysisTable(str(tmp_path / "t.parquet"))
    faces = rows_to_faces("a", table.rows("a"), "whatever")
    assert table.encoder_digests() == set()
    assert faces.embedding.shape == (1, 0)
    assert np.allclose(faces.landmarks[0], points)
    assert faces.score.tolist() == [1.0]
    left, top, right, bottom = faces.box[0]
    assert left < points[:, 0].min() < points[:, 0].max() < right
    assert top < points[:, 1].min() < points[:, 1].max() < bottom


def test_faces_of_other_content_or_without_five_points_are_refused() -> None:
    good = landmarks_at(9, 9, 9).reshape(-1).tolist()
    row: dict[str, object] = {"item": "a", "landmarks": good, "input_sha256": "old"}
    with pytest.raises(UnreadableError, match="has changed since it was analysed"):
        rows_to_faces("a", [row], "new")
    five_equal, in_a_line = [3.0, 90.0] * 5, [n * (i % 2) for i, n in enumerate(range(10))]
    for landmarks in ([1.0, 2.0], [float("nan")] * 10, five_equal, in_a_line, [1e7 + n for n in good], [*good, 1.0]):
        with pytest.raises(UnreadableError, match="not five points"):
            rows_to_faces("a", [{"item": "a", "landmarks": landmarks}], "new")
    for box in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, float("inf")]):
        with pytest.raises(UnreadableError, match="not four numbers"):
            rows_to_faces("a", [{"item": "a", "landmarks": good, "box": box}], "new")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["a"]}), tmp_path / "short.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    for name, says in (("none", "no such"), ("short.parquet", "has no column landmarks"), ("text.parquet", "Parquet")):
        with pytest.raises(ConfigError, match=says):
            AnalysisTable(str(tmp_path / name))
