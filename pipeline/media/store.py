"""Files below an address: a folder on this machine, or a part of a bucket.

Buckets are read and written through pyarrow: `s3://` at AWS_ENDPOINT_URL, or at Amazon's, `gs://`, and every other
scheme that an installed fsspec package knows (`az://` with adlfs). Credentials come from the environment or a profile,
never from settings.

A file is there whole or not at all: on this machine by a rename, in a bucket since it shows objects that are complete.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
from pyarrow import fs

from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, OutputError, StoreError

_T = TypeVar("_T")

BOOKS = "_simswap"
"""Folder in an output that holds what is not a result."""

PARTIAL = f"{BOOKS}/partial"
"""Folder in an output on this machine for files that are being written; emptied when a job starts and ends."""

_CHUNK_BYTES = 8 * 1024 * 1024

_FOREVER = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP STATUS 403")
"""What a store says that trying again does not change."""

_SAID = {
    "NO_SUCH_BUCKET": ("no such bucket", "Make it, or check the name"),
    "INVALID_ACCESS_KEY_ID": ("the store does not know these credentials", "Check AWS_ACCESS_KEY_ID or AWS_PROFILE"),
    "SIGNATURE_DOES_NOT_MATCH": ("the store refuses these credentials", "Check AWS_SECRET_ACCESS_KEY or AWS_PROFILE"),
    "ACCESS_DENIED": ("access denied (403)", "Check the credentials in the environment, and what they may do"),
    "HTTP STATUS 403": ("access denied (403)", "Check the credentials in the environment, and what they may do"),
    "NETWORK_CONNECTION": ("the store cannot be reached", "Check AWS_ENDPOINT_URL and the network"),
    "COULD NOT RESOLVE": ("the store cannot be reached", "Check AWS_ENDPOINT_URL and the network"),
}
"""What stores say -> what that means, and what to do about it."""


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
        self.files, self.root = _filesystem(self.address, self._settings)

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
                return bytes(file.read() if size is None else file.read_at(size, offset))

        return self.tried(name, whole)

    def digest(self, name: str) -> str:
        """sha256 of a file, hex.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """
        found = hashlib.sha256()
        with self.open(name) as file:
            while chunk := self.tried(name, lambda: file.read(_CHUNK_BYTES)):
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

    def open(self, name: str) -> pa.NativeFile:
        """A file to read in, from anywhere.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: the store does not answer, or refuses.
        """
        return self.tried(name, lambda: self.files.open_input_file(self.path(name)))

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

        def put() -> None:
            file = self.files.open_output_stream(self.path(name))
            file.write(data)
            file.close()

        self._written(name, put)

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
                _moved(path, self.local / name)
            else:
                self._written(name, lambda: fs.copy_files(str(path), self.path(name), fs.LocalFileSystem(), self.files))

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
            copy = partial(fs.copy_files, self.path(name), str(path), self.files, fs.LocalFileSystem())
            self.tried(name, copy)
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

    def check(self, kind: str) -> None:
        """See that the store answers.

        Args:
            kind: what it is to be, for the error.

        Raises:
            ConfigError: it does not, in one line that says why.
        """
        try:
            self.is_empty()  # asks for the bucket, and for the right to list it
        except StoreError as error:
            raise ConfigError(f"{kind}: {self.address}", error.problem, error.mend) from error

    def _below(self, path: str) -> str:
        """A path of the file system as a name; some file systems begin theirs with a slash."""
        return path.lstrip("/")[len(self.root.lstrip("/")) + 1 :]

    def _written(self, name: str, put: Callable[[], None]) -> None:
        try:
            with ThreadPoolExecutor(1) as pool:  # an interrupt between opening and closing would show half an object
                pool.submit(self.tried, name, put).result()
        except (StoreError, FileNotFoundError) as error:
            problem, mend = (error.problem, error.mend) if isinstance(error, StoreError) else ("no such bucket", "")
            raise OutputError(f"{self.address}/{name}", f"cannot be written: {problem}", mend) from error

    def tried(self, name: str, request: Callable[[], _T]) -> _T:
        """The answer to a request; tried again while the fault may pass.

        Args:
            name: of the file that it is about.
            request: what to do.

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
                said = str(error).upper()
                if attempt == attempts or any(word in said for word in _FOREVER):
                    raise self._error(name, error) from error
                time.sleep(random.uniform(0.5, 1.0) * min(0.25 * 2**attempt, 20.0))  # noqa: S311
        raise AssertionError("at least one attempt")

    def _error(self, name: str, error: Exception) -> StoreError:
        subject = f"{self.address}/{name}" if name else self.address
        said = str(error).upper()
        for word, (problem, mend) in _SAID.items():
            if word in said:
                return StoreError(subject, problem, mend)
        if isinstance(error, PermissionError):
            return StoreError(subject, f"cannot be read ({error.strerror})", "Check its permissions")
        return StoreError(subject, (str(error).splitlines() or [""])[0][:300])


@lru_cache(maxsize=64)
def store_at(address: str, settings: StorageConfig | None = None) -> Store:
    """The store at an address, made once in each process."""
    return Store(address, settings)


def split_address(address: str) -> tuple[str, str]:
    """A file's folder on this machine, or its bucket, and its name there."""
    if is_local(address):
        folder, _, name = absolute(address).rpartition("/")
        return folder or "/", name
    scheme, _, path = address.partition("://")
    bucket, _, name = path.partition("/")
    return f"{scheme}://{bucket}", name


def open_address(address: str) -> BinaryIO:
    """A file anywhere, to read in.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: the store does not answer, or refuses.
    """
    folder, name = split_address(address)
    return store_at(folder).open(name)  # type: ignore[no-any-return]


def is_local(address: str) -> bool:
    """Whether an address is a path on this machine."""
    return "://" not in address or address.startswith("file://")


def absolute(address: str) -> str:
    """The address as any process of any working folder understands it."""
    if is_local(address):
        return str(Path(address.removeprefix("file://")).expanduser().absolute())
    return address.rstrip("/")


def _filesystem(address: str, settings: StorageConfig) -> tuple[fs.FileSystem, str]:
    scheme, _, path = address.rpartition("://")
    if is_local(address):
        return fs.LocalFileSystem(), address.rstrip("/")
    if not path.strip("/"):
        raise ConfigError(address, "names no bucket", f"Give {scheme}://bucket/prefix")
    try:
        if scheme in ("s3", "s3a"):
            return _s3(path.split("/")[0], settings), path
        if scheme in ("gs", "gcs"):
            return fs.GcsFileSystem(), path
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), path
    except (ImportError, ValueError, OSError, pa.ArrowException) as error:
        mend = "Give a path, s3://…, gs://…, or az://… with the adlfs package installed"
        raise ConfigError(address, f"not an address that can be used ({error})", mend) from error


def _s3(bucket: str, settings: StorageConfig) -> fs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        with suppress(OSError):  # no such bucket is said at the first request
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else None),
        connect_timeout=settings.connect_timeout_s,
        request_timeout=settings.request_timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        allow_delayed_open=True,  # a small object is one request
    )


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
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _moved(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise OutputError(str(path), f"cannot be written ({error.strerror})", "Make room or choose another") from error


def _moved(path: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        problem = f"cannot be written ({error.strerror})"
        raise OutputError(str(target), problem, "Make room or choose another") from error
