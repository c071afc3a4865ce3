"""Files on this machine: there whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from pipeline.errors import OutputError, StoreError


def write_atomically(path: Path, data: bytes, partial: Path | None = None) -> None:
    """Write a file on this machine so that under its name there is nothing, the old file, or the whole new one.

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
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        moved(unfinished, path)
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror})", "Make room or choose another") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def moved(path: Path, target: Path) -> None:
    """Give a file its name once its bytes are on the disk: not even a power cut leaves a name without them."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        path.replace(target)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        problem = f"cannot be written ({error.strerror})"
        raise OutputError(str(target), problem, "Make room or choose another") from error


def check_folder(folder: Path, *, writable: bool) -> None:
    """Look whether a folder, or the nearest one above it that exists, lets files be read, or written.

    Raises:
        StoreError: no.
    """
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except PermissionError as error:
        raise StoreError(str(folder), f"access denied ({error.strerror})", "Check its permissions") from error
    shown = "" if there == folder else f"{there}: "
    if not there.is_dir():
        raise StoreError(str(folder), f"{shown}not a folder", "Give a folder")
    if not os.access(there, os.R_OK | os.X_OK):
        raise StoreError(str(folder), f"{shown}no permission to read", "Check its permissions")
    if writable and not os.access(there, os.W_OK):
        raise StoreError(str(folder), f"{shown}no permission to write", "Check its permissions, or choose another")
