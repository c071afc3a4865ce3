from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.media.inputs import InputFile
from pipeline.media.layouts import Listing, known_count, lay_out, split_item
from pipeline.media.store import store_at


def laid_out(*names: str, wanted: str = "auto") -> Listing:
    return lay_out([InputFile(name, 1, 1) for name in names], wanted, "here")  # type: ignore[arg-type]


def found(listing: Listing) -> list[str]:
    return [file.item for file in listing.files]


def test_shards_with_their_side_files_are_a_dataset_in_shards() -> None:
    listing = laid_out("00000.tar", "00000.parquet", "00000_stats.json", "a/b.parquet", "a/b_stats.json")
    assert (listing.layout, found(listing), listing.others) == ("shards", ["00000.tar", "a/b.parquet"], [])


@pytest.mark.parametrize("other", ["README.md", "_SUCCESS", ".gitattributes", "00007_stats.json", "dataset_infos.json"])
def test_what_datasets_keep_beside_their_shards_does_not_make_them_files(other: str) -> None:
    listing = laid_out("00000.tar", other)
    assert (listing.layout, found(listing), listing.others) == ("shards", ["00000.tar"], [other])


@pytest.mark.parametrize("picture", ["a.jpg", "b/C.JPEG", "film.mp4"])
def test_shards_among_pictures_are_named_and_asked_for(picture: str) -> None:
    listing = laid_out("00000.tar", picture)
    assert (listing.layout, listing.others) == ("files", ["00000.tar"])
    listing = laid_out("00000.tar", picture, wanted="shards")
    assert (found(listing), listing.others) == (["00000.tar"], [picture])


def test_a_table_whose_tar_is_missing_is_a_shard_and_fails_as_one() -> None:
    assert found(laid_out("00000.tar", "00001.parquet")) == ["00000.tar", "00001.parquet"]


def test_pictures_are_files_and_shards_are_only_files_where_that_is_asked() -> None:
    assert laid_out("a.jpg", "b.txt").layout == "files"
    listing = laid_out("00000.tar", wanted="files")
    assert (listing.layout, found(listing)) == ("files", ["00000.tar"])


def test_shards_that_are_wanted_and_not_there_are_an_error_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"holds no shards\. Give \.tar or \.parquet"):
        laid_out("a.jpg", wanted="shards")
    with pytest.raises(ConfigError, match=r"Unpack the compression of tars such as 1\.tar\.gz"):
        laid_out("1.tar.gz", wanted="shards")


@pytest.mark.parametrize(
    ("item", "shard", "name"),
    [
        ("00000.tar/7.jpg", "00000.tar", "7.jpg"),
        ("a.parquet/b/c.tar/7", "a.parquet", "b/c.tar/7"),
        ("a/00000.tar/b\n/7.jpg", "a/00000.tar", "b\n/7.jpg"),
        ("a/7.jpg", "", "a/7.jpg"),
        ("00000.tar", "", "00000.tar"),
    ],
)
def test_an_image_is_told_from_its_shard(item: str, shard: str, name: str) -> None:
    assert split_item(item) == (shard, name)


def test_what_stats_files_say_is_known_without_opening_a_shard(tmp_path: Path) -> None:
    (tmp_path / "a_stats.json").write_text(json.dumps({"successes": 7}))
    (tmp_path / "b_stats.json").write_text("damaged")
    shards = [InputFile(name, 1, 1) for name in ("a.tar", "b.tar", "c.tar")]
    assert known_count(store_at(str(tmp_path)), shards) == (7, 2)
