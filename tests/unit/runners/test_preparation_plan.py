from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PrepareConfig
from pipeline.errors import DatasetError, OutputError
from pipeline.portrait_pack import pack_folder
from pipeline.preparation.listing import cut_blocks, list_photos
from pipeline.runners.preparation_plan import PrepareJob, describe_preparation, plan_preparation
from pipeline.runners.wire import blocks_to_tables, table_to_blocks


def make_tree(root: Path, people: int = 3) -> None:
    for person in range(people):
        (root / "in" / f"p{person}").mkdir(parents=True, exist_ok=True)
        for number in range(4):
            (root / "in" / f"p{person}" / f"{number}.jpg").write_bytes(b"x" * (number + 1))


def planned(root: Path, **changes: Any) -> PrepareJob:
    tree = {"inputs": str(root / "in"), "output": str(root / "out"), "models": pack_folder("portraits")}
    return plan_preparation(PrepareConfig.model_validate(tree | {"photos_per_shard": 5} | changes))


def test_planning_counts_what_is_there_and_writes_nothing(tmp_path: Path) -> None:
    make_tree(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    plan = describe_preparation(planned(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan["photos_found"], plan["photos_left"], plan["bytes_left"]) == (12, 12, 30)
    assert (plan["identities_labelled"], plan["shards"], plan["shards_left"]) == (3, 3, 3)


def test_the_recipe_depends_on_what_decides_the_set_and_on_nothing_else(tmp_path: Path) -> None:
    make_tree(tmp_path)
    job = planned(tmp_path)
    deciding: list[dict[str, Any]] = [{"seed": 1}, {"labels": "cluster"}, {"filters": {"min_photos": 3}}]
    for changes in deciding:
        assert planned(tmp_path, **changes).recipe != job.recipe, changes
    others: list[dict[str, Any]] = [{"pool": {"workers": 7}}, {"tracking": {"enabled": False}}]
    for changes in [*others, {"images": {"jpeg_quality": 50}}]:
        assert planned(tmp_path, **changes).recipe == job.recipe, changes

    def shards(**changes: Any) -> list[str]:
        return [block.digest for block in planned(tmp_path, **changes).blocks]

    assert shards(filters={"min_photos": 3, "outlier_cosine": 0.1}, cluster={"min_cosine": 0.5}) == shards()
    assert not set(shards(filters={"min_face_px": 65})) & set(shards())
    assert not set(shards(labels="cluster")) & set(shards())


def test_one_identity_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_tree(tmp_path, people=1)
    with pytest.raises(DatasetError, match=r"4 photographs, all of p0; training swaps between people and needs two\."):
        planned(tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_output_of_another_command_or_other_photographs_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path)
    job = planned(tmp_path)
    record = tmp_path / "out" / "_simswap" / "job.json"
    record.parent.mkdir(parents=True)
    (tmp_path / "out" / "shards").mkdir()
    (tmp_path / "out" / "shards" / "00000.parquet").touch()
    facts = {"command": "prepare", "recipe": job.recipe, "settings": job.settings.model_dump(mode="json")}
    record.write_text(json.dumps(facts))
    assert planned(tmp_path).known == facts
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"different: inputs \(was '.*/in'\)\. Choose"):
        planned(tmp_path, inputs=str(tmp_path / "elsewhere"))
    assert planned(tmp_path, inputs=str(tmp_path / "elsewhere"), overwrite=True).known == {}
    record.write_text(json.dumps({"command": "swap"}))
    with pytest.raises(OutputError, match="holds the results of simswap swap"):
        planned(tmp_path, inputs=str(tmp_path / "elsewhere"))


def test_blocks_come_to_the_workers_as_they_were(tmp_path: Path) -> None:
    make_tree(tmp_path)
    settings = PrepareConfig(inputs=str(tmp_path / "in"), output="out", models="none")
    blocks = cut_blocks(list_photos(settings).photos, 5, "recipe")
    assert [block for table in blocks_to_tables(blocks) for block in table_to_blocks(table)] == blocks
