from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config import AnalysisConfig, ImagesConfig, Template
from pipeline.errors import ModelPackError
from pipeline.faces.alignment import cut_crops
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.identity import IdentityEncoder, average_identity
from pipeline.media.images import read_image
from tests.factories import landmarks_at, recogniser_onnx, textured_frame, unit_vectors


@pytest.mark.parametrize(("template", "size"), [("arcface", 64), ("arcface", 224), ("ffhq", 512)])
def test_embeddings_have_length_one_and_gradients_reach_the_crop(tmp_path: Path, template: str, size: int) -> None:
    encoder = IdentityEncoder(recogniser_onnx(tmp_path / "r.onnx"), template)  # type: ignore[arg-type]
    crops = torch.rand(2, 3, size, size, requires_grad=True)
    embedding = encoder(crops)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    embedding[:, 0].sum().backward()
    assert crops.grad is not None
    assert crops.grad.abs().sum() > 0


def test_the_encoder_stays_frozen_and_in_eval_mode_whatever_its_parent_does(tmp_path: Path) -> None:
    parent = nn.Sequential(IdentityEncoder(recogniser_onnx(tmp_path / "r.onnx"), "arcface"))
    parent.train()
    assert not parent[0].training
    assert not any(p.requires_grad for p in parent.parameters())


def test_both_templates_bring_the_same_face_to_the_same_place(tmp_path: Path) -> None:
    """What the recogniser is shown of one face differs little between an ArcFace and an FFHQ crop."""
    frame = textured_frame(400, 400)
    points = landmarks_at(200, 180, 60, 8)[None]
    path = recogniser_onnx(tmp_path / "r.onnx")
    sizes: list[tuple[Template, int]] = [("arcface", 224), ("ffhq", 512)]
    seen = [
        IdentityEncoder(path, template)._to_encoder_square(cut_crops(frame, points, template, size).pixels)
        for template, size in sizes
    ]
    middle = (slice(None), slice(None), slice(20, 92), slice(20, 92))
    assert (seen[0][middle] - seen[1][middle]).abs().mean() < 0.02


@pytest.mark.assets
def test_real_people_are_told_apart_from_crops_of_either_template(assets: Path, pack: str) -> None:
    people = sorted((assets / "photos" / "people").iterdir())[:8]
    for template, size in (("arcface", 224), ("ffhq", 512)):
        analyser = FaceAnalyser(pack, template, size, AnalysisConfig())  # type: ignore[arg-type]
        vectors, names = [], []
        for person in people:
            for photo in sorted(person.glob("*.jpg"))[:3]:
                faces, _ = analyser(read_image(photo.read_bytes(), photo.name, ImagesConfig()).frame)
                area = np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1)
                vectors.append(faces.embedding[area.argmax()])
                names.append(person.name)
        cosine = np.stack(vectors) @ np.stack(vectors).T
        same = np.equal.outer(names, names) & ~np.eye(len(names), dtype=bool)
        other = ~np.equal.outer(names, names)
        assert np.quantile(cosine[same], 0.05) > np.quantile(cosine[other], 0.95)


def test_the_scaling_of_pixels_is_read_off_the_network(assets: Path) -> None:
    raw = IdentityEncoder(str(assets / "models" / "y1" / "rec_mobilefacenet_y1.onnx"), "arcface")
    scaled = IdentityEncoder(str(assets / "models" / "buffalo_sc_dequant" / "w600k_mbf_dequant.onnx"), "arcface")
    assert (raw._raw_pixels, raw.embedding_size) == (True, 128)
    assert (scaled._raw_pixels, scaled.embedding_size) == (False, 512)


def test_a_network_that_gives_no_vector_is_refused(assets: Path) -> None:
    with pytest.raises(ModelPackError):
        IdentityEncoder(str(assets / "models" / "y1" / "det_500m.onnx"), "arcface")


def test_several_photographs_are_averaged() -> None:
    base = unit_vectors(1, seed=1)[0]
    noisy = base + 0.02 * unit_vectors(4, seed=2)
    vectors = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    identity = average_identity("anna", ["1", "2", "3", "4"], vectors)
    assert identity.embedding @ base > 0.999
    assert np.linalg.norm(identity.embedding) == pytest.approx(1.0, abs=1e-6)
    assert identity.outliers == ()


def test_a_photograph_of_somebody_else_is_named_and_left_out() -> None:
    base, stranger = unit_vectors(2, seed=3)
    vectors = np.stack([base, base, stranger, base])
    identity = average_identity("anna", ["1", "2", "x", "3"], vectors)
    assert identity.outliers == ("x",)
    assert identity.photos == ("1", "2", "3")
    assert identity.embedding @ base > 0.999


def test_when_nobody_fits_all_are_named_and_none_is_left_out() -> None:
    vectors = unit_vectors(5, seed=4)
    identity = average_identity("mixed", list("abcde"), vectors)
    assert set(identity.outliers) == set("abcde")
    assert identity.photos == tuple("abcde")
