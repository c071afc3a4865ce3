"""The same pictures in a folder, in tars and in Parquet, here and in a bucket, give the same results key for key."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.swapping.receipts import ReceiptBook
from tests.object_store import ObjectStore
from tests.shard_jobs import (
    HereJob,
    as_folder,
    as_parquet,
    as_tars,
    in_layout,
    make_job,
    pictures,
    read_files,
    write_files,
)
from tests.shards import read_tar

_TOLD = ("status", "reason", "output_sha256", "input_sha256", "width", "height")


def results_of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Result by its file name, from whatever layout."""
    found: dict[str, bytes] = {}
    tars = [name for name in files if name.endswith(".tar")]
    for name, data in files.items():
        if name.endswith(".tar"):
            found |= {one[0]: one[-1] for one in read_tar(data) if not one[0].endswith(("txt", "json"))}
        elif name.endswith(".parquet") and not tars:
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
            found |= {row["key"]: row["image"]["bytes"] for row in rows if row["image"] is not None}
        elif not name.endswith((".parquet", ".json")):
            found[name] = data
    return found


def told_of(job: HereJob) -> dict[str, tuple[Any, ...]]:
    """What the receipts say, by file name; the seconds and the shard's own facts left out."""
    if job.job.layout == "files":
        rows = ReceiptBook(job.plan.output()).read().to_pylist()
    else:
        rows = [row for shard in sorted(job.job.items) for row in job.receipts(shard)]
    return {
        row["item"].rpartition("/")[2]: (
            *(row[name] for name in _TOLD),
            row["detail"].replace(row["item"], "ITEM"),
            [face["action"] + face["source"] for face in row["faces"]],
        )
        for row in rows
    }


def test_a_dataset_gives_the_same_results_in_every_layout_and_place(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    drawn = pictures(24)
    settings = make_job(tmp_path, drawn)
    layouts = {"folder": as_folder(drawn), "tars": as_tars(drawn, 12), "parquet": as_parquet(drawn, 12)}
    places = {"here": str(tmp_path), "bucket": f"s3://{object_store.bucket}/agree"}
    results, told = {}, {}
    for layout, files in layouts.items():
        for place, root in places.items():
            inputs, output = f"{root}/{layout}/in", f"{root}/{layout}/out"
            write_files(inputs, files)
            job = HereJob.of(in_layout(settings, inputs, output))
            if job.job.layout == "files":
                job.run_files()
            else:
                job.run()
            results[layout, place] = results_of(read_files(output))
            told[layout, place] = told_of(job)
    expected, said = results["folder", "here"], told["folder", "here"]
    assert len(expected) == 18
    assert sorted({one[1] for one in said.values()}) == ["", "no_face", "not_analysed", "unreadable"]
    for where in results:
        assert results[where] == expected, where
        assert told[where] == said, where
