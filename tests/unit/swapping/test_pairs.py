from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.runners.planning import Job, plan_job
from pipeline.swapping import FaceSwapper
from pipeline.types import Receipt
from tests.factories import add_input, encode_png, scene, scene_faces, small_job


def planned(root: Path, table: str) -> Job:
    (root / "pairs.csv").write_text(table)
    settings = small_job(root, images=2, pairs=str(root / "pairs.csv"))
    made = scene(3, seed=7)
    add_input(root, "three.png", encode_png(made.frame), scene_faces(made))
    return plan_job(settings)


def swapped(job: Job) -> dict[str, Receipt]:
    swapper = FaceSwapper(job.plan)
    return {file.item: swapper(file) for file in job.todo}


def test_every_row_is_one_result_under_its_own_name(tmp_path: Path) -> None:
    job = planned(tmp_path, "target,source,face,output\nthree.png,b,,\nthree.png,a,1,other/x.png\n")
    receipts = swapped(job)
    assert {name: [face.source for face in receipt.faces] for name, receipt in receipts.items()} == {
        "three_b.png": ["b", "b", "b"],
        "other/x.png": ["", "a", ""],
    }
    assert (tmp_path / "out" / "three_b.png").read_bytes() != (tmp_path / "out" / "other" / "x.png").read_bytes()
    assert job.paths == {"three_b.png": "three.png", "other/x.png": "three.png"}


def test_the_largest_face_alone_becomes_the_source(tmp_path: Path) -> None:
    (receipt,) = swapped(planned(tmp_path, "target,source,face\nthree.png,a,largest\n")).values()
    assert sorted(face.action for face in receipt.faces) == ["kept", "kept", "swapped"]


def test_a_target_that_is_not_there_is_a_reason_and_a_source_that_is_not_there_stops_the_plan(tmp_path: Path) -> None:
    (receipt,) = swapped(planned(tmp_path, "target,source\nnone.png,a\n")).values()
    assert (receipt.status, receipt.reason) == ("failed", "missing")
    assert "the table names it" in receipt.detail
    with pytest.raises(ConfigError, match="has no source carla"):
        planned(tmp_path, "target,source\nthree.png,carla\n")


def test_another_table_is_another_recipe(tmp_path: Path) -> None:
    recipes = {planned(tmp_path, f"target,source\nthree.png,{name}\n").plan.recipe for name in "ab"}
    assert len(recipes) == 2
