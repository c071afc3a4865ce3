"""Objects put into S3, whole or not at all, whatever ends the upload."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError
from botocore.loaders import create_loader

from pipeline.config import StorageConfig
from pipeline.media.filesystems import CLIENT_ATTEMPTS

_PART_BYTES = 16 * 1024 * 1024
_PARTS_AT_ONCE = 4
_MOST_PARTS = 10_000

_Piece = Callable[[int, int], bytes]
"""Offset and size to the bytes there; fewer at the end."""


class S3Uploads:
    """Puts objects through botocore: a request that breaks off leaves nothing, and parts are an object only at the end.

    Bodies are given as files, so that the time-out holds for each block that is sent and not for all of them.

    Args:
        settings: time-outs.
        endpoint: address of the store; None is Amazon's.
        region: of the bucket.
    """

    def __init__(self, settings: StorageConfig, endpoint: str | None, region: str | None) -> None:
        session = botocore.session.get_session()
        session.register_component("data_loader", _loader())
        self._client = session.create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                connect_timeout=settings.request_timeout_s,  # holds for sending, too
                read_timeout=settings.request_timeout_s,
                max_pool_connections=max(settings.concurrency, _PARTS_AT_ONCE),
                retries={"mode": "standard", "total_max_attempts": CLIENT_ATTEMPTS},
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def pipe_file(self, path: str, value: bytes) -> None:
        """Make an object of bytes.

        Raises:
            OSError: the store does not answer, or refuses.
        """
        self._put(path, len(value), lambda offset, size: value[offset : offset + size])

    def put_file(self, lpath: str, rpath: str) -> None:
        """Make an object of a file on this machine.

        Raises:
            OSError: the store does not answer, or refuses.
        """
        with open(lpath, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._put(rpath, size, lambda offset, size: os.pread(file.fileno(), size, offset))

    def try_right(self, path: str) -> None:
        """See that an object could be made, by beginning one that is then given up; nothing becomes visible.

        Raises:
            OSError: the store does not answer, or refuses.
        """
        with _as_os_error():
            self._give_up(self._begin(path))

    def _put(self, path: str, size: int, piece: _Piece) -> None:
        with _as_os_error():
            if size > _PART_BYTES:
                self._in_parts(path, size, piece)
            else:
                bucket, _, key = path.partition("/")
                self._client.put_object(Bucket=bucket, Key=key, Body=io.BytesIO(piece(0, size)))

    def _in_parts(self, path: str, size: int, piece: _Piece) -> None:
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        upload = self._begin(path)

        def put(number: int) -> dict[str, object]:
            body = io.BytesIO(piece((number - 1) * part_bytes, part_bytes))
            answer = self._client.upload_part(**upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                parts = list(pool.map(put, range(1, -(-size // part_bytes) + 1)))
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._give_up(upload)
            raise

    def _begin(self, path: str) -> dict[str, str]:
        bucket, _, key = path.partition("/")
        answer = self._client.create_multipart_upload(Bucket=bucket, Key=key)
        return {"Bucket": bucket, "Key": key, "UploadId": answer["UploadId"]}

    def _give_up(self, upload: dict[str, str]) -> None:
        with suppress(BotoCoreError, ClientError):  # what is left of it is never visible; the store's rules remove it
            self._client.abort_multipart_upload(**upload)


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Botocore's descriptions of services, which take longer to read than all else of a client."""
    return create_loader()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except ConnectionClosedError as error:
        stalled = "timed out" in str(error.kwargs.get("error"))
        raise (TimeoutError if stalled else OSError)(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from error
