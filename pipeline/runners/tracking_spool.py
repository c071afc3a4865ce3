"""What MLflow could not be told yet: JSON lines in a file that outlives the process.

    OUTPUT/_simswap/mlflow-spool/<recipe>.jsonl    a record a line, oldest first; gone once all has been told
    OUTPUT/_simswap/mlflow-spool/<recipe>/         copies of files that the job itself does not keep

The spools of an output in an object store are in this user's state folder on the machine of the command.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.media.addresses import absolute, is_local
from pipeline.media.store import BOOKS
from pipeline.runners.progress import warn

Record: TypeAlias = dict[str, Any]
"""One thing to tell, as JSON can hold it; `what` says which kind."""


def spool_folder(output: str) -> Path:
    """Where the spools of an output are."""
    if is_local(output):
        return Path(absolute(output)) / BOOKS / "mlflow-spool"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "simswap" / "mlflow-spool" / hashlib.sha256(absolute(output).encode()).hexdigest()[:16]


def spool_file(output: str, recipe: str) -> Path:
    """Where the spool of one run of an output is; the same recipe finds it again."""
    return spool_folder(output) / f"{recipe[:16]}.jsonl"


class Spool:
    """The records of one run. One process at a time.

    Args:
        path: of the file; it and its folder are there only while records wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copies = path.with_suffix("")

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self.path.exists()

    def add(self, record: Record) -> None:
        """Append one whole line, also after one that a kill or a full disk has torn.

        Raises:
            OSError: the disk is full or not writable.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json.dumps(record).encode() + b"\n")

    def copy(self, path: Path, folder: str | None) -> Path:
        """Keep a copy of a file that will be gone; the latest of a name is kept.

        Raises:
            OSError: the disk is full or not writable.
        """
        kept = self._copies / (folder or "") / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.partial")
        shutil.copyfile(path, partial)
        return partial.replace(kept)

    def records(self) -> Iterator[tuple[Record, int]]:
        """Every record, oldest first, with the byte at which the next begins."""
        with suppress(FileNotFoundError, NotADirectoryError), open(self.path, "rb") as file:
            while line := file.readline():
                try:
                    record = dict(json.loads(line))
                except ValueError:
                    warn(f"{self.path}: a torn line is left out")
                    continue
                yield record, file.tell()

    def first(self) -> Record | None:
        """The oldest record: how the run begins. None where nothing waits or the file cannot be read."""
        with suppress(OSError):
            return next((record for record, _ in self.records()), None)
        return None

    def cut(self, told: int, opening: Record) -> None:
        """Forget what was told.

        Args:
            told: the byte at which the rest begins.
            opening: record that says whose the rest is.

        Raises:
            OSError: the disk is full or not writable; the spool is as it was.
        """
        partial = self.path.with_suffix(".partial")
        with open(self.path, "rb") as file, open(partial, "wb") as rest:
            file.seek(told)
            rest.write(json.dumps(opening).encode() + b"\n")
            shutil.copyfileobj(file, rest)
        partial.replace(self.path)

    def clear(self) -> None:
        """All has been told."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self._copies, ignore_errors=True)
        with suppress(OSError):  # spools of other runs are in it
            self.path.parent.rmdir()
