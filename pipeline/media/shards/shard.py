"""What a shard holds, whatever its format."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEAVES = "its name leaves the shard"
NOT_UTF8 = "its name is not UTF-8"
UNFIT_NAME = "its name is empty or holds a NUL"

_DRIVE = re.compile(r"[A-Za-z]:/")
_BRANDS = {b"avif": ".avif", b"avis": ".avif", b"qt  ": ".mov", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic"}
_STARTS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\x1a\x45\xdf\xa3": ".mkv",
}

HEAD_BYTES = 16
"""As much of a file as `guessed_suffix` looks at."""


@dataclass(frozen=True, slots=True)
class ShardItem:
    """One image or video in a shard.

    Attributes:
        key: of its sample. Tar: the member's name up to the first dot of its base name, folder included;
            Parquet: the value of the key column, or the row's number.
        name: unlike any other usable item's of the shard. Tar: the member's name; Parquet: the key, with a suffix
            guessed from the bytes where it has none. Bytes that are not UTF-8 are shown escaped.
        offset: tar: position of its first byte in the file; Parquet: number of the row.
        size_bytes: of the image, as it is stored.
        problem: why it cannot be used at all; empty when it can.
    """

    key: str
    name: str
    offset: int
    size_bytes: int
    problem: str = ""


def split_name(name: str) -> tuple[str, str]:
    """A member's name as WebDataset splits it: at the first dot of the base name.

    Returns:
        The sample's key, folder included, and the extension in lower case without its dot; both empty for a name
        that belongs to no sample: without an extension, or with nothing before it.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and extension else ("", "")


def name_problem(name: str) -> str:
    """Why nothing should ever be written under a name; empty for a harmless one."""
    if not name or "\0" in name:
        return UNFIT_NAME
    path = name.replace("\\", "/")
    return LEAVES if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/") else ""


def shown(name: str) -> str:
    """A name that was decoded with `surrogateescape`, its bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def guessed_suffix(head: bytes) -> str:
    """The usual suffix, with its dot, of an image or film that starts with these bytes; empty where unknown.

    Args:
        head: the first `HEAD_BYTES` of the file, or more.
    """
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], ".mp4")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in _STARTS.items() if head.startswith(start)), "")
