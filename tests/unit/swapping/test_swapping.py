from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import ModelConfig, SwapConfig
from pipeline.media.images import read_image
from pipeline.media.inputs import InputFile, list_inputs
from pipeline.runners.planning import plan_job
from pipeline.swapping import BLURRED, Analyse, FaceSwapper, Plan, Swap
from pipeline.types import Receipt
from tests.factories import add_input, encode_png, no_faces, parser_onnx, scene, scene_faces, small_job, tiny_checkpoint


def changed(settings: SwapConfig, **changes: Any) -> SwapConfig:
    tree = settings.model_dump()
    for name, value in changes.items():
        section, _, leaf = name.partition("__")
        if leaf:
            tree[section][leaf] = value
        else:
            tree[section] = value
    return SwapConfig.model_validate(tree)


def planned(settings: SwapConfig) -> Plan:
    return plan_job(settings).plan


def swap_all(settings: SwapConfig) -> dict[str, Receipt]:
    swapper = FaceSwapper(planned(settings))
    return {file.item: swapper(file) for file in list_inputs(settings.inputs)}


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_face_is_swapped_and_the_rest_of_the_picture_stays(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    receipts = swap_all(settings)
    assert {r.status for r in receipts.values()} == {"done"}
    for item, receipt in receipts.items():
        before, after = pixels(tmp_path / "in" / item), pixels(tmp_path / "out" / item)
        different = (before != after).any(axis=2)
        assert before.shape == after.shape
        assert different.any()
        assert not different[-1].any()
        assert not different[0].any()
        assert [face.action for face in receipt.faces] == ["swapped"] * len(receipt.faces)
        assert receipt.output_sha256 == hashlib.sha256((tmp_path / "out" / item).read_bytes()).hexdigest()
        assert (receipt.width, receipt.height) == (before.shape[1], before.shape[0])


def test_with_passthrough_the_faces_come_back_to_40_db_and_the_rest_exactly(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path), swapper__passthrough=True)
    settings = changed(
        settings, checkpoint=tiny_checkpoint(tmp_path, ModelConfig(crop_size=224, widths=(4, 8), blocks=1))
    )
    for item, receipt in swap_all(settings).items():
        before, after = (pixels(tmp_path / folder / item).astype(float) for folder in ("in", "out"))
        inside = np.zeros(before.shape[:2], bool)
        for face in receipt.faces:
            left, top, right, bottom = (round(v) for v in face.box)
            inside[top:bottom, left:right] = True
        assert 10 * np.log10(255**2 / np.mean((before - after)[inside] ** 2)) > 40
        around = np.zeros_like(inside)
        for face in receipt.faces:
            left, top, right, bottom = (round(v) for v in face.box)
            reach = max(right - left, bottom - top)
            around[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = True
        assert (before == after)[~around].all()


def test_sources_go_round_and_every_face_says_who_it_became(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    made = scene(3, seed=7)
    add_input(tmp_path, "three.png", encode_png(made.frame), scene_faces(made))
    receipt = swap_all(settings)["three.png"]
    assert [face.source for face in receipt.faces] == ["a", "b", "a"]
    assert all(face.source_cosine_before is not None for face in receipt.faces)


@pytest.mark.parametrize(
    ("policy", "status", "reason"),
    [
        ("fail", "failed", "no_face"),
        ("drop", "skipped", "no_face"),
        ("blur", "done", "no_face: blurred"),
        ("copy", "done", "no_face: copied"),
    ],
)
def test_an_image_without_a_face_ends_as_the_policy_says(tmp_path: Path, policy: str, status: str, reason: str) -> None:
    settings = changed(small_job(tmp_path, images=1), policy__no_face=policy)
    picture = encode_png(scene(1).frame)
    add_input(tmp_path, "empty.png", picture, no_faces())
    receipt = swap_all(settings)["empty.png"]
    output = tmp_path / "out" / "empty.png"
    assert (receipt.status, receipt.reason) == (status, reason)
    assert output.exists() == (status == "done")
    if policy == "copy":
        assert output.read_bytes() == picture
    if policy == "blur":
        assert (pixels(output) != pixels(tmp_path / "in" / "empty.png")).any(axis=2).mean() > 0.5


@pytest.mark.parametrize("policy", ["fail", "drop", "blur", "copy"])
def test_a_face_that_is_not_sure_enough_ends_as_the_policy_says(tmp_path: Path, policy: str) -> None:
    settings = changed(small_job(tmp_path, images=1), policy__low_confidence=policy, analysis__confident_score=0.8)
    made = scene(2, seed=3)
    faces = scene_faces(made)
    unsure = replace(faces, score=np.array([0.9, 0.6], np.float32))
    add_input(tmp_path, "unsure.png", encode_png(made.frame), unsure)
    receipt = swap_all(settings)["unsure.png"]
    if policy in ("fail", "drop"):
        assert (receipt.status, receipt.reason) == ({"fail": "failed", "drop": "skipped"}[policy], "low_confidence")
        assert "Lower analysis.confident_score" in receipt.detail
        assert not (tmp_path / "out" / "unsure.png").exists()
    else:
        second = {"blur": "blurred", "copy": "kept"}[policy]
        assert [face.action for face in receipt.faces] == ["swapped", second]
        before, after = pixels(tmp_path / "in" / "unsure.png"), pixels(tmp_path / "out" / "unsure.png")
        x, y = faces.landmarks[1, 2].astype(int)
        assert (before[y - 5 : y + 5, x - 5 : x + 5] == after[y - 5 : y + 5, x - 5 : x + 5]).all() == (policy == "copy")


def test_an_image_whose_faces_all_stay_is_the_same_file(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path, images=2), policy__low_confidence="copy", analysis__confident_score=0.99)
    for item, receipt in swap_all(settings).items():
        assert (tmp_path / "out" / item).read_bytes() == (tmp_path / "in" / item).read_bytes()
        assert receipt.reason == "low_confidence: copied"


def test_a_result_that_is_not_finite_is_a_reason_and_not_a_black_face(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=2)
    swapper = FaceSwapper(planned(settings))
    assert swapper.swap._generator is not None
    with torch.no_grad():
        swapper.swap._generator.last.weight.fill_(torch.inf)
    receipt = swapper(next(list_inputs(settings.inputs)))
    assert (receipt.status, receipt.reason) == ("failed", "not_finite")
    assert not (tmp_path / "out").exists()


def test_a_mask_model_decides_which_part_of_a_face_is_replaced(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    item = next(list_inputs(settings.inputs)).item
    whole = swap_all(settings)[item]
    everything = pixels(tmp_path / "out" / item)
    mask = {"model": parser_onnx(tmp_path / "p.onnx", 19), "keep_classes": (1,), "mean": (0, 0, 0), "std": (1, 1, 1)}
    part = swap_all(changed(settings, mask=mask, output=str(tmp_path / "masked")))[item]
    before, masked = pixels(tmp_path / "in" / item), pixels(tmp_path / "masked" / item)
    assert whole.status == part.status == "done"
    replaced = (masked != before).any(axis=2)
    assert 0 < replaced.sum() < (everything != before).any(axis=2).sum()
    assert before[replaced, 0].mean() > before[(everything != before).any(axis=2) & ~replaced, 0].mean()


def test_a_receipt_without_a_result_says_what_is_known(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path, images=1), analysis__confident_score=0.99)
    (receipt,) = swap_all(settings).values()
    assert (receipt.status, receipt.reason, receipt.output) == ("failed", "low_confidence", "")
    assert len(receipt.input_sha256) == 64
    assert receipt.width > 0
    assert [face.action for face in receipt.faces] == ["none"]
    assert receipt.faces[0].score == pytest.approx(0.9)


def test_a_crowd_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path, images=2), analysis__max_faces=1)
    assert sorted(r.reason for r in swap_all(settings).values()) == ["", "too_many_faces"]


def test_a_sidecar_is_skipped_and_a_broken_image_fails(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    add_input(tmp_path, "notes.json", b"{}", None)
    add_input(tmp_path, "broken.jpg", b"{}", None)
    receipts = swap_all(settings)
    assert (receipts["notes.json"].status, receipts["notes.json"].reason) == ("skipped", "not_an_image")
    assert (receipts["broken.jpg"].status, receipts["broken.jpg"].reason) == ("failed", "unreadable")
    assert receipts["broken.jpg"].input_sha256 == hashlib.sha256(b"{}").hexdigest()


def test_the_longest_name_a_file_system_takes_is_no_problem(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    made = scene(1, seed=8)
    item = "漢" * 83 + ".png"  # 253 bytes
    add_input(tmp_path, item, encode_png(made.frame), scene_faces(made))
    assert swap_all(settings)[item].status == "done"


def test_only_the_largest_face_is_swapped_when_asked(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path), selection__mode="largest")
    for receipt in swap_all(settings).values():
        assert [face.action for face in receipt.faces].count("swapped") == 1


def test_an_image_that_is_not_in_the_table_is_not_taken_for_one_without_a_face(tmp_path: Path) -> None:
    settings = changed(small_job(tmp_path, images=1), policy__no_face="copy")
    add_input(tmp_path, "new.png", encode_png(scene(1).frame), None)
    receipt = swap_all(settings)["new.png"]
    assert (receipt.status, receipt.reason) == ("failed", "not_analysed")


def test_batches_over_many_inputs_give_what_each_input_gives_alone(tmp_path: Path) -> None:
    settings = small_job(tmp_path)
    plan = planned(settings)
    analyse, swap = Analyse(plan), Swap(plan)
    works = [analyse(file) for file in list_inputs(settings.inputs)]
    together, alone = swap(works), [swap([work])[0] for work in works]
    for a, b in zip(together, alone, strict=True):
        assert (a.crops.int() - b.crops.int()).abs().max() <= 1
        assert a.file == b.file


def test_a_call_never_changes_its_input(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    plan = planned(settings)
    work = Analyse(plan)(next(list_inputs(settings.inputs)))
    before = work.crops.clone()
    Swap(plan)([work])
    assert torch.equal(work.crops, before)
    assert BLURRED not in work.become


def test_an_input_that_changes_on_the_way_fails_and_shows_nothing(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    swapper = FaceSwapper(planned(settings))
    file = next(list_inputs(settings.inputs))
    work = swapper.swap([swapper.analyse(file)])[0]
    (tmp_path / "in" / file.item).write_bytes(encode_png(scene(1, seed=99).frame))
    receipt = swapper.finish(work)
    assert (receipt.status, receipt.reason) == ("failed", "changed")
    assert "changed while it was worked on" in receipt.detail
    assert not (tmp_path / "out").exists()


def test_a_missing_input_and_a_special_file_are_reasons(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    swapper = FaceSwapper(planned(settings))
    assert swapper(InputFile("gone.png", 10, 0)).reason == "gone"
    assert swapper(InputFile("pipe", 0, 0, "not a regular file")).status == "skipped"


def test_a_rotated_photograph_stays_rotated_and_its_upright_face_is_swapped(tmp_path: Path) -> None:
    settings = small_job(tmp_path, images=1)
    made = scene(1, seed=4)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "in" / "turned.png"
    Image.fromarray(np.rot90(made.frame).copy()).save(path, exif=exif)
    add_input(tmp_path, "turned.png", path.read_bytes(), scene_faces(made))
    assert swap_all(settings)["turned.png"].status == "done"
    output = tmp_path / "out" / "turned.png"
    assert Image.open(output).getexif()[0x0112] == 6
    upright = read_image(output.read_bytes(), "turned.png", settings.images).frame.permute(1, 2, 0).numpy()
    different = (upright != made.frame).any(axis=2)
    x, y = scene_faces(made).landmarks[0, 2].astype(int)
    assert different[y, x]
    assert not different[:, :3].any()
