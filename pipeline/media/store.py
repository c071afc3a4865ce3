"""Files below an address: a folder on this machine, or a part of a bucket.

Buckets are read and written through pyarrow: `s3://` at AWS_ENDPOINT_URL, or at Amazon's, `gs://`, and every other
scheme that an installed fsspec package knows (`az://` with adlfs). Credentials come from the environment or a profile,
never from settings.

A file is there whole or not at all: on this machine by a rename, in a bucket since it shows objects that are complete
(`uploads`, for S3).
"""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
from pyarrow import fs

from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, OutputError, StoreError
from pipeline.media.addresses import absolute, is_local, split_address
from pipeline.media.filesystems import Writer, bucket_reader, bucket_writer, s3_endpoint
from pipeline.media.local_files import check_folder, moved, write_atomically
from pipeline.media.range_reader import RangeReader
from pipeline.media.store_errors import Fate, fate, told

_T = TypeVar("_T")

BOOKS = "_simswap"
"""Folder in an output that holds what is not a result."""

PARTIAL = f"{BOOKS}/partial"
"""Folder in an output on this machine for files that are being written; emptied when a job starts and ends."""

_CHUNK_BYTES = 8 * 1024 * 1024

_READ_BYTES = 1024 * 1024

_LONGEST_REST_S = 20.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a store.

    Attributes:
        name: below the store's address, with forward slashes.
        size_bytes: its size.
        mtime_ns: when it was written, nanoseconds since 1970.
    """

    name: str
    size_bytes: int
    mtime_ns: int


class Store:
    """Files below an address.

    Args:
        address: a path, or `scheme://bucket/prefix`.
        settings: time-outs and attempts.

    Attributes:
        address: without a slash at its end; absolute where it is on this machine.
        local: the folder where it is on this machine, else None.

    Raises:
        ConfigError: an address of no known kind.
    """

    def __init__(self, address: str, settings: StorageConfig | None = None) -> None:
        self.address = absolute(address)
        self.local = Path(self.address) if is_local(address) else None
        self._settings = settings or StorageConfig()
        self.files: fs.FileSystem
        if self.local is not None:
            self.files, self.root = fs.LocalFileSystem(), self.address.rstrip("/")
        else:
            self.files, self.root = bucket_reader(self.address, self._settings)

    def path(self, name: str) -> str:
        """The path of a file as `files` takes it."""
        return f"{self.root}/{name}" if name else self.root

    def list(self, under: str = "") -> Iterator[StoredFile]:
        """All files below a folder, sorted by name; none where there is no such folder.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        selector = fs.FileSelector(self.path(under), allow_not_found=True, recursive=True)
        found = self.tried(under, lambda: self.files.get_file_info(selector))
        kept = [(self._below(info.path), info) for info in found if info.type == fs.FileType.File]
        for name, info in sorted(kept, key=lambda pair: pair[0]):
            yield StoredFile(name, int(info.size), int(info.mtime_ns or 0))

    def stat(self, name: str) -> StoredFile | None:
        """A file's facts; None where it is not.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        info = self.tried(name, lambda: self.files.get_file_info(self.path(name)))
        if info.type != fs.FileType.File:
            return None
        return StoredFile(name, int(info.size), int(info.mtime_ns or 0))

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """The bytes of a file, or of a stretch of it.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """

        def whole() -> bytes:
            with self.files.open_input_file(self.path(name)) as file:
                if size is None and not offset:
                    return bytes(file.read())
                return bytes(file.read_at(max(file.size() - offset, 0) if size is None else size, offset))

        return self.tried(name, whole)

    def digest(self, name: str) -> str:
        """sha256 of a file, hex.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """
        found = hashlib.sha256()
        for chunk in self._chunks(name):
            found.update(chunk)
        return found.hexdigest()

    def read_or_none(self, name: str) -> bytes | None:
        """The bytes of a file, None where it is not.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of many files at once; those that are not there are left out.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            found = zip(names, pool.map(self.read_or_none, names), strict=True)
            return {name: data for name, data in found if data is not None}

    def open(self, name: str) -> BinaryIO:
        """A file to read in, from anywhere; each read is tried again as any request is.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses; reads raise it, too.
        """
        piece, size = self.pieces(name)
        return io.BufferedReader(RangeReader(piece, size), _READ_BYTES)

    def pieces(self, name: str) -> tuple[Callable[[int, int], bytes], int]:
        """A function that reads stretches of a file by offset and size, from any thread, and the file's size.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses; reads raise it, too.
        """
        file = self.tried(name, lambda: self.files.open_input_file(self.path(name)))

        def piece(offset: int, size: int) -> bytes:
            return self.tried(name, lambda: bytes(file.read_at(size, offset)))

        return piece, int(file.size())

    def write(self, name: str, data: bytes, partial_folder: str = "") -> None:
        """Write a file so that under its name there is nothing, the old one, or the whole new one.

        Args:
            name: of the file; folders are made.
            data: what.
            partial_folder: where a file on this machine lies while it is written; empty takes its own folder.

        Raises:
            OutputError: no space, no permission, or a folder in the way.
        """
        if self.local is not None:
            unfinished = self.local / partial_folder if partial_folder else None
            write_atomically(self.local / name, data, unfinished)
            return

        self._written(name, lambda: self._writer.pipe_file(self.path(name), data))

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A path on this machine to write a file under; when the block ends well, what was written becomes visible.

        Raises:
            OutputError: as `write`.
        """
        with self.scratch() as folder:
            path = folder / f"whole{Path(name).suffix}"
            yield path
            if not path.exists():
                return
            if self.local is not None:
                moved(path, self.local / name)
            else:
                self._written(name, lambda: self._writer.put_file(str(path), self.path(name)))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on this machine that is gone afterwards; on the store's own file system where it is one."""
        if self.local is None:
            with tempfile.TemporaryDirectory(prefix="simswap-") as folder:
                yield Path(folder)
            return
        own = self.local / PARTIAL / uuid.uuid4().hex
        own.mkdir(parents=True, exist_ok=True)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A path on this machine to read a file from; of one in a bucket it is a copy, gone afterwards.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """
        if self.local is not None:
            yield self.local / name
            return
        with self.scratch() as folder:
            path = folder / Path(name).name
            with open(path, "wb") as file:
                for chunk in self._chunks(name):
                    file.write(chunk)
            yield path

    def remove(self, name: str) -> None:
        """Remove a file; it may have gone already.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        with suppress(FileNotFoundError):
            self.tried(name, lambda: self.files.delete_file(self.path(name)))

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove many files at once.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            list(pool.map(self.remove, names))

    def remove_folder(self, under: str) -> None:
        """Remove all files below a folder; what cannot be removed stays.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        if self.local is not None:
            shutil.rmtree(self.local / under, ignore_errors=True)
        else:
            self.remove_all([file.name for file in self.list(under)])

    def forget_empty(self, under: str) -> None:
        """Remove a folder with nothing in it; where there is something it stays, and buckets have none."""
        if self.local is not None:
            with suppress(OSError):
                (self.local / under).rmdir()

    def is_empty(self) -> bool:
        """Whether nothing is there; a folder that is not there is empty.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        selector = fs.FileSelector(self.root, allow_not_found=True)
        return not self.tried("", lambda: self.files.get_file_info(selector))

    def check(self, kind: str, *, writable: bool = False) -> None:
        """See that the store answers, quickly; nothing becomes visible.

        Args:
            kind: what it is to be, for the error.
            writable: see also that files could be made there, where that can be known beforehand.

        Raises:
            ConfigError: it does not, in one line that says why.
        """
        try:
            if self.local is not None:
                check_folder(self.local, writable=writable)
            else:
                self.tried("", lambda: self._ask(writable=writable), patient=False)
        except StoreError as error:
            raise ConfigError(f"{kind}: {self.address}", error.problem, error.mend) from error

    def _ask(self, *, writable: bool) -> None:
        """One small listing, so that refusals say why; the bucket itself, which a listing takes for empty."""
        nothing = self.path(f"{BOOKS}/check")
        self.files.get_file_info(fs.FileSelector(nothing, allow_not_found=True))
        if isinstance(self.files, fs.PyFileSystem):
            return
        with suppress(PermissionError):
            if self.files.get_file_info(self.root.split("/")[0]).type == fs.FileType.NotFound:
                raise OSError("NoSuchBucket")
        if writable and isinstance(self.files, fs.S3FileSystem):
            self._writer.try_right(nothing)  # type: ignore[attr-defined]

    @cached_property
    def _writer(self) -> Writer:
        return bucket_writer(self.files, self._settings)

    def _chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, one after the other; a fault costs the chunk and not what came before."""
        with self.open(name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _below(self, path: str) -> str:
        """A path of the file system as a name; some file systems begin theirs with a slash."""
        return path.lstrip("/")[len(self.root.lstrip("/")) + 1 :]

    def _written(self, name: str, put: Callable[[], object]) -> None:
        try:
            with ThreadPoolExecutor(1) as pool:  # no interrupt hits a writer between its opening and its closing
                pool.submit(self.tried, name, put).result()
        except (StoreError, FileNotFoundError) as error:
            problem, mend = (error.problem, error.mend) if isinstance(error, StoreError) else ("no such bucket", "")
            raise OutputError(f"{self.address}/{name}", f"cannot be written: {problem}", mend) from error

    def tried(self, name: str, request: Callable[[], _T], *, patient: bool = True) -> _T:
        """The answer to a request; tried again while the fault may pass.

        A store that does not answer has been waited for three times by its client; a store that is not there is waited
        for only by the patient.

        Args:
            name: of the file that it is about.
            request: what to do.
            patient: whether to wait for a store that is not there.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """
        attempts = 1 if self.local is not None else self._settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                return request()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                hopeless = (Fate.FOREVER, Fate.STALLED) if patient else (Fate.FOREVER, Fate.STALLED, Fate.UNREACHABLE)
                if attempt == attempts or fate(error) in hopeless:
                    subject = f"{self.address}/{name}" if name else self.address
                    raise told(subject, error, s3_endpoint() if self.address.startswith("s3") else None) from error
                time.sleep(random.uniform(0.5, 1.0) * min(0.25 * 2**attempt, _LONGEST_REST_S))  # noqa: S311
        raise AssertionError("at least one attempt")


@lru_cache(maxsize=64)
def store_at(address: str, settings: StorageConfig | None = None) -> Store:
    """The store at an address, made once in each process."""
    return Store(address, settings)


def open_address(address: str) -> BinaryIO:
    """A file anywhere, to read in.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: the store does not answer, or refuses.
    """
    folder, name = split_address(address)
    return store_at(folder).open(name)
