"""An outside checker of a swap's output: reads files, knows nothing of the program's own classes."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs


class Folder:
    """Files below an address, read through pyarrow alone.

    Args:
        address: a path, or `s3://bucket/prefix` at AWS_ENDPOINT_URL.
    """

    def __init__(self, address: str) -> None:
        where = address if "://" in address else Path(address).absolute().as_uri()
        self._files, self._root = fs.FileSystem.from_uri(where)

    def names(self) -> list[str]:
        """All files, sorted."""
        found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        return sorted(str(info.path)[len(self._root) + 1 :] for info in found if info.type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._files.open_input_stream(f"{self._root}/{name}") as file:
            return bytes(file.read())


def check_output(inputs: str, output: str) -> Counter[str]:
    """Prove the promise for a finished job over a folder: each input has one output or one reason, and that is all.

    Args:
        inputs: address of the originals.
        output: address of the results.

    Returns:
        How many inputs have each status.
    """
    there, here = Folder(inputs), Folder(output)
    job = json.loads(here.read("_simswap/job.json"))
    assert job["finished"], "the job says of itself that it is not finished"
    rows = pq.read_table(pa.BufferReader(here.read("_simswap/receipts.parquet"))).to_pylist()
    items = [row["item"] for row in rows]
    assert items == there.names(), "an input without a receipt, with two, or a receipt without an input"
    assert {row["recipe"] for row in rows} == {job["recipe"]}
    results = [row["output"] for row in rows if row["status"] == "done"]
    visible = [name for name in here.names() if not name.startswith("_simswap/")]
    assert visible == sorted(results), "a result that no receipt tells of, or a receipt without its result"
    for row in rows:
        _check_row(row, there, here)
    left = {name.split("/")[1] for name in here.names() if name.startswith("_simswap/")}
    allowed = {"job.json", "receipts.parquet", "report.html", "quality.png", "contact_sheet.jpg", "people.parquet"}
    assert left <= allowed, f"leftovers: {left - allowed}"
    return Counter(row["status"] for row in rows)


def _check_row(row: dict[str, Any], there: Folder, here: Folder) -> None:
    original = there.read(row["item"])
    if row["status"] != "done":
        assert row["reason"], row
        assert row["detail"].startswith(f"{row['item']}: "), row
        assert not row["output"], row
        return
    assert hashlib.sha256(original).hexdigest() == row["input_sha256"], row["item"]
    result = here.read(row["output"])
    assert hashlib.sha256(result).hexdigest() == row["output_sha256"], row["item"]
    before, after = Image.open(io.BytesIO(original)), Image.open(io.BytesIO(result))
    after.load()
    assert (before.size, before.format) == (after.size, after.format), row["item"]
