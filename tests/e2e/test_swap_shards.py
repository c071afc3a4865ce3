"""A dataset in shards through the commands: swap, status, swap again, redrive, gc."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.jobs import SmallJob
from tests.shard_jobs import as_parquet, as_tars, make_job, pictures, read_files, write_files
from tests.shards import damaged_tars

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.long]


def test_shards_go_in_and_shards_come_out(tmp_path: Path) -> None:
    drawn = pictures(24)
    settings = make_job(tmp_path, drawn, tracking={"enabled": False, "contact_sheet": 4})
    files = as_tars(drawn[:12], 12) | {"b/00000.parquet": as_parquet(drawn, 12)["00001.parquet"]}
    files |= {"damaged.tar": damaged_tars()["cut in the data"], "README.md": b"a dataset"}
    (tmp_path / "swap.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    write_files(settings.inputs, files)
    job = SmallJob(tmp_path, {})
    code, planned = job.run("--dry-run")
    assert (code, planned["layout"], planned["inputs_left"]) == (0, "shards", 3)
    assert (planned["images_left"], planned["shards_of_unknown_size"]) == (12, 2)

    code, result = job.run()
    assert code == 1  # more than half of them failed: the table does not know b/
    assert result["items"] == {"total": 25, "done": 9, "skipped": 0, "failed": 16}
    assert result["reasons"] == {"not_analysed": 12, "unreadable": 3, "no_face": 1}
    assert Path(result["contact_sheet"]).exists()
    made = read_files(settings.output)
    assert sorted(made) == ["00000.parquet", "00000.tar", "00000_stats.json", "b/00000.parquet"]
    code, status = job.run(command="status")
    assert (status["status"], status["shards"], status["images_at_work"]) == ("finished", {"done": 3, "left": 0}, 0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert job.run()[1]["done_now"] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before

    code, redriven = job.run("reasons=[unreadable]", command="redrive")
    assert redriven["redriven"] == 3
    assert redriven["done_now"] == 3
    assert redriven["items"] == result["items"]
    assert read_files(settings.output) == made
    assert job.run(command="gc")[1]["found"] == {"partial": 0, "at_work": 0, "orphans": 0}
