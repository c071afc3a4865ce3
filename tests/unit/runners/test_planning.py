from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.config import PolicyConfig, SwapConfig
from pipeline.errors import CheckpointError, ConfigError, OutputError
from pipeline.faces.table import write_faces
from pipeline.media.inputs import InputFile
from pipeline.media.store import Store
from pipeline.runners.planning import describe_plan, plan_job
from pipeline.swapping import FaceSwapper, Plan
from pipeline.swapping.receipts import ReceiptBook
from pipeline.types import Receipt
from tests.factories import add_input, encode_png, scene, scene_faces, small_job


def test_planning_writes_nothing(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*"))
    plan = describe_plan(plan_job(settings))
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert (plan["inputs_found"], plan["inputs_left"]) == (4, 4)
    assert [s["name"] for s in plan["sources"]] == ["a", "b"]


def test_the_recipe_depends_on_what_decides_a_result_and_on_nothing_else(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    recipe = plan_job(settings).plan.recipe

    def with_change(section: str, **change: object) -> str:
        tree = settings.model_dump()
        tree[section] |= change
        return plan_job(SwapConfig.model_validate(tree)).plan.recipe

    assert with_change("policy", no_face="copy") != recipe
    assert with_change("swapper", passthrough=True) != recipe
    assert with_change("images", jpeg_quality=80) != recipe
    assert with_change("swapper", batch_size=99) == recipe
    assert with_change("tracking", enabled=False) == recipe
    assert with_change("analysis", write_table=None) == recipe
    assert with_change("pools", swap={"workers": 7}) == recipe


def test_an_encoder_that_did_not_train_the_generator_is_refused(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    made = scene(1)
    for part in (tmp_path / "table").iterdir():
        part.unlink()
    write_faces(str(tmp_path / "table"), [("x", "", scene_faces(made))], "another encoder")
    with pytest.raises(CheckpointError, match="was trained with identity encoder none, not"):
        plan_job(settings)


@pytest.mark.assets
def test_another_pack_than_the_checkpoints_is_refused(tmp_path: Path, assets: Path) -> None:
    settings = small_job(tmp_path).model_copy(update={"models": str(assets / "models" / "y1")})
    with pytest.raises(CheckpointError, match="Set models to the pack that trained it"):
        plan_job(settings)


def test_an_output_of_somebody_else_is_refused_always(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").write_text("mine")
    with pytest.raises(OutputError, match="no job's results"):
        plan_job(settings)
    with pytest.raises(OutputError, match="Choose an empty or new folder"):
        plan_job(settings.model_copy(update={"overwrite": True}))


def test_an_empty_or_missing_input_folder_is_refused(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    (tmp_path / "void").mkdir()
    for inputs, says in ((str(tmp_path / "void"), "holds no files"), (str(tmp_path / "none"), "no such folder")):
        with pytest.raises(ConfigError, match=says):
            plan_job(settings.model_copy(update={"inputs": inputs}))


def test_names_that_are_not_utf8_and_special_files_are_listed_with_their_problem(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    os.mkfifo(tmp_path / "in" / "pipe")
    (tmp_path / "in" / "dangling.png").symlink_to(tmp_path / "nowhere")
    with open(os.path.join(os.fsencode(tmp_path / "in"), b"caf\xe9.png"), "wb") as file:  # noqa: PTH118
        file.write(b"x")
    problems = {file.item: file.problem for file in plan_job(settings).todo if file.problem}
    assert set(problems) == {"pipe", "dangling.png", "caf\\xe9.png"}


def test_the_books_of_another_job_are_no_inputs(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=2)
    add_input(tmp_path, "_simswap/receipts.parquet", encode_png(scene(1).frame), None)
    assert len(plan_job(settings).items) == 2


def test_a_job_that_never_made_anything_does_not_hold_its_output(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    books = tmp_path / "out" / "_simswap"
    books.mkdir(parents=True)
    (books / "job.json").write_text('{"recipe": "another"}')
    assert len(plan_job(settings).todo) == 4


def test_an_output_of_another_recipe_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    plan = plan_job(settings).plan
    book = ReceiptBook(Store(settings.output))
    book.add([ended(plan)])
    facts = {"recipe": plan.recipe, "settings": plan.settings.model_dump(mode="json")}
    ((tmp_path / "out" / "_simswap") / "job.json").write_text(json.dumps(facts))
    other = settings.model_copy(update={"policy": PolicyConfig(no_face="copy")})
    with pytest.raises(OutputError, match=r"different: policy\.no_face \(was 'fail'\)\. Choose"):
        plan_job(other)
    assert len(plan_job(other.model_copy(update={"overwrite": True})).todo) == 4


def ended(plan: Plan) -> Receipt:
    return FaceSwapper(plan)(InputFile("gone.png", 1, 2))
