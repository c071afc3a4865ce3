from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.preparation.labels import read_labels


def test_every_kind_of_table_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_text("identity,split,path\n7,train,a/1.jpg\nanna maria,test,./b 2.jpg\n")
    (tmp_path / "plain.csv").write_text("a/1.jpg,7\nb 2.jpg,anna maria\n")
    (tmp_path / "windows.csv").write_bytes("\ufeffpath,identity\r\na\\1.jpg,7\r\nb 2.jpg,anna maria\r\n".encode())
    pq.write_table(
        pa.table({"path": ["a/1.jpg", "b 2.jpg", "c"], "identity": ["7", "anna maria", None]}), tmp_path / "t.parquet"
    )
    for name in ("named.csv", "plain.csv", "windows.csv", "t.parquet"):
        assert read_labels(str(tmp_path / name)) == {"a/1.jpg": "7", "b 2.jpg": "anna maria"}, name


def test_lines_of_a_name_and_an_identity_are_celebas_own(tmp_path: Path) -> None:
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 2937\n\nwith blanks.jpg\t12\n")
    labels = {"000001.jpg": "2880", "000002.jpg": "2937", "with blanks.jpg": "12"}
    assert read_labels(str(tmp_path / "identity_CelebA.txt")) == labels


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "image,id,split\nx,y,z\n", "has the columns image, id, split"),
        ("a.csv", "path,identity\nx\n", "row 2 has 1 columns"),
        ("a.csv", "path,identity\n", "names no photograph"),
        ("a.csv", "path,identity\nx,1\nx,2\n", "x is 1 and 2"),
        ("a.txt", "alone\n", "line 1 has one word"),
        ("a.parquet", "no parquet", "cannot be read as a table"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_labels(str(tmp_path / name))
    with pytest.raises(ConfigError, match="no such table"):
        read_labels(str(tmp_path / "missing.csv"))
