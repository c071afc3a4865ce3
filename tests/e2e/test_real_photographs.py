"""Real detection, alignment, generator size and pasting on real photographs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.config import VARIANTS
from pipeline.faces.packs import file_digest, find_pack
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.generator import Generator
from tests.factories import published_tensor

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.long, pytest.mark.assets]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photographs(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All group photographs and one photograph each of 12 people."""
    root = tmp_path_factory.mktemp("real")
    for photo in (assets / "photos" / "groups").iterdir():
        place(root, "groups", photo)
    for person in sorted((assets / "photos" / "people").iterdir())[::26]:
        place(root, f"people/{person.name}", next(iter(sorted(person.glob("*.jpg")))))
    return root


def place(root: Path, folder: str, photo: Path) -> None:
    (root / "in" / folder).mkdir(parents=True, exist_ok=True)
    (root / "in" / folder / photo.name).write_bytes(photo.read_bytes())


@pytest.fixture(scope="module")
def checkpoint(photographs: Path, pack: str) -> str:
    """A full-size generator with weights by the parity formula, bound to the pack's recogniser."""
    recogniser = find_pack(pack).recogniser
    with torch.device("meta"):
        shapes = Generator(VARIANTS["inference-224"]).state_dict()
    state = {key: published_tensor(key, value.shape) for key, value in shapes.items()}
    path = str(photographs / "generator.safetensors")
    save_checkpoint(path, state, VARIANTS["inference-224"], EncoderReference("r", file_digest(recogniser)), {})
    return path


def run(root: Path, pack: str, checkpoint: str, source: Path, output: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "jobs", "swap", str(ROOT / "jobs" / "configs" / "swap.yaml"), "inputs=in"]
    command += [f"output={output}", f"source={source}", f"checkpoint={checkpoint}", f"models={pack}", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("RGB")).astype(float)


def test_pasting_every_face_back_gives_the_photograph(
    photographs: Path, pack: str, checkpoint: str, assets: Path
) -> None:
    source = sorted((assets / "photos" / "synthetic_sources").iterdir())[0]
    result = run(
        photographs, pack, checkpoint, source, "pasted", "swapper.passthrough=true", "analysis.write_table=faces"
    )
    assert result["items"]["done"] == result["items"]["total"] == 16
    rows = pq.read_table(result["receipts"]).to_pylist()
    found = {row["item"]: len(row["faces"]) for row in rows}
    assert found["groups/solvay_1927_29_people.png"] >= 27
    for row in rows:
        before, after = pixels(photographs / "in" / row["item"]), pixels(photographs / "pasted" / row["item"])
        inside, around = np.zeros(before.shape[:2], bool), np.zeros(before.shape[:2], bool)
        for face in row["faces"]:
            left, top, right, bottom = (max(round(v), 0) for v in face["box"])
            inside[top:bottom, left:right] = True
            reach = max(right - left, bottom - top)
            around[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = True
            assert face["owner_cosine_after"] > 0.99
        assert 10 * np.log10(255**2 / max(np.mean((before - after)[inside] ** 2), 1e-9)) > 40, row["item"]
        if row["item"].endswith(".png"):
            assert (before == after)[~around].all(), row["item"]

    again = run(photographs, pack, checkpoint, source, "again", "swapper.passthrough=true", "analysis.read_table=faces")
    assert again["faces"] == result["faces"]
    second = {row["item"]: row["output_sha256"] for row in pq.read_table(again["receipts"]).to_pylist()}
    assert second == {row["item"]: row["output_sha256"] for row in rows}


def test_the_real_generator_at_its_real_size_replaces_every_face(
    photographs: Path, pack: str, checkpoint: str, assets: Path
) -> None:
    source = assets / "photos" / "people" / "person_001"
    result = run(photographs, pack, checkpoint, source, "swapped", "inputs=in/people")
    assert result["items"]["done"] == 12
    for row in pq.read_table(result["receipts"]).to_pylist():
        assert {face["action"] for face in row["faces"]} == {"swapped"}
        assert {face["source"] for face in row["faces"]} == {"person_001"}
        # Weights by formula show nobody: neither the owner nor the source is left.
        assert max(face["owner_cosine_after"] for face in row["faces"]) < 0.3


def test_who_looks_like_a_reference_becomes_the_source(
    photographs: Path, pack: str, checkpoint: str, assets: Path
) -> None:
    people = assets / "photos" / "people"
    reference = people / "person_001"
    words = ["selection.mode=mapping", f'selection.mapping={{"{reference}": person_010}}', "swapper.passthrough=true"]
    result = run(photographs, pack, checkpoint, people / "person_010", "mapped", *words)
    rows = {row["item"]: row for row in pq.read_table(result["receipts"]).to_pylist()}
    swapped = [item for item, row in rows.items() if any(face["action"] == "swapped" for face in row["faces"])]
    assert swapped == ["people/person_001/01.jpg"]
    others = set(rows) - set(swapped)
    for item in others:
        assert (photographs / "mapped" / item).read_bytes() == (photographs / "in" / item).read_bytes()
