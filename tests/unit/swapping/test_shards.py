"""Shards from inputs to outputs in one process: what comes out, what does not, and what is said about it."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import SwapConfig
from pipeline.errors import OutputError
from pipeline.media.inputs import InputFile
from pipeline.media.store import BOOKS, store_at
from pipeline.runners.planning import plan_job
from pipeline.swapping.receipts import SCHEMA
from pipeline.swapping.shards import ShardState, assemble_shard, index_shard, read_records
from pipeline.swapping.shards.record import RECORDS, Record, write_record
from pipeline.swapping.shards.reopen import failed_in, reopen_shard
from pipeline.swapping.shards.state import images_at_work, state_key
from tests.shard_jobs import HereJob, Picture, as_parquet, as_tars, make_job, members, pictures, read_files, write_files
from tests.shards import (
    JPEG,
    damaged_tars,
    hostile_members,
    layout,
    make_parquet,
    make_tar,
    member,
    read_tar,
    sparse_tar,
)

REASONS = {4: "no_face", 7: "unreadable", 9: "not_analysed"}


@pytest.fixture(scope="module")
def drawn() -> list[Picture]:
    return pictures(24)


def job_of(root: Path, drawn: list[Picture], files: dict[str, bytes], **changes: Any) -> SwapConfig:
    settings = make_job(root, drawn, **changes)
    write_files(settings.inputs, files)
    return settings


def is_another_picture(before: bytes, after: bytes) -> bool:
    one, two = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (before, after))
    return one.shape == two.shape and bool((one != two).any())


def leftovers(settings: SwapConfig) -> list[str]:
    """What a finished job leaves beside results, receipts and records."""
    known = (f"{BOOKS}/receipts", f"{BOOKS}/records", f"{BOOKS}/job.json")
    store = store_at(settings.output)
    return [file.name for file in store.list(BOOKS) if not file.name.startswith(known)]


def test_a_tar_comes_back_with_other_pictures_and_all_else_as_it_was(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn, 12))
    job = HereJob.of(settings)
    records = job.run()
    before, after = read_files(settings.inputs), read_files(settings.output)
    assert sorted(before) == sorted(after)
    assert not leftovers(settings)
    failed = {f"{n:05d}" for n in (4, 7, 9, 16, 19, 21)}
    for shard, record in records.items():
        old = [one for one in read_tar(before[shard]) if one[0].partition(".")[0] not in failed]
        new = read_tar(after[shard])
        assert [one[:-1] for one in new] == [one[:-1] for one in old]
        for (name, *_, data), (_, *_, result) in zip(old, new, strict=True):
            assert (data == result) if name.endswith(("txt", "json")) else is_another_picture(data, result)
        assert record.items == 12
        assert record.counts["statuses"] == {"done": 9, "failed": 3}
        assert record.counts["reasons"] == dict.fromkeys(REASONS.values(), 1)
        told = job.receipts(shard)
        inside = drawn[:12] if shard == "00000.tar" else drawn[12:]
        assert [row["item"] for row in told] == [f"{shard}/{p.name}" for p in inside]
        assert {n % 12: row["reason"] for n, row in enumerate(told) if row["status"] != "done"} == REASONS


def test_the_side_files_of_a_tar_tell_what_failed(tmp_path: Path, drawn: list[Picture]) -> None:
    files = as_tars(drawn[:12], 12)
    settings = job_of(tmp_path, drawn, files)
    job = HereJob.of(settings)
    job.run()
    after = read_files(settings.output)
    told = json.loads(after["00000_stats.json"])
    assert told == {
        "count": 12,
        "successes": 9,
        "failed_to_swap": 3,
        "status_dict": {"success": 9, "no_face": 1, "unreadable": 1, "not_analysed": 1},
    }
    assert layout(after["00000.parquet"]) == layout(files["00000.parquet"])
    rows = pq.read_table(pa.BufferReader(after["00000.parquet"])).to_pylist()
    for number, (row, receipt) in enumerate(zip(rows, job.receipts("00000.tar"), strict=True)):
        is_done = number not in REASONS
        assert row["key"] == f"{number:05d}"
        assert row["status"] == ("success" if is_done else "failed_to_swap")
        assert row["error_message"] == (None if is_done else receipt["detail"])
        assert row["width"] == (receipt["width"] if is_done else 1)
        assert row["sha256"] == (receipt["output_sha256"] if is_done else "x")


def test_parquet_of_hugging_face_comes_back_with_null_for_what_failed(tmp_path: Path, drawn: list[Picture]) -> None:
    files = as_parquet(drawn[:12], 12)
    settings = job_of(tmp_path, drawn, files)
    records = HereJob.of(settings).run()
    after = read_files(settings.output)
    assert layout(after["00000.parquet"]) == layout(files["00000.parquet"])
    rows = pq.read_table(pa.BufferReader(after["00000.parquet"])).to_pylist()
    assert [row["label"] for row in rows] == list(range(12))
    assert [row["key"] for row in rows] == [p.name for p in drawn[:12]]
    for number, row in enumerate(rows):
        if number in REASONS:
            assert row["image"] is None
        else:
            assert row["image"]["path"] == drawn[number].name
            assert is_another_picture(drawn[number].data, row["image"]["bytes"])
    assert records["00000.parquet"].counts["statuses"] == {"done": 9, "failed": 3}


def test_rows_without_a_key_go_by_their_number(tmp_path: Path, drawn: list[Picture]) -> None:
    good = [p for n, p in enumerate(drawn) if n % 12 not in REASONS][:5]
    named = [Picture(f"{n}.{p.name.rpartition('.')[2]}", p.data, p.faces) for n, p in enumerate(good)]
    settings = job_of(tmp_path, named, {"00000.parquet": make_parquet({"jpg": [p.data for p in named]})})
    records = HereJob.of(settings).run()
    assert records["00000.parquet"].counts["statuses"] == {"done": 5}


def test_a_damaged_tar_is_one_receipt_with_a_reason_and_the_others_are_done(
    tmp_path: Path, drawn: list[Picture]
) -> None:
    damaged = {f"{name}.tar": data for name, data in damaged_tars().items()}
    settings = job_of(tmp_path, drawn, damaged | {"text_stats.json": b"{}"} | as_tars(drawn[:2], 12))
    job = HereJob.of(settings)
    records = job.run()
    for name in damaged:
        assert records[name].counts["statuses"] == {"failed": 1}, name
        (told,) = job.receipts(name)
        assert (told["item"], told["reason"], told["output"]) == (name, "unreadable", "")
        assert name in told["detail"]
    assert records["00000.tar"].counts["statuses"] == {"done": 2}
    assert sorted(read_files(settings.output)) == ["00000.parquet", "00000.tar", "00000_stats.json"]
    assert not plan_job(settings).todo


@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", as_parquet(pictures(3), 3)["00000.parquet"][:-40]])
def test_damaged_parquet_is_one_receipt_with_a_reason(data: bytes, tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, {"bad.parquet": data})
    job = HereJob.of(settings)
    job.run()
    assert [row["reason"] for row in job.receipts("bad.parquet")] == ["unreadable"]
    assert read_files(settings.output) == {}


def test_what_is_no_file_is_a_reason_and_is_not_waited_for(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, {})
    os.mkfifo(tmp_path / "in" / "pipe.tar")
    (tmp_path / "in" / "dangling.tar").symlink_to(tmp_path / "nowhere")
    job = HereJob.of(settings)
    assert {name: record.counts["statuses"] for name, record in job.run().items()} == {
        "pipe.tar": {"skipped": 1},
        "dangling.tar": {"skipped": 1},
    }
    assert {job.receipts(name)[0]["reason"] for name in ("pipe.tar", "dangling.tar")} == {"not_a_file"}


@pytest.mark.parametrize("what", ["grows", "loses a picture", "goes", "becomes damaged"])
def test_a_shard_that_changes_meanwhile_gives_a_reason_and_no_result(
    what: str, tmp_path: Path, drawn: list[Picture]
) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12))
    job = HereJob.of(settings)
    (shard,) = job.job.todo
    index = index_shard(job.plan, shard)
    job.make(index)
    path = tmp_path / "in" / "00000.tar"
    if what == "goes":
        path.unlink()
    elif what == "becomes damaged":
        path.write_bytes(b"no tar any more")
    else:
        path.write_bytes(make_tar(members(drawn[:11] if what == "loses a picture" else drawn[:14])))
    record = assemble_shard(job.plan, shard, index.end)
    assert record.counts == record.counts | {"statuses": {"failed": 1}, "reasons": {"changed": 1}}
    assert read_files(settings.output) == {}
    if what != "goes":
        assert [file.item for file in plan_job(settings).todo] == ["00000.tar"]


def test_an_empty_shard_comes_back_empty(tmp_path: Path, drawn: list[Picture]) -> None:
    empty = make_parquet({"jpg": pa.array([], pa.binary())})
    settings = job_of(
        tmp_path, drawn, {"a.tar": make_tar([]), "b.parquet": empty, "c.tar": make_tar([member("x.txt")])}
    )
    records = HereJob.of(settings).run()
    assert {record.items for record in records.values()} == {0}
    assert {sum(record.counts["statuses"].values()) for record in records.values()} == {0}
    before, after = read_files(settings.inputs), read_files(settings.output)
    assert (after["a.tar"], after["c.tar"]) == (before["a.tar"], before["c.tar"])
    assert layout(after["b.parquet"]) == layout(empty)
    assert not plan_job(settings).todo


def test_hostile_members_harm_nothing_and_no_original_comes_through(tmp_path: Path, drawn: list[Picture]) -> None:
    good = [p for n, p in enumerate(drawn) if n % 12 not in REASONS and p.name.endswith("jpg")]
    original = good[0].data
    named = [Picture(f"good{n}.jpg", original, good[0].faces) for n in range(10)]
    hostile = [member(info.name, original) if data == JPEG else (info, data) for info, data in hostile_members()]
    hostile += [member("evil.pkl", b"cos\nsystem\n(S'touch harmed'\ntR."), member("caf\udce9.jpg", original)]
    settings = job_of(tmp_path, named, {"00000.tar": make_tar(hostile, "gnu"), "sparse.tar": sparse_tar()})
    outside = sorted(tmp_path.parent.iterdir())
    job = HereJob.of(settings)
    records = job.run()
    (after,) = (read_tar(read_files(settings.output)[name]) for name in ("00000.tar",))
    names = [one[0] for one in after]
    assert names == [*(f"good{n}.jpg" for n in range(10)), "evil.pkl"]
    assert all(is_another_picture(original, one[-1]) for one in after if one[0].startswith("good"))
    told = job.receipts("00000.tar")
    assert Counter((row["status"], row["reason"]) for row in told) == {("done", ""): 10, ("skipped", "not_a_file"): 10}
    (note,) = records["00000.tar"].notes
    assert "left out as hostile" in note
    assert sorted(tmp_path.parent.iterdir()) == outside
    assert original not in b"".join(read_files(settings.output).values())
    assert {row["status"] for row in job.receipts("sparse.tar")} == {"skipped", "failed"}
    assert read_tar(read_files(settings.output)["sparse.tar"]) == []


def test_a_sample_of_several_images_comes_out_whole_or_not_at_all(tmp_path: Path, drawn: list[Picture]) -> None:
    good, other = (p for p in (drawn[0], drawn[3]))  # both are JPEG
    some = [Picture("a.jpg", good.data, good.faces), Picture("b.jpg", other.data, other.faces)]
    files = [member("a.jpg", good.data), member("a.png", b"broken"), member("a.txt"), member("b.jpg", other.data)]
    settings = job_of(tmp_path, some, {"00000.tar": make_tar(files)})
    job = HereJob.of(settings)
    (record,) = job.run().values()
    assert [one[0] for one in read_tar(read_files(settings.output)["00000.tar"])] == ["b.jpg"]
    told = job.receipts("00000.tar")
    assert [(row["status"], row["reason"]) for row in told] == [
        ("failed", "incomplete_sample"),
        ("failed", "unreadable"),
        ("done", ""),
    ]
    assert told[0]["output"] == told[0]["output_sha256"] == ""
    assert "a.png" in told[0]["detail"]
    assert record.counts["actions"] == {"none": len(good.faces), "swapped": len(other.faces)}  # type: ignore[arg-type]


def test_pictures_that_the_settings_do_not_name_are_said_to_be_as_they_were(
    tmp_path: Path, drawn: list[Picture]
) -> None:
    files = [*members(drawn[:1]), member("00000.seg.png", b"x"), member("a.gif", b"y"), member("b.3gp", b"z")]
    settings = job_of(tmp_path, drawn, {"00000.tar": make_tar(files)})
    (record,) = HereJob.of(settings).run().values()
    (note,) = record.notes
    assert note.startswith("00000.tar: 3 members look like pictures or films and are as they were: 00000.seg.png, ")


def test_a_damaged_side_file_is_left_out_and_said(tmp_path: Path, drawn: list[Picture]) -> None:
    files = as_tars(drawn[:1], 12) | {"00000.parquet": b"no table", "00000_stats.json": b"[]"}
    settings = job_of(tmp_path, drawn, files)
    (record,) = HereJob.of(settings).run().values()
    assert list(read_files(settings.output)) == ["00000.tar"]
    assert len(record.notes) == 2


# Going on


def test_what_was_in_parts_before_a_kill_is_not_done_again(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12))
    whole = settings.model_copy(update={"output": str(tmp_path / "whole")})
    HereJob.of(whole).run()
    job = HereJob.of(settings)
    (shard,) = job.job.todo
    index = index_shard(job.plan, shard)
    job.make(replace(index, left=index.left[3:8]))
    assert images_at_work(job.plan.output()) == 5
    again = index_shard(job.plan, shard)
    assert [file.number for file in again.left] == [0, 1, 2, 8, 9, 10, 11]
    job.run()
    assert read_files(settings.output) == read_files(whole.output)
    assert images_at_work(job.plan.output()) == 0


def test_a_shard_is_not_put_together_before_every_image_has_ended(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12))
    job = HereJob.of(settings)
    (shard,) = job.job.todo
    with pytest.raises(OutputError, match="its parts are not all there"):
        assemble_shard(job.plan, shard)
    assert read_files(settings.output) == {}


def test_putting_a_shard_together_twice_tells_the_same(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12))
    job = HereJob.of(settings)
    (record,) = job.run().values()
    made = read_files(settings.output)
    assert assemble_shard(job.plan, job.job.todo[0]) == record
    assert read_files(settings.output) == made

    receipts = pq.read_table(tmp_path / "out" / BOOKS / "receipts" / "00000.tar.parquet", schema=SCHEMA)
    some = receipts.slice(0, 1).append_column("number", pa.array([0], pa.int64()))
    ShardState(job.plan.output(), state_key(job.job.todo[0], job.plan.recipe)).keep(some)  # died while it removed parts
    assert assemble_shard(job.plan, job.job.todo[0]) == record
    assert read_files(settings.output) == made


def test_a_result_that_was_removed_is_made_again(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn, 12))
    HereJob.of(settings).run()
    made = read_files(settings.output)
    assert not plan_job(settings).todo
    (tmp_path / "out" / "00001.tar").unlink()
    job = HereJob.of(settings)
    assert [file.item for file in job.job.todo] == ["00001.tar"]
    job.run()
    assert read_files(settings.output) == made


# Once more what failed


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_what_was_done_stays_and_what_failed_is_folded_in(kind: str, tmp_path: Path, drawn: list[Picture]) -> None:
    files = as_tars(drawn[:12], 12) if kind == "tar" else as_parquet(drawn[:12], 12)
    table = make_job(tmp_path, drawn[:12])
    write_files(table.inputs, files)
    job = HereJob.of(table)
    (record,) = job.run().values()
    first, receipts = read_files(table.output), job.receipts(record.shard)
    assert Counter(failed_in(job.plan.output(), record).column("reason").to_pylist()) == Counter(REASONS.values())

    reopen_shard(job.plan.output(), record, ["not_analysed"])
    assert not read_records(job.plan.output())
    index = index_shard(job.plan, job.job.todo[0])
    assert [file.number for file in index.left] == [9]
    job.swapper.analyse._table = _Knowing(job.swapper.analyse._table, drawn[9])  # type: ignore[assignment]
    job.make(index)
    after = assemble_shard(job.plan, job.job.todo[0])
    assert after.counts["statuses"] == {"done": 10, "failed": 2}
    again = job.receipts(record.shard)
    for number, (old, new) in enumerate(zip(receipts, again, strict=True)):
        assert (new == old) if number != 9 else (new["status"] == "done")
    old, new = (pictures_in(data[record.shard], kind) for data in (first, read_files(table.output)))
    assert {name: new[name] for name in old} == old
    assert len(new) == len(old) + (3 if kind == "tar" else 1)
    assert not leftovers(table)


def test_without_a_failure_of_that_reason_a_shard_stays_closed(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12) | {"bad.tar": b"no tar"})
    job = HereJob.of(settings)
    for record in job.run().values():
        reopen_shard(job.plan.output(), record, ["killed_worker"])
    assert len(read_records(job.plan.output())) == 2
    for record in read_records(job.plan.output()).values():
        reopen_shard(job.plan.output(), record, ["unreadable"])
    assert [file.item for file in plan_job(settings).todo] == ["00000.tar", "bad.tar"]


def test_a_result_that_went_while_its_shard_was_open_is_made_again(tmp_path: Path, drawn: list[Picture]) -> None:
    settings = job_of(tmp_path, drawn, as_tars(drawn[:12], 12))
    job = HereJob.of(settings)
    (record,) = job.run().values()
    made = read_files(settings.output)
    reopen_shard(job.plan.output(), record, [])
    (tmp_path / "out" / "00000.tar").unlink()
    index = index_shard(job.plan, job.job.todo[0])
    job.make(index)
    assert len(index.left) == 12
    assert assemble_shard(job.plan, job.job.todo[0]).counts["statuses"] == {"done": 9, "failed": 3}
    assert read_files(settings.output) == made


# Books


def test_a_damaged_record_counts_as_none_and_a_record_of_another_input_does_not_count(tmp_path: Path) -> None:
    store = store_at(str(tmp_path))
    shard = InputFile("a/b.tar", 5, 7)
    record = Record("a/b.tar", "r", 5, 7, "digest", 1, {"statuses": {"done": 1}}, [])
    write_record(store, record)
    store.write(f"{RECORDS}/damaged.tar.json", b"{")
    store.write(f"{RECORDS}/other.tar.json", b'{"shard": "other.tar", "colour": 1}')
    assert read_records(store) == {"a/b.tar": record}
    assert record.is_of(shard, "r")
    for other in (InputFile("a/b.tar", 6, 7), InputFile("a/b.tar", 5, 8), InputFile("b.tar", 5, 7)):
        assert not record.is_of(other, "r")
    assert not record.is_of(shard, "another")


def pictures_in(shard: bytes, kind: str) -> dict[str, bytes]:
    if kind == "tar":
        return {one[0]: one[-1] for one in read_tar(shard)}
    rows = pq.read_table(pa.BufferReader(shard)).to_pylist()
    return {row["key"]: row["image"]["bytes"] for row in rows if row["image"] is not None}


class _Knowing:
    """An analysis table that has learnt of one more picture."""

    def __init__(self, table: Any, picture: Picture) -> None:
        self._table, self._picture = table, picture

    def rows(self, item: str) -> list[dict[str, object]]:
        if not item.endswith(self._picture.name):
            return list(self._table.rows(item))
        known = self._table.rows(item.replace(self._picture.name, "00000.jpg"))
        return [row | {"input_sha256": ""} for row in known]
