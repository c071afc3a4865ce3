"""How the inputs are laid out: files by themselves, or shards that hold many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.media.inputs import IMAGE_SUFFIXES, InputFile
from pipeline.media.shards.side_files import count_from_stats, side_files_of
from pipeline.media.store import Store
from pipeline.media.video import VIDEO_SUFFIXES

Layout = Literal["auto", "files", "shards"]


_IN_SHARD = re.compile(r"(.+?\.(?:tar|parquet))/(.+)", re.DOTALL)
_PICTURES = tuple(IMAGE_SUFFIXES | VIDEO_SUFFIXES)
_TARS_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Listing:
    """The inputs of a job.

    Attributes:
        layout: `files` or `shards`.
        files: what gets a result or a reason: the files, or the shards.
        others: what is left out, because it is of the other kind: files that are neither shards nor beside one, or
            shards among images.
    """

    layout: Literal["files", "shards"]
    files: list[InputFile]
    others: list[str]


def lay_out(files: Sequence[InputFile], wanted: Layout, where: str) -> Listing:
    """Tell shards and their side files from other files.

    Datasets hold a README, a table of contents or a mark that they are whole beside their shards: `auto` takes files
    for the inputs only where there are images or videos among them, or no shards.

    Args:
        files: all that there are.
        wanted: the setting.
        where: the inputs' address, for errors.

    Raises:
        ConfigError: shards are wanted, and there are none.
    """
    names = {file.item for file in files}
    shards = [file for file in files if _is_shard(file.item, names)]
    known = {file.item for file in shards}
    beside = {name for shard in known for name in (side_files_of(shard).table, side_files_of(shard).stats)}
    others = sorted(names - known - beside)
    if wanted == "files" or (wanted == "auto" and not shards):
        return Listing("files", list(files), [])
    if wanted == "auto" and any(name.lower().endswith(_PICTURES) for name in others):
        return Listing("files", list(files), sorted(known))
    if not shards:
        packed = next((name for name in names if name.endswith(_TARS_PACKED)), None)
        mend = (
            "Unpack the compression of tars such as " + packed if packed else "Give .tar or .parquet, or layout=files"
        )
        raise ConfigError(f"inputs: {where}", "holds no shards", mend)
    return Listing("shards", shards, others)


def known_count(store: Store, shards: Sequence[InputFile]) -> tuple[int, int]:
    """How many images the stats files beside shards say that there are.

    Returns:
        Images, and shards that nothing is known of.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    stats = store.read_all([side_files_of(shard.item).stats for shard in shards])
    counts = [count_from_stats(data) for data in stats.values()]
    known = [count for count in counts if count is not None]
    return sum(known), len(shards) - len(known)


def split_item(item: str) -> tuple[str, str]:
    """The shard of an image, and its name there; an empty shard for a file of its own."""
    found = _IN_SHARD.fullmatch(item)
    return (found.group(1), found.group(2)) if found else ("", item)


def _is_shard(name: str, names: set[str]) -> bool:
    """Whether a file is a shard; the Parquet table beside a tar is none."""
    return name.endswith(".tar") or (name.endswith(".parquet") and f"{name.removesuffix('.parquet')}.tar" not in names)
