"""Inputs as work: listing what there is to do, and reading it."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import ImagesConfig, StorageConfig
from pipeline.errors import ConfigError, RefusedInputError, StoreError, UnreadableError
from pipeline.media.store import Store, store_at

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
)

_AHEAD_BYTES = 256 * 1024 * 1024
"""What one reader fetches ahead at the most; a larger file comes alone."""


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


class Inputs:
    """Reads the inputs of a job.

    Args:
        address: of the inputs.
        images: the limits.
        storage: time-outs and attempts.
    """

    def __init__(self, address: str, images: ImagesConfig, storage: StorageConfig) -> None:
        self._store = store_at(address, storage)
        self._limits, self._concurrency = images, storage.concurrency
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[InputFile, Future[bytes]] = {}
        self._waiting: deque[InputFile] = deque()

    def ahead(self, files: Sequence[InputFile]) -> None:
        """Begin to fetch inputs that are read next, in their order, as far as memory allows.

        What was begun before and is not among them is forgotten. Of a folder on this machine nothing is fetched.
        """
        if self._store.local is not None:
            return
        wanted = [file for file in files if not file.problem and file.size_bytes <= self._limits.max_bytes]
        self._coming = {file: self._coming[file] for file in wanted if file in self._coming}
        self._waiting = deque(file for file in wanted if file not in self._coming)
        self._fetch_more()

    def read(self, file: InputFile) -> bytes:
        """The bytes of an input.

        Raises:
            ItemError: not a regular file, too large, or unreadable.
        """
        if file.problem:
            raise RefusedInputError(file.item, file.problem, code="not_a_file", status="skipped")
        if file.size_bytes > self._limits.max_bytes:
            problem = f"{file.size_bytes} bytes, the limit is {self._limits.max_bytes}"
            raise RefusedInputError(file.item, problem, "Raise images.max_bytes", code="too_large")
        try:
            return self._bytes(file)
        except FileNotFoundError as error:
            raise UnreadableError(file.item, "has gone since it was listed", "Run again", code="gone") from error
        except StoreError as error:
            code = "unreadable" if self._store.local is not None else "store_error"
            raise UnreadableError(file.item, f"cannot be read: {error.problem}", error.mend, code=code) from error

    def _bytes(self, file: InputFile) -> bytes:
        coming = self._coming.pop(file, None)
        if coming is None:
            with suppress(ValueError):
                self._waiting.remove(file)
        try:
            return self._store.read(file.item) if coming is None else coming.result()
        finally:
            self._fetch_more()

    def _fetch_more(self) -> None:
        if self._pool is None and self._waiting:
            self._pool = ThreadPoolExecutor(self._concurrency, "inputs")
        held = sum(file.size_bytes for file in self._coming)
        while self._pool and self._waiting and (held + self._waiting[0].size_bytes <= _AHEAD_BYTES or not self._coming):
            file = self._waiting.popleft()
            held += file.size_bytes
            self._coming[file] = self._pool.submit(self._store.read, file.item)


def list_inputs(root: str, storage: StorageConfig | None = None) -> Iterator[InputFile]:
    """All files below an address in a fixed order; links to files count, links to folders are not followed.

    Raises:
        ConfigError: it does not exist or cannot be read.
    """
    store = store_at(root, storage)
    if store.local is not None:
        yield from _below(store.local, root)
        return
    yield from _in_bucket(store, root)


def _in_bucket(store: Store, root: str) -> Iterator[InputFile]:
    try:
        for file in store.list():
            yield InputFile(file.name, file.size_bytes, file.mtime_ns)
    except StoreError as error:
        raise ConfigError(f"inputs: {root}", error.problem, error.mend) from error


def _below(top: Path, root: str) -> Iterator[InputFile]:
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
