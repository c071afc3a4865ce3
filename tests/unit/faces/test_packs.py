from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalysisConfig, ImagesConfig
from pipeline.errors import ConfigError, ModelPackError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.packs import Pack, find_pack, licence_note, load_face_analysis
from pipeline.faces.sources import load_sources
from pipeline.media.images import read_image


def test_a_missing_or_empty_pack_is_refused_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file.onnx"
    file.write_text("x")
    for models, says in (
        (str(tmp_path / "none"), "no such model pack"),
        (str(empty), "holds no .onnx file"),
        (str(file), "is a file, not a model pack"),
    ):
        with pytest.raises(ModelPackError, match=says):
            load_face_analysis(models, ["detection"], 1)


def test_a_name_that_cannot_be_downloaded_says_where_to_put_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.faces.packs.PACKS_ROOT", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there: no network in this test
    with pytest.raises(ModelPackError, match=r"could not download a pack of that name.*unpack it to .*no_such_pack"):
        load_face_analysis("no_such_pack", ["detection"], 1)


@pytest.mark.assets
def test_a_pack_without_a_recogniser_or_a_detector_is_refused(assets: Path, tmp_path: Path) -> None:
    for kept, says in (("det_500m.onnx", "recognition"), ("rec_mobilefacenet_y1.onnx", "no face detector")):
        folder = tmp_path / kept
        folder.mkdir()
        (folder / kept).symlink_to(assets / "models" / "y1" / kept)
        with pytest.raises(ModelPackError, match=says):
            find_pack(str(folder))


@pytest.mark.assets
def test_the_29_people_of_a_group_photograph_are_found(assets: Path, pack: str) -> None:
    analyser = FaceAnalyser(pack, "arcface", 224, AnalysisConfig())
    photo = assets / "photos" / "groups" / "solvay_1927_29_people.png"
    faces, crops = analyser(read_image(photo.read_bytes(), photo.name, ImagesConfig()).frame)
    assert len(faces) >= 27
    assert crops.pixels.shape == (len(faces), 3, 224, 224)
    assert (np.diff(faces.box[:, 0]) >= 0).all()
    assert np.allclose(np.linalg.norm(faces.embedding, axis=1), 1.0, atol=1e-4)


@pytest.mark.assets
def test_thin_tiny_and_empty_frames_hold_no_face(pack: str) -> None:
    import torch

    analyser = FaceAnalyser(pack, "arcface", 64, AnalysisConfig())
    for height, width in ((1, 1), (1, 65500), (20, 9000), (16, 16), (300, 400)):
        faces, crops = analyser(torch.zeros(height, width, 3, dtype=torch.uint8).permute(2, 0, 1))
        assert len(faces) == len(crops) == 0


@pytest.mark.assets
def test_sources_are_a_photograph_a_person_or_several_people(assets: Path, pack: str, tmp_path: Path) -> None:
    analyser = FaceAnalyser(pack, "arcface", 224, AnalysisConfig())
    people = assets / "photos" / "people"
    said: list[str] = []
    (one,) = load_sources(str(people / "person_001" / "01.jpg"), analyser, ImagesConfig(), said.append)
    (mean,) = load_sources(str(people / "person_001"), analyser, ImagesConfig(), said.append)
    assert one.embedding @ mean.embedding > 0.6
    assert len(mean.photos) >= 3
    root = tmp_path / "two"
    root.mkdir()
    for name in ("person_001", "person_002"):
        (root / name).symlink_to(people / name)
    assert [s.name for s in load_sources(str(root), analyser, ImagesConfig(), said.append)] == [
        "person_001",
        "person_002",
    ]


@pytest.mark.assets
def test_an_odd_photograph_among_a_persons_is_named_and_left_out(assets: Path, pack: str, tmp_path: Path) -> None:
    analyser = FaceAnalyser(pack, "arcface", 224, AnalysisConfig())
    people = assets / "photos" / "people"
    for n in (1, 2, 3, 4):
        (tmp_path / f"{n}.jpg").symlink_to(people / "person_001" / f"0{n}.jpg")
    (tmp_path / "stranger.jpg").symlink_to(people / "person_009" / "01.jpg")
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "wall.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    said: list[str] = []
    (person,) = load_sources(str(tmp_path), analyser, ImagesConfig(), said.append)
    assert person.outliers == ("stranger.jpg",)
    assert person.photos == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    told = "\n".join(said)
    assert all(name in told for name in ("stranger.jpg", "wall.png", "broken.jpg"))


@pytest.mark.assets
def test_a_source_without_a_face_is_refused(pack: str, tmp_path: Path) -> None:
    analyser = FaceAnalyser(pack, "arcface", 224, AnalysisConfig())
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "wall.png")
    with pytest.raises(ConfigError, match="shows no face"):
        load_sources(str(tmp_path / "wall.png"), analyser, ImagesConfig(), print)
    with pytest.raises(ConfigError, match="no such photograph"):
        load_sources(str(tmp_path / "none.jpg"), analyser, ImagesConfig(), print)


def test_a_pack_with_a_licence_of_its_own_says_so(tmp_path: Path) -> None:
    pack = Pack(str(tmp_path), "", "", None, (), "")
    assert "non-commercial" in licence_note(pack)
    (tmp_path / "LICENSE").write_text("Apache-2.0; ours\n\nthe whole text\n")
    assert licence_note(pack) == "Apache-2.0; ours"
