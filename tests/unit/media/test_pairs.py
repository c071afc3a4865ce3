from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.media.pairs import Pair, read_pairs

ROWS: list[dict[str, Any]] = [
    {"target": "a/1.jpg", "source": "anna.jpg", "face": "largest", "output": None},
    {"target": "a/2.png", "source": "people/berta", "face": "1", "output": "done/2.png"},
]
PAIRS = [
    Pair("a/1.jpg", "anna.jpg", "largest", "a/1_anna.jpg"),
    Pair("a/2.png", "people/berta", "1", "done/2.png"),
]


def write(path: Path, kind: str) -> str:
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path / "pairs.parquet")
    elif kind == "jsonl":
        (path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        lines = [",".join(str(value or "") for value in row.values()) for row in ROWS]
        (path / "pairs.csv").write_text("\n".join(["target,source,face,output", *lines]))
    return str(path / f"pairs.{kind}")


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_table_says_the_same_in_every_format(tmp_path: Path, kind: str) -> None:
    assert read_pairs(write(tmp_path, kind)) == PAIRS


def test_a_split_of_faceforensics_stands_for_both_directions(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text('[["071", "054"]]')
    assert [pair.output for pair in read_pairs(str(tmp_path / "test.json"))] == ["071_054.mp4", "054_071.mp4"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("target,source\na.jpg,\n", "row 1 has no source"),
        ("target\na.jpg\n", "row 1 has no source"),
        ("target,source\n../a.jpg,b\n", "no path below a folder"),
        ("target,source\n/etc/passwd,b\n", "no path below a folder"),
        ("target,source,output\na.jpg,b,../x.jpg\n", "no path below a folder"),
        ("target,source,face\na.jpg,b,middle\n", "no face 'middle'"),
        ("target,source\na.jpg,b\na.jpg,b\n", "would be the result of two rows"),
        ("target,source\n", "names no pair"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_and_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_pairs(str(tmp_path / "pairs.csv"))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such table"):
        read_pairs(str(tmp_path / "pairs.csv"))
