"""An outside checker of a swap's output: reads files, knows nothing of the program's own classes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs

_PAGES = {"job.json", "report.html", "quality.png", "contact_sheet.jpg", "people.parquet"}
_OUTCOME = ("width", "height", "status", "error_message", "sha256")

Row = dict[str, Any]


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
        return list(self.facts())

    def facts(self) -> dict[str, tuple[int, int]]:
        """Size and time of writing of all files, by name: what differs after anything was written."""
        found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        files = {str(i.path)[len(self._root) + 1 :]: (i.size, i.mtime_ns) for i in found if i.type == fs.FileType.File}
        return dict(sorted(files.items()))

    def visible(self) -> list[str]:
        """Those that are results."""
        return [name for name in self.names() if not name.startswith("_simswap/")]

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._files.open_input_stream(f"{self._root}/{name}") as file:
            return bytes(file.read())

    def remove(self, name: str) -> None:
        """Take a file away."""
        self._files.delete_file(f"{self._root}/{name}")

    def rows(self, name: str) -> list[Row]:
        """The rows of a Parquet file, without what is too large to look at."""
        file = pq.ParquetFile(pa.BufferReader(self.read(name)))
        return list(file.read([name for name in file.schema_arrow.names if name != "data"]).to_pylist())


def check_output(inputs: str, output: str) -> Counter[str]:
    """Prove the promise for a finished job over a folder: each input has one output or one reason, and that is all.

    Args:
        inputs: address of the originals.
        output: address of the results.

    Returns:
        How many inputs have each status.
    """
    there, here = Folder(inputs), Folder(output)
    job = _finished_job(here)
    rows = here.rows("_simswap/receipts.parquet")
    items = [row["item"] for row in rows]
    assert items == there.names(), "an input without a receipt, with two, or a receipt without an input"
    assert {row["recipe"] for row in rows} == {job["recipe"]}
    results = [row["output"] for row in rows if row["status"] == "done"]
    assert here.visible() == sorted(results), "a result that no receipt tells of, or a receipt without its result"
    for row in rows:
        if _has_result(row):
            assert row["output"] == row["item"], row
            _check_result(row, there.read(row["item"]), here.read(row["output"]))
    _check_books(here, _PAGES | {"receipts.parquet"})
    return Counter(row["status"] for row in rows)


def check_shards(inputs: str, output: str) -> Counter[str]:
    """Prove the promise for a finished job over shards: the same shards, with each image's one result or reason.

    Args:
        inputs: address of the originals.
        output: address of the results.

    Returns:
        How many images have each status.
    """
    there, here = Folder(inputs), Folder(output)
    job, shards = _finished_job(here), shards_in(there.names())
    counts, books, made = Counter[str](), set[str](), set(there.names())
    for shard in shards:
        receipts, record = f"receipts/{shard}.parquet", f"records/{shard}.json"
        books |= {receipts, record}
        rows, facts = here.rows(f"_simswap/{receipts}"), json.loads(here.read(f"_simswap/{record}"))
        counts.update(row["status"] for row in rows)
        assert {row["recipe"] for row in rows} == {facts["recipe"]} == {job["recipe"]}, shard
        if [row["item"] for row in rows] == [shard]:
            assert not _has_result(rows[0]), shard
            made -= {name for name in made if name.startswith(shard.rpartition(".")[0])}
            continue
        before, after = there.read(shard), here.read(shard)
        assert facts["output_sha256"] == hashlib.sha256(after).hexdigest(), shard
        failed = {_key(row["item"], shard): row["detail"] for row in rows if not _has_result(row)}
        by_image = {row["item"].removeprefix(f"{shard}/"): row for row in rows}
        (_check_tar if shard.endswith(".tar") else _check_parquet)(before, after, by_image, failed.keys())
        _check_side_files(there, here, shard, rows, failed)
    assert set(here.visible()) == made, "a shard or side file is missing, or is there without reason"
    _check_books(here, _PAGES | books)
    return counts


def check_visible(inputs: str, output: str) -> int:
    """Prove that whatever can be seen of a job at any time is whole.

    Returns:
        How many results there are.
    """
    there, here = Folder(inputs), Folder(output)
    visible = here.visible()
    assert set(visible) <= set(there.names()), "a result of no input"
    for name in visible:
        data = here.read(name)
        if name.endswith(".tar"):
            assert data.endswith(bytes(1024)), name
            for member, picture in _members(data):
                if member.name.endswith(".png"):
                    _decoded(picture)
        elif name.endswith(".parquet"):
            pq.read_table(pa.BufferReader(data))
        elif name.endswith(".json"):
            json.loads(data)
        else:
            _check_like(there.read(name), data, name)
    return len(visible)


class History:
    """What had its receipt when, seen from outside between the runs of one job.

    Args:
        output: address of the results.

    Attributes:
        done_again: inputs that had their receipt, and were done again all the same.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._ended: dict[tuple[str, str], float] = {}
        self._forgotten: dict[tuple[str, str], float] = {}
        self.done_again: set[str] = set()

    def note(self) -> int:
        """Look at all receipts there are now; how many inputs have had one."""
        now = {key: at for key, at in self._now().items() if self._forgotten.get(key) != at}  # those are of before
        self.done_again |= {
            item for recipe, item in now if self._ended.get((recipe, item), 0.0) not in (0.0, now[recipe, item])
        }
        self._ended |= now
        return len(self._ended)

    def forget(self, *names: str) -> None:
        """Some inputs, or all in some shards, may be done again."""
        gone = {key: at for key, at in self._ended.items() if f"{key[1]}/".startswith(names)}
        self._forgotten |= gone
        self._ended = {key: at for key, at in self._ended.items() if key not in gone}

    def _now(self) -> dict[tuple[str, str], float]:
        here, found = Folder(self._output), dict[tuple[str, str], float]()
        for name in here.names():
            if name.startswith(("_simswap/receipts", "_simswap/shards/")) and name.endswith(".parquet"):
                for row in here.rows(name):
                    key = (row["recipe"], row["item"])
                    found[key] = max(row["finished_at"], found.get(key, 0.0))
        return found


def lost_and_doubled(inputs: str, output: str) -> tuple[int, int, int]:
    """Images there are, those of them without a receipt, and receipts too many, of a folder or of shards."""
    there, here = Folder(inputs), Folder(output)
    expected = list[str]()
    for name in there.names() if not (shards := shards_in(there.names())) else shards:
        inside = [f"{name}/{image}" for image in images_in(name, there.read(name))] if shards else [name]
        expected += inside
    receipts = [name for name in here.names() if name.startswith("_simswap/receipts") and name.endswith(".parquet")]
    seen = Counter(row["item"] for name in receipts for row in here.rows(name))
    doubled = sum(seen.values()) - len(seen.keys() & set(expected))
    return len(expected), len(set(expected) - seen.keys()), doubled


def shards_in(names: list[str]) -> list[str]:
    """Which files are shards: tars, and Parquet files that are not beside one."""
    tars = {name.removesuffix(".tar") for name in names if name.endswith(".tar")}
    tables = [name for name in names if name.endswith(".parquet") and name.removesuffix(".parquet") not in tars]
    return sorted([f"{stem}.tar" for stem in tars] + tables)


def images_in(shard: str, data: bytes) -> list[str]:
    """Names of the images in a shard, as receipts call them."""
    if shard.endswith(".tar"):
        return [member.name for member, _ in _members(data) if member.name.endswith(".png")]
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    return [row["key"] + (".png" if row["image"].startswith(b"\x89PNG") else "") for row in rows]


def _finished_job(here: Folder) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(here.read("_simswap/job.json"))
    assert job["finished"], "the job says of itself that it is not finished"
    return job


def _check_books(here: Folder, allowed: set[str]) -> None:
    left = {name.removeprefix("_simswap/") for name in here.names() if name.startswith("_simswap/")}
    assert left <= allowed, f"leftovers: {sorted(left - allowed)}"


def _has_result(row: Row) -> bool:
    """Whether there is a result; where there is none, whether it is told why."""
    if row["status"] == "done":
        return True
    assert row["status"] in ("failed", "skipped"), row
    assert row["reason"], row
    assert row["detail"].startswith(f"{row['item']}: "), row
    assert not row["output"], row
    return False


def _check_result(row: Row, original: bytes, result: bytes) -> None:
    assert hashlib.sha256(original).hexdigest() == row["input_sha256"], row["item"]
    assert hashlib.sha256(result).hexdigest() == row["output_sha256"], row["item"]
    _check_like(original, result, row["item"])


def _check_like(original: bytes, result: bytes, name: str) -> None:
    before, after = Image.open(io.BytesIO(original)), _decoded(result)
    assert (before.size, before.format) == (after.size, after.format), name


def _decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _check_tar(before: bytes, after: bytes, rows: Mapping[str, Row], failed: Any) -> None:
    """Members of failed samples are gone; of the others all is as it was, but for the bytes of what was swapped."""
    kept = [(info, data) for info, data in _members(before) if info.name.split(".")[0] not in failed]
    made = list(_members(after))
    assert [info.name for info, _ in kept] == [info.name for info, _ in made]
    assert list(rows) == images_in(".tar", before)
    for (was, old), (now, new) in zip(kept, made, strict=True):
        for fact in ("type", "mode", "uid", "gid", "uname", "gname", "mtime"):
            assert getattr(was, fact) == getattr(now, fact), (was.name, fact)
        if was.name in rows:
            _check_result(rows[was.name], old, new)
        else:
            assert old == new, was.name


def _check_parquet(before: bytes, after: bytes, rows: Mapping[str, Row], failed: Any) -> None:
    """Rows of failed samples have lost their image; all else is as it was."""
    was, now = (pq.read_table(pa.BufferReader(data)) for data in (before, after))
    assert was.schema.equals(now.schema, check_metadata=True)
    assert was.drop_columns(["image"]).equals(now.drop_columns(["image"]))
    assert list(rows) == images_in(".parquet", before)
    for row, old, new in zip(rows.values(), was["image"].to_pylist(), now["image"].to_pylist(), strict=True):
        if row["status"] == "done":
            _check_result(row, old, new)
        else:
            assert not new, row["item"]


def _check_side_files(there: Folder, here: Folder, shard: str, rows: list[Row], failed: Mapping[str, str]) -> None:
    if not shard.endswith(".tar"):
        return
    stem = shard.removesuffix(".tar")
    done = {_key(row["item"], shard): row for row in rows if row["status"] == "done"}
    was, now = there.rows(f"{stem}.parquet"), here.rows(f"{stem}.parquet")
    assert [row["key"] for row in was] == [row["key"] for row in now], stem
    for old, new in zip(was, now, strict=True):
        assert {k: v for k, v in old.items() if k not in _OUTCOME} == {k: new[k] for k in old if k not in _OUTCOME}
        if new["key"] in failed:
            assert (new["status"], new["error_message"]) == ("failed_to_swap", failed[new["key"]])
        else:
            told = done[new["key"]]
            facts = (told["width"], told["height"], old["status"], old["error_message"])
            assert (new["width"], new["height"], new["status"], new["error_message"]) == facts
    counts = json.loads(here.read(f"{stem}_stats.json"))
    assert (counts["successes"], counts["failed_to_swap"]) == (len(done), len(failed)), stem


def _members(data: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            file = tar.extractfile(info)
            yield info, b"" if file is None else file.read()


def _key(item: str, shard: str) -> str:
    return item.removeprefix(f"{shard}/").split(".")[0]
