from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PrepareConfig
from pipeline.errors import ConfigError
from pipeline.preparation.listing import MISSING, cut_blocks, list_photos


def make_tree(root: Path, *items: str) -> None:
    for item in items:
        path = root / "in" / item
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def settings_of(root: Path, **changes: Any) -> PrepareConfig:
    return PrepareConfig(inputs=str(root / "in"), output=str(root / "out"), models="none", **changes)


def labels(settings: PrepareConfig) -> dict[str, str]:
    return {photo.file.item: photo.identity for photo in list_photos(settings).photos}


def test_the_folder_of_a_photograph_names_its_person(tmp_path: Path) -> None:
    make_tree(tmp_path, "train/n1/a.jpg", "train/n1/b.PNG", "test/n2/c.webp", "top.jpg", "train/list.txt")
    nearest = {"train/n1/a.jpg": "train/n1", "train/n1/b.PNG": "train/n1", "test/n2/c.webp": "test/n2", "top.jpg": ""}
    assert labels(settings_of(tmp_path)) == nearest
    assert set(labels(settings_of(tmp_path, person="topmost")).values()) == {"train", "test", ""}
    assert set(labels(settings_of(tmp_path, labels="cluster")).values()) == {""}
    assert list_photos(settings_of(tmp_path)).others == 1


def test_a_table_labels_photographs_and_names_those_that_are_missing(tmp_path: Path) -> None:
    make_tree(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.txt").write_text("a.jpg 1\ngone.jpg 2\n")
    photos = list_photos(settings_of(tmp_path, labels="table", table=str(tmp_path / "t.txt"))).photos
    assert {p.file.item: (p.identity, p.file.problem) for p in photos} == {
        "a.jpg": ("1", ""),
        "b.jpg": ("", ""),
        "gone.jpg": ("2", MISSING),
    }
    (tmp_path / "t.txt").write_text("img/a.jpg 1\n")
    with pytest.raises(ConfigError, match=r"none of them below .*set inputs to the folder the paths start at"):
        list_photos(settings_of(tmp_path, labels="table", table=str(tmp_path / "t.txt")))


def test_no_photographs_are_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, "readme.txt")
    with pytest.raises(ConfigError, match="holds no photographs"):
        list_photos(settings_of(tmp_path))


def test_the_seed_decides_an_order_that_mixes_identities(tmp_path: Path) -> None:
    make_tree(tmp_path, *(f"p{person}/{photo}.jpg" for person in range(10) for photo in range(10)))
    one, again, other = (list_photos(settings_of(tmp_path, seed=seed)).photos for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(photo.file.item for photo in one) == sorted(photo.file.item for photo in other)
    assert all(len({photo.identity for photo in one[n : n + 25]}) > 6 for n in range(0, 100, 25))


def test_blocks_are_of_one_length_and_know_their_photographs_and_recipe(tmp_path: Path) -> None:
    make_tree(tmp_path, *(f"p{n % 3}/{n}.jpg" for n in range(23)))
    photos = list_photos(settings_of(tmp_path)).photos
    blocks = cut_blocks(photos, 10, "r")
    assert [len(block.photos) for block in blocks] == [7, 8, 8]
    assert [photo for block in blocks for photo in block.photos] == photos
    digests = [block.digest for block in blocks]
    assert len(set(digests)) == 3
    assert [block.digest for block in cut_blocks(photos, 10, "another")] != digests
    changed = tmp_path / "in" / photos[0].file.item
    changed.write_bytes(b"xx")
    again = cut_blocks(list_photos(settings_of(tmp_path)).photos, 10, "r")
    assert [a.digest == b for a, b in zip(again, digests, strict=True)] == [False, True, True]
