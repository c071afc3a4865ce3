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
from typing import Never

from pipeline.config import ImagesConfig, ShardsConfig, StorageConfig
from pipeline.errors import ConfigError, RefusedInputError, StoreError, UnreadableError
from pipeline.media.shards.reading import Place, ShardReader
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
        shard: name of the shard that it is in, below the inputs; empty for a file of its own. `mtime_ns` is the
            shard's then.
        state: what tells the shard, as it is now and for this recipe, from others.
        offset: where in the shard: in a tar its first byte, in Parquet its row.
        number: its place among the shard's images.
        path: where below the inputs its bytes are, if not at `item`: of pairs `item` is the result's name.
        source: index of the source that its faces become; -1 where the selection decides.
        face: `all`, `largest` or a number from the left: which of them; empty for all.
    """

    item: str
    size_bytes: int
    mtime_ns: int
    problem: str = ""
    shard: str = ""
    state: str = ""
    offset: int = 0
    number: int = 0
    path: str = ""
    source: int = -1
    face: str = ""

    @property
    def where(self) -> str:
        """The file below the inputs that holds it."""
        return self.shard or self.path or self.item

    @property
    def place(self) -> Place:
        """Where in the shard its bytes are."""
        return Place(self.shard, self.offset, self.size_bytes)


class Inputs:
    """Reads the inputs of a job.

    Args:
        address: of the inputs.
        images: the limits.
        storage: time-outs and attempts.
        shards: which members of a shard are images.
    """

    def __init__(
        self, address: str, images: ImagesConfig, storage: StorageConfig, shards: ShardsConfig | None = None
    ) -> None:
        self._store = store_at(address, storage)
        self._shards = ShardReader(self._store, shards or ShardsConfig(), storage.concurrency)
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
        self._shards.ahead([file.place for file in wanted if file.shard])
        single = [file for file in wanted if not file.shard]
        self._coming = {file: self._coming[file] for file in single if file in self._coming}
        self._waiting = deque(file for file in single if file not in self._coming)
        self._fetch_more()

    def read(self, file: InputFile) -> bytes:
        """The bytes of an input.

        Raises:
            ItemError: not a regular file, too large, or unreadable.
        """
        if file.problem:
            refuse_problem(file)
        if file.size_bytes > self._limits.max_bytes:
            problem = f"{file.size_bytes} bytes, the limit is {self._limits.max_bytes}"
            raise RefusedInputError(file.item, problem, "Raise images.max_bytes", code="too_large")
        try:
            return self._shards.read(file.place) if file.shard else self._bytes(file)
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
            return self._store.read(file.where) if coming is None else coming.result()
        finally:
            self._fetch_more()

    def _fetch_more(self) -> None:
        if self._pool is None and self._waiting:
            self._pool = ThreadPoolExecutor(self._concurrency, "inputs")
        held = sum(file.size_bytes for file in self._coming)
        while self._pool and self._waiting and (held + self._waiting[0].size_bytes <= _AHEAD_BYTES or not self._coming):
            file = self._waiting.popleft()
            held += file.size_bytes
            self._coming[file] = self._pool.submit(self._store.read, file.where)


def refuse_problem(file: InputFile) -> Never:
    """End an input that has a problem.

    Raises:
        RefusedInputError: always.
    """
    if file.path:  # of a pair: somebody expects it to be done
        raise RefusedInputError(file.item, f"{file.path}: {file.problem}", "Mend the table", code="missing")
    raise RefusedInputError(file.item, file.problem, code="not_a_file", status="skipped")


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
