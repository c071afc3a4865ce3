from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import ModelConfig, PrepareConfig, SwapConfig
from pipeline.media.inputs import InputFile
from pipeline.model.checkpoint import CheckpointHeader, EncoderReference
from pipeline.portrait_pack import pack_folder
from pipeline.preparation.listing import Photo, list_photos
from pipeline.preparation.prepare import Prepare, Prepared
from pipeline.swapping import Analyse, Plan
from pipeline.synthetic.people import Scene
from pipeline.types import Identity
from tests.bad_images import write_bad_images
from tests.factories import encode_png, scene, unit_vectors
from tests.fakes import ExactAnalyser

OPEN = {"min_face_px": 0.0, "min_sharpness": 0.0, "max_yaw": 90.0, "max_pitch": 90.0}


def settings_of(root: Path, filters: dict[str, float] | None = None, **changes: Any) -> PrepareConfig:
    tree = {"inputs": str(root / "in"), "output": str(root / "out"), "models": "none", "crop_size": 64}
    return PrepareConfig.model_validate(tree | {"filters": OPEN | (filters or {})} | changes)


def add_photo(root: Path, item: str, data: bytes) -> Photo:
    path = root / "in" / item
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Photo(InputFile(item, len(data), path.stat().st_mtime_ns), item.split("/")[0])


def prepared(root: Path, made: Scene, filters: dict[str, float] | None = None, score: float = 0.9) -> Prepared:
    prepare = Prepare(settings_of(root, filters), ExactAnalyser([made], scores=[score]))
    return prepare(add_photo(root, "anna/1.png", encode_png(made.frame)))


def decoded(crop: bytes) -> NDArray[np.float64]:
    pixels = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(pixels, np.float64)


def test_a_good_photograph_becomes_a_crop_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    made = scene(1, seed=3)
    result = prepared(tmp_path, made)
    assert (result.reason, result.detail, result.found) == ("", "", 1)
    assert result.sha256 == hashlib.sha256((tmp_path / "in/anna/1.png").read_bytes()).hexdigest()
    assert result.kept is not None
    measures = result.kept.measures
    assert (measures.faces.landmarks[0] == made.landmarks[0]).all()
    assert measures.face_px[0] == pytest.approx((made.box[0, 2:] - made.box[0, :2]).min())
    assert abs(measures.angles[0, 2] - made.spec.faces[0][1].roll) < 4
    assert measures.sharpness[0] > 2
    assert np.linalg.norm(result.kept.embedding[0]) == pytest.approx(1, abs=1e-5)
    assert decoded(result.kept.crops[0]).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("filters", "score", "reason", "says"),
    [
        ({}, 0.5, "low_score", "the detector is sure to 0.50, the least is 0.6"),
        ({"min_face_px": 500.0}, 0.9, "too_small", r"the face has \d+ px, the least is 500"),
        ({"max_yaw": 1.0}, 0.9, "turned_away", r"turned by -?\d+\.\d and -?\d+\.\d degrees"),
        ({"max_pitch": 0.1}, 0.9, "turned_away", "the most are 90 and 0.1"),
        ({"min_sharpness": 9.0}, 0.9, "blurred", r"sharpness \d\.\d\d, the least is 9"),
    ],
)
def test_every_filter_gives_its_reason_and_the_numbers_stay(
    tmp_path: Path, filters: dict[str, float], score: float, reason: str, says: str
) -> None:
    result = prepared(tmp_path, scene(1, seed=3), filters, score)
    assert result.reason == reason
    assert result.kept is None
    assert result.measures is not None
    assert len(result.measures.faces) == 1
    assert pytest.approx(score) == result.measures.faces.score[0]
    with pytest.raises(AssertionError, match=f"anna/1.png: .*{says}"):
        raise AssertionError(result.detail)


def test_of_several_faces_a_label_means_the_main_one_and_what_is_unsure_stands_back(tmp_path: Path) -> None:
    made = scene(3, seed=4)
    photo = add_photo(tmp_path, "anna/3.png", encode_png(made.frame))
    result = Prepare(settings_of(tmp_path), ExactAnalyser([made]))(photo)
    assert result.kept is not None
    assert (result.kept.measures.faces.box == made.box[[1]]).all(), "the one in the middle"
    assert result.detail == "anna/3.png: 3 faces; the main one was taken."

    unsure = ExactAnalyser([made], scores=[[0.9, 0.4, 0.8]])
    stood_in = Prepare(settings_of(tmp_path), unsure)(photo).kept
    assert stood_in is not None
    assert stood_in.measures.faces.box[0].tolist() in made.box[[0, 2]].tolist()
    everybody = Prepare(settings_of(tmp_path, labels="cluster", faces="all"), unsure)(photo).kept
    assert everybody is not None
    assert sorted(everybody.measures.faces.score.tolist()) == pytest.approx([0.8, 0.9])


def test_bad_files_become_reasons_and_stop_nothing(tmp_path: Path) -> None:
    made = scene(1)
    (tmp_path / "in" / "bad").mkdir(parents=True)
    expected = write_bad_images(tmp_path / "in" / "bad")
    good = add_photo(tmp_path, "good/1.png", encode_png(made.frame))
    settings = settings_of(tmp_path, images={"max_pixels": 50_000_000})
    prepare = Prepare(settings, ExactAnalyser([made]))
    listed = {photo.file.item: photo for photo in list_photos(settings).photos}
    assert len(listed) > 25
    for item, photo in listed.items():
        result = prepare(photo)
        if photo != good:
            wanted = expected[item.removeprefix("bad/")] or "no_face"
            assert (result.reason, result.kept) == (wanted, None), item
            assert result.detail.startswith(f"{item}: ")
        else:
            assert result.kept is not None


def test_photographs_that_nothing_labels_are_not_even_read(tmp_path: Path) -> None:
    prepare = Prepare(settings_of(tmp_path), ExactAnalyser([]))
    result = prepare(Photo(InputFile("nowhere.jpg", 1, 1), ""))
    assert (result.reason, result.detail) == (
        "no_label",
        "nowhere.jpg: in no folder, so nothing says who it is.",
    )


def check_same_crops(root: Path, pack: str, size: int) -> None:
    """What `Prepare` writes of all photographs below the inputs, beside what `Analyse` hands to the generator."""
    shared = {"inputs": str(root / "in"), "output": str(root / "out"), "models": pack}
    swap = SwapConfig.model_validate(shared | {"source": "nobody", "swapper": {"passthrough": True}})
    header = CheckpointHeader(ModelConfig(crop_size=size), EncoderReference("none", ""))
    analyse = Analyse(Plan(swap, header, (Identity("nobody", unit_vectors(1)[0]),), (), ""))
    exact, coded = (
        Prepare(PrepareConfig.model_validate(shared | {"crop_size": size, "crop_format": kind}))
        for kind in ("png", "jpeg")
    )
    for photo in list_photos(PrepareConfig.model_validate(shared)).photos:
        work, lossless, lossy = analyse(photo.file), exact(photo).kept, coded(photo).kept
        assert lossless is not None
        assert lossy is not None
        same = int(np.abs(work.faces.box - lossless.measures.faces.box).sum(axis=1).argmin())
        seen = work.crops[same].permute(1, 2, 0).numpy()
        assert (decoded(lossless.crops[0]) == seen).all()
        assert (work.faces.landmarks[same] == lossless.measures.faces.landmarks[0]).all()
        assert 10 * np.log10(255**2 / np.mean((decoded(lossy.crops[0]) - seen) ** 2)) > 38
        assert float(lossless.embedding[0] @ work.faces.embedding[same]) > 0.99999


@pytest.mark.parametrize("size", [112, 224])
def test_the_crop_of_the_set_is_the_crop_that_swapping_sees(tmp_path: Path, size: int) -> None:
    for seed in range(3):
        add_photo(tmp_path, f"x/{seed}.png", encode_png(scene(1 + seed, seed, 200).frame))
    check_same_crops(tmp_path, pack_folder("portraits"), size)


@pytest.mark.assets
@pytest.mark.parametrize("size", [112, 224])
def test_it_is_so_for_real_photographs(tmp_path: Path, assets: Path, pack: str, size: int) -> None:
    for number, folder in enumerate(sorted((assets / "photos" / "people").iterdir())[:40:10]):
        add_photo(tmp_path, f"x/{number}.jpg", (folder / "01.jpg").read_bytes())
    add_photo(tmp_path, "x/group.jpg", (assets / "photos" / "groups" / "three_people.jpg").read_bytes())
    check_same_crops(tmp_path, pack, size)
