"""A real S3 server on this machine: OpenStack Swift with s3api, four small processes on free ports of the loopback.

Swift has a Python of its own (`make test` sees to it), because its libraries have no place beside the project's.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import s3fs
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

KINDS = ("account", "container", "object", "proxy")
_PROCESSES = Path(__file__).with_name("swift_processes.py")
_START_SECONDS = 60.0
_ATTEMPTS = 3
# copy before slo: otherwise copies of objects of several parts are corrupt
_PIPELINE = "catch_errors healthcheck cache one_writer listing_formats s3api tempauth bulk copy slo dlo proxy-server"


class ObjectStoreError(RuntimeError):
    """The server could not be had."""


class _PortTakenError(ObjectStoreError):
    """Somebody else was quicker to take a port that was free."""


def swift_python() -> Path | None:
    """The Python that has Swift, or None: below `SIMSWAP_TEST_SWIFT`, else below this environment's `.swift`."""
    folder = Path(os.environ.get("SIMSWAP_TEST_SWIFT", Path(sys.prefix) / ".swift"))
    has_swift = next(folder.glob("lib/python3.*/site-packages/swift/proxy"), None)
    return folder / "bin" / "python" if has_swift else None


def keeps_attributes(folder: Path) -> bool:
    """Whether files in a folder can have extended attributes, in which Swift keeps what it knows of an object.

    tmpfs cannot before Linux 6.6.
    """
    probe = folder / "attributes"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift", b"x" * 1024)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


class ObjectStore:
    """An S3 server with one empty bucket, from `with` to the end of it, or of the thread that started it.

    As S3 does, it lets one of several that create a key at once succeed (`If-None-Match: *`; the others read 412).
    `If-Match` it does not know (501).

    Attributes:
        endpoint: address, `http://127.0.0.1:PORT`.
        access_key: who asks.
        secret_key: signs what is asked.
        bucket: name of a bucket that exists.
        start_seconds: from the start to the bucket.

    Args:
        folder: where it keeps everything; empty, on a file system with extended attributes.
        python: that has Swift; None is `swift_python()`.

    Raises:
        ObjectStoreError: there is no Swift, the folder cannot hold it, or it did not answer within a minute.
    """

    access_key = "test:tester"
    secret_key = "testing"
    region = "us-east-1"
    bucket = "films"

    def __init__(self, folder: Path, python: Path | None = None) -> None:
        found = python or swift_python()
        if found is None:
            raise ObjectStoreError("OpenStack Swift: not installed. Run `make test`, or set SIMSWAP_TEST_SWIFT.")
        self._python, self._folder = found, folder
        self._parent: subprocess.Popen[bytes] | None = None
        self.endpoint = ""
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        """Start the four servers and make the bucket."""
        if not keeps_attributes(self._folder):
            raise ObjectStoreError(f"{self._folder}: no extended attributes here. Give a folder on a disk.")
        began = time.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start(self._folder / f"attempt-{attempt}", began + _START_SECONDS)
                break
            except _PortTakenError:
                self.stop()
                if attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the servers."""
        self.stop()

    def pids(self) -> dict[str, int]:
        """The process of each server."""
        written = max(self._folder.glob("attempt-*/pids")).read_text()
        return {kind: int(pid) for kind, pid in map(str.split, written.splitlines())}

    def stop(self) -> None:
        """End the processes that were started. Nothing is worth writing down: the folder goes."""
        if self._parent is not None:
            self._parent.terminate()
            self._parent.wait()
            self._parent = None

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What AWS's variables have to be for this store, for a process and its children.

        Args:
            endpoint: of a proxy in front; None is the store itself.
        """
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def filesystem(self, endpoint: str | None = None, *, attempts: int = 3) -> S3FileSystem:
        """This store through pyarrow.

        Args:
            endpoint: of a proxy in front; None is the store itself.
            attempts: of each request, the first included.
        """
        return S3FileSystem(
            endpoint_override=endpoint or self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            allow_bucket_creation=True,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        )

    def fsspec_filesystem(self, endpoint: str | None = None, *, attempts: int | None = None) -> s3fs.S3FileSystem:
        """This store through s3fs; nothing that was listed is remembered.

        Args:
            endpoint: of a proxy in front; None is the store itself.
            attempts: of each request, the first included; None is as s3fs and botocore like. 1 is not quite one:
                aiohttp repeats a PUT whose connection broke, when the connection had served before.
        """
        made = s3fs.S3FileSystem(
            key=self.access_key,
            secret=self.secret_key,
            endpoint_url=endpoint or self.endpoint,
            client_kwargs={"region_name": self.region},
            config_kwargs={"retries": {"total_max_attempts": attempts}} if attempts else {},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        made.retries = attempts or made.retries
        return made

    def log(self) -> str:
        """What the servers have said, warnings and worse."""
        return "\n".join(path.read_text() for path in sorted(self._folder.rglob("log")))

    def _start(self, folder: Path, deadline: float) -> None:
        ports = dict(zip(KINDS, _free_ports(len(KINDS)), strict=True))
        _configure(folder, ports)
        with (folder / "log").open("wb") as log:
            command = [str(part) for part in (self._python, _PROCESSES, folder, *ports.values())]
            self._parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        for kind, port in ports.items():
            self._wait(kind, port, deadline)
        self.endpoint = f"http://127.0.0.1:{ports['proxy']}"
        self.filesystem(attempts=10).create_dir(self.bucket)

    def _wait(self, kind: str, port: int, deadline: float) -> None:
        while not _answers(port):
            if self._parent is None or self._parent.poll() is not None:
                said = self.log()
                error = _PortTakenError if "Could not bind" in said else ObjectStoreError
                raise error(f"swift: ended before it answered. See what it said:\n{said[-2000:]}")
            if time.monotonic() > deadline:
                raise ObjectStoreError(f"swift {kind}: no answer in {_START_SECONDS:.0f} s. Is the machine overloaded?")
            time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().read() == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _configure(folder: Path, ports: dict[str, int]) -> None:
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    for kind, port in ports.items():
        (folder / kind).mkdir()
        (folder / kind / "server.conf").write_text(_config(folder, kind, port))


def _config(folder: Path, kind: str, port: int) -> str:
    common = (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nbind_timeout = 2\nworkers = 0\n"
        f"swift_dir = {folder}\ndevices = {folder / 'devices'}\n"
        "mount_check = false\ndisable_fallocate = true\nlog_level = WARNING\n"
    )
    if kind != "proxy":
        return (
            common
            + f"[pipeline:main]\npipeline = healthcheck {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
            + "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
        )
    filters = [name for name in _PIPELINE.split()[:-1] if name not in ("cache", "one_writer", "tempauth")]
    account, user = ObjectStore.access_key.split(":")
    return (
        common
        + f"[pipeline:main]\npipeline = {_PIPELINE}\n"
        + "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        + "[filter:cache]\npaste.filter_factory = swift_processes:cache_filter\n"
        + "[filter:one_writer]\npaste.filter_factory = swift_processes:one_writer_filter\n"
        + f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{account}_{user} = {ObjectStore.secret_key} .admin\n"
        + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in filters)
    )
