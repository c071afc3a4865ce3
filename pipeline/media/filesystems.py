"""Buckets as file systems, made from an address and the environment.

pyarrow reads them. It does not write to S3: a stream of it that is dropped half written becomes an object, and
`copy_files` does not say when an upload failed (pyarrow 25).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from pipeline.config import StorageConfig
from pipeline.errors import ConfigError
from pipeline.media.store_errors import without_credentials

CLIENT_ATTEMPTS = 3
"""Times that a client makes one request by itself, at once: a part of a large object is not worth a new beginning."""


class Writer(Protocol):
    """Makes whole objects, or none; fsspec's names."""

    def pipe_file(self, path: str, value: bytes) -> Any:
        """Make an object of bytes."""

    def put_file(self, lpath: str, rpath: str) -> Any:
        """Make an object of a file on this machine."""


def bucket_reader(address: str, settings: StorageConfig) -> tuple[fs.FileSystem, str]:
    """The file system that reads an address `scheme://bucket/prefix`, and the path in it.

    Raises:
        ConfigError: an address of no known kind.
    """
    scheme, _, path = address.partition("://")
    bucket = path.split("/")[0]
    if without_credentials(address) != address:
        raise ConfigError(without_credentials(address), "was given with credentials", "Set them in the environment")
    if not bucket:
        raise ConfigError(address, "names no bucket", f"Give {scheme}://bucket/prefix")
    try:
        if scheme in ("s3", "s3a"):
            return _s3(bucket, settings), path
        if scheme in ("gs", "gcs"):
            return fs.GcsFileSystem(), path
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme))), path
    except (ImportError, ValueError, OSError, pa.ArrowException) as error:
        mend = "Give a path, s3://…, gs://…, or az://… with the adlfs package installed"
        raise ConfigError(address, f"not an address that can be used ({error})", mend) from error


def bucket_writer(reader: fs.FileSystem, settings: StorageConfig) -> Writer:
    """What writes where a file system reads."""
    if isinstance(reader, fs.S3FileSystem):
        from pipeline.media.uploads import S3Uploads

        return S3Uploads(settings, s3_endpoint(), reader.region)
    if isinstance(reader, fs.PyFileSystem):
        return reader.handler.fs  # type: ignore[no-any-return]
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(reader)  # type: ignore[no-any-return]


def s3_endpoint() -> str | None:
    """Where S3 is; None is Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _s3(bucket: str, settings: StorageConfig) -> fs.S3FileSystem:
    endpoint = s3_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        with suppress(OSError):  # no such bucket is said at the first request
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else None),
        connect_timeout=settings.connect_timeout_s,
        request_timeout=settings.request_timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=CLIENT_ATTEMPTS),
    )
