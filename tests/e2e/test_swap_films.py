"""Videos through the command: beside images, once, and not again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.media.video import FOREVER, Span, probe
from pipeline.media.video_decoding import decode
from pipeline.portrait_pack import shipped_generator
from tests.e2e.test_swap_command import run, start
from tests.unit.swapping.test_films import KIND, drawn, film, frames, job

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def state(root: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in (root / "out").rglob("*") if path.is_file()]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


@pytest.mark.long
def test_the_faces_of_a_film_are_swapped(tmp_path: Path) -> None:
    film(tmp_path, kind=replace(KIND, frames=10))
    settings = job(
        tmp_path,
        checkpoint=shipped_generator(),
        swapper={},
        videos={"segments": {"count": 2}, "encoder": {"preset": "ultrafast"}},
    )
    (tmp_path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    code, result, stderr = run(tmp_path)
    assert code == 0, stderr
    assert result["items"] == {"total": 1, "done": 1, "skipped": 0, "failed": 0}
    (row,) = pq.read_table(result["receipts"]).to_pylist()
    assert {face["source"] for face in row["faces"]} == {"s0", "s1"}
    before, after = (frames(tmp_path / folder / "film.mp4") for folder in ("in", "out"))
    assert after[0] == before[0], "every frame at its time"
    assert (np.abs(after[1].astype(int) - before[1]).max(axis=(1, 2, 3)) > 40).all(), "faces differ in each of them"
    assert not (tmp_path / "out/_simswap/films").exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_folder_of_images_and_videos_is_anonymised_once_whatever_kills_it(tmp_path: Path) -> None:
    film(tmp_path, "clips/film.mp4")
    film(tmp_path, "clips/old.avi")
    Image.fromarray(drawn(0)).save(tmp_path / "in" / "still.png")
    (tmp_path / "in" / "broken.mov").write_bytes(b"\x00" * 5000)
    settings = job(
        tmp_path,
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        pools={name: {"workers": 1, "cpus": 0.4} for name in ("analyse", "swap", "finish")},
        ray={"num_cpus": 2},
        videos={"segments": {"count": 4}, "encoder": {"crf": 4, "preset": "ultrafast"}},
        selection={"mode": "anonymise"},
        policy={"leak": "copy"},  # crops are put back as they were, so everybody can be recognised
    )
    (tmp_path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    killed = start(tmp_path)
    seen = wait_for(lambda: list((tmp_path / "out/_simswap/films").glob("*/look-*.npz")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    code, result, stderr = run(tmp_path, timeout_s=900)
    assert code == 0, stderr
    assert result["items"] == {"total": 4, "done": 3, "skipped": 0, "failed": 1}
    steps = [json.loads(line)["spans"] for line in stderr.splitlines() if '"spans"' in line]
    assert 8 <= steps[-1] <= 16 - len(seen), "of 8 looks and 8 pieces those before the kill are not done again"
    rows = {row["item"]: row for row in pq.read_table(tmp_path / "out/_simswap/receipts.parquet").to_pylist()}
    assert {item: row["output"] for item, row in rows.items()} == {
        "broken.mov": "", "still.png": "still.png", "clips/film.mp4": "clips/film.mp4",
        "clips/old.avi": "clips/old.avi.mkv",
    }  # fmt: skip
    assert {row["reason"] for row in rows.values()} == {"unreadable", "leak: copied"}
    who = {item: [face["source"] for face in row["faces"]] for item, row in rows.items()}
    one, other = who["still.png"]
    assert {one, other} == {"s0", "s1"}
    assert who["clips/film.mp4"] == who["clips/old.avi"] == [one, other, other, one], "one person, one stand-in"
    for name in ("clips/film.mp4", "clips/old.avi.mkv"):
        info = probe(str(tmp_path / "out" / name), name)
        assert len(list(decode(str(tmp_path / "out" / name), name, info, Span(-FOREVER, FOREVER)))) == 24
    assert not (tmp_path / "out/_simswap/films").exists()
    sheet = Image.open(tmp_path / "out/_simswap/contact_sheet.jpg")
    assert sheet.width > 1000, "two columns and more: films are on it too"
    before = state(tmp_path)
    assert run(tmp_path)[1]["done_now"] == 0
    assert state(tmp_path) == before


def wait_for(found: Callable[[], list[Path]], seconds: int = 240) -> list[Path]:
    """What there is, as soon as there is something."""
    for _ in range(10 * seconds):
        if paths := found():
            return paths
        time.sleep(0.1)
    raise AssertionError("nothing came")
