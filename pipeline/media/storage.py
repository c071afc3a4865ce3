"""Files as work: listing inputs, and writing so that a file is there whole or not at all."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, OutputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file below the inputs.

    Attributes:
        item: its path below the inputs, with forward slashes; bytes that are not UTF-8 are shown escaped.
        size_bytes: its size.
        mtime_ns: its modification time, nanoseconds since 1970.
        problem: why it cannot be read at all; empty for a regular file.
    """

    item: str
    size_bytes: int
    mtime_ns: int
    problem: str = ""


def list_inputs(root: str) -> Iterator[InputFile]:
    """All files below a folder in a fixed order; links to files count, links to folders are not followed.

    Raises:
        ConfigError: the folder does not exist or cannot be read.
    """
    top = Path(root)
    if not top.is_dir():
        raise ConfigError(root, "no such folder" if not top.exists() else "not a folder", "Give a folder of images")

    def refuse(error: OSError) -> None:
        raise ConfigError(str(error.filename), f"cannot be listed ({error.strerror})") from error

    for folder, subfolders, names in os.walk(top, onerror=refuse):
        subfolders.sort()
        for name in sorted(names):
            yield _describe(Path(folder) / name, top)


def _describe(path: Path, top: Path) -> InputFile:
    item = path.relative_to(top).as_posix()
    shown = item.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if shown != item:
        return InputFile(shown, 0, 0, "its name is not UTF-8")
    try:
        facts = path.stat()
    except OSError as error:
        return InputFile(item, 0, 0, f"cannot be opened ({error.strerror})")
    problem = "" if stat.S_ISREG(facts.st_mode) else "not a regular file"
    return InputFile(item, facts.st_size, facts.st_mtime_ns, problem)


def write_atomically(path: Path, data: bytes, partial: Path | None = None) -> None:
    """Write a file so that under its name there is nothing, the old file, or the whole new one.

    Args:
        path: where to; folders are made.
        data: what.
        partial: folder on the same file system for the file while it is written; None takes the file's own.

    Raises:
        OutputError: no space, no permission, or a folder in the way.
    """
    folder = path.parent if partial is None else partial
    unfinished = folder / f".{uuid.uuid4().hex}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise OutputError(str(path), f"cannot be written ({error.strerror})", "Make room or choose another") from error


def clear_folder(folder: Path) -> None:
    """Remove the files in a folder, and the folder; what cannot be removed stays."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
