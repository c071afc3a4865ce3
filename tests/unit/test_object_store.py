"""Laws of the S3 server and of the proxy that fails on purpose, on which the tests of object stores stand."""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
import s3fs
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem, S3FileSystem

from tests.fault_proxy import Fault, FaultProxy, Schedule
from tests.object_store import ObjectStore

ANYTHING = r"."
PART_BYTES = 5 * 1024 * 1024
Connect = Callable[[str], FileSystem]


@pytest.fixture(params=["pyarrow", "s3fs"])
def connect(request: pytest.FixtureRequest, object_store: ObjectStore) -> Connect:
    """The store at an address through each client."""
    if request.param == "pyarrow":
        return object_store.filesystem
    return lambda endpoint: PyFileSystem(FSSpecHandler(object_store.fsspec_filesystem(endpoint)))


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[FaultProxy]:
    with FaultProxy(object_store.endpoint, latency_seconds=0.4) as made:
        yield made


@pytest.fixture
def prefix(object_store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """A folder of the bucket for this test alone."""
    return f"{object_store.bucket}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def put(filesystem: FileSystem, path: str, data: bytes) -> None:
    with filesystem.open_output_stream(path) as file:
        file.write(data)


def get(filesystem: FileSystem, path: str) -> bytes:
    with filesystem.open_input_file(path) as file:
        return bytes(file.read())


@functools.cache
def _session() -> Any:
    return botocore.session.get_session()


def low_level(store: ObjectStore, endpoint: str, attempts: int = 1) -> Any:
    """Botocore's client, which sends `Expect: 100-continue` with every body."""
    return _session().create_client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name=store.region,
        config=Config(retries={"total_max_attempts": attempts}),
    )


def test_what_is_put_is_listed_and_read_until_it_is_deleted(connect: Connect, proxy: FaultProxy, prefix: str) -> None:
    filesystem = connect(proxy.endpoint)
    path = f"{prefix}/folder one/a+b&c=d é.bin"
    put(filesystem, path, b"some bytes")

    assert [info.path for info in filesystem.get_file_info(FileSelector(prefix, recursive=True)) if info.is_file] == [
        path
    ]
    assert filesystem.get_file_info(path).size == len(b"some bytes")
    assert get(filesystem, path) == b"some bytes"

    filesystem.delete_file(path)
    assert filesystem.get_file_info(path).type is FileType.NotFound


def test_a_range_of_an_object_is_a_slice_of_its_bytes(connect: Connect, proxy: FaultProxy, prefix: str) -> None:
    data = bytes(range(256)) * 400
    filesystem = connect(proxy.endpoint)
    put(filesystem, f"{prefix}/range", data)
    with filesystem.open_input_file(f"{prefix}/range") as file:
        file.seek(50_001)
        assert file.read(1_000) == data[50_001:51_001]
        assert file.seek(0, os.SEEK_END) == len(data)


def test_an_object_of_several_parts_comes_back_byte_for_byte(connect: Connect, proxy: FaultProxy, prefix: str) -> None:
    data = hashlib.shake_256(b"parts").digest(2 * PART_BYTES + 12_345)
    filesystem = connect(proxy.endpoint)
    put(filesystem, f"{prefix}/parts", data)
    assert get(filesystem, f"{prefix}/parts") == data


def test_the_environment_is_all_that_an_address_needs(
    object_store: ObjectStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    filesystem, path = FileSystem.from_uri(f"s3://{prefix}/by-address")
    put(filesystem, path, b"found")
    assert s3fs.S3FileSystem(skip_instance_cache=True).cat_file(f"s3://{prefix}/by-address") == b"found"


def test_a_wrong_secret_is_refused(object_store: ObjectStore, prefix: str) -> None:
    stranger = S3FileSystem(
        endpoint_override=object_store.endpoint, access_key=object_store.access_key, secret_key="wrong"
    )
    with pytest.raises(OSError, match="request signature we calculated does not match"):
        put(stranger, f"{prefix}/stranger", b"mine")


def test_a_key_that_exists_is_not_created(object_store: ObjectStore, prefix: str) -> None:
    filesystem = object_store.fsspec_filesystem()
    filesystem.pipe_file(f"{prefix}/new", b"first", mode="create")
    with pytest.raises(OSError, match="precondition"):
        filesystem.pipe_file(f"{prefix}/new", b"second", mode="create")
    assert filesystem.cat_file(f"{prefix}/new") == b"first"

    filesystem.rm_file(f"{prefix}/new")
    filesystem.pipe_file(f"{prefix}/new", b"third", mode="create")
    assert filesystem.cat_file(f"{prefix}/new") == b"third"


def test_of_those_that_create_a_key_at_once_one_succeeds(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    client = low_level(object_store, proxy.endpoint)
    bucket, folder = prefix.split("/")

    def create(number: int) -> int:
        try:
            client.put_object(Bucket=bucket, Key=f"{folder}/race", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(create, range(6)))
    assert sorted(codes) == [200, 412, 412, 412, 412, 412]
    # The refused bodies were never sent, and what follows on the same connections is not taken for them.
    assert client.get_object(Bucket=bucket, Key=f"{folder}/race")["Body"].read() == b"%d" % codes.index(200)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.SLOW_DOWN])
def test_a_refusal_reaches_the_client_as_the_stores_own(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str, fault: Fault
) -> None:
    client = low_level(object_store, proxy.endpoint)
    bucket, folder = prefix.split("/")
    place = {"Bucket": bucket, "Key": f"{folder}/x"}
    calls: list[Callable[[], Any]] = [
        lambda: client.put_object(**place, Body=b"x"),
        lambda: client.get_object(**place),
        lambda: client.head_object(**place),
    ]
    for call in calls:
        proxy.fail_next(fault)
        with pytest.raises(ClientError) as caught:
            call()
        code, name = fault.value.split()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == int(code)
        assert caught.value.response["Error"]["Code"] in (name, code)  # a HEAD has no body to name it
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(**place)
    assert proxy.faults == {fault: 3}


@pytest.mark.parametrize("fault", Fault)
def test_a_client_that_retries_does_not_notice_a_fault(
    connect: Connect, proxy: FaultProxy, prefix: str, fault: Fault
) -> None:
    data = b"x" * 200_000
    filesystem = connect(proxy.endpoint)
    put(filesystem, f"{prefix}/patient", data)
    proxy.fail_next(fault, method="GET", path=r"/patient$")
    assert get(filesystem, f"{prefix}/patient") == data
    assert proxy.faults == {fault: 1}


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.SLOW_DOWN])
def test_pyarrow_retries_no_refused_read_that_is_shorter_than_the_refusal(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str, fault: Fault
) -> None:
    """It reads the refusal into the place for the data, where it does not fit: what reads must retry by itself."""
    filesystem = object_store.filesystem(proxy.endpoint, attempts=10)
    put(filesystem, f"{prefix}/short", b"x" * 20)
    proxy.requests.clear()
    proxy.fail_next(fault, method="GET")
    with pytest.raises(OSError, match="Failed to flush response stream"):
        get(filesystem, f"{prefix}/short")
    assert proxy.requests["GET"] == 1


def test_a_body_that_is_cut_is_never_taken_for_the_whole(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    client = low_level(object_store, proxy.endpoint)
    bucket, folder = prefix.split("/")
    client.put_object(Bucket=bucket, Key=f"{folder}/cut", Body=b"x" * 100_000)
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": f"{folder}/cut"}))

    proxy.fail_next(Fault.CUT_BODY, path=r"/cut\?")
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("GET", f"{url.path}?{url.query}")
    with pytest.raises(http.client.IncompleteRead) as caught:
        connection.getresponse().read()
    connection.close()
    assert caught.value.partial == b"x" * 50_000

    proxy.fail_next(Fault.CUT_BODY, count=100, method="GET")
    with pytest.raises(OSError, match=ANYTHING):
        get(object_store.filesystem(proxy.endpoint, attempts=2), f"{prefix}/cut")


def test_a_put_whose_reply_is_lost_has_happened(object_store: ObjectStore, proxy: FaultProxy, prefix: str) -> None:
    impatient = object_store.fsspec_filesystem(proxy.endpoint, attempts=1)
    proxy.fail_next(Fault.LOST_REPLY, count=2, method="PUT")  # aiohttp repeats the first by itself
    with pytest.raises((OSError, BotoCoreError), match=ANYTHING):
        impatient.pipe_file(f"{prefix}/lost", b"it is there")
    assert get(object_store.filesystem(), f"{prefix}/lost") == b"it is there"


def test_who_creates_again_after_a_lost_reply_meets_his_own_object(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    filesystem = object_store.fsspec_filesystem(proxy.endpoint)
    proxy.fail_next(Fault.LOST_REPLY, method="PUT")
    with pytest.raises(OSError, match="precondition"):
        filesystem.pipe_file(f"{prefix}/mine", b"mine", mode="create")
    assert filesystem.cat_file(f"{prefix}/mine") == b"mine"
    assert proxy.requests["PUT"] == 2


def test_latency_delays_one_request_and_changes_nothing(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    filesystem = object_store.filesystem(proxy.endpoint)
    proxy.fail_next(Fault.LATENCY, method="HEAD")
    began = time.monotonic()
    assert filesystem.get_file_info(f"{prefix}/nothing").type is FileType.NotFound
    assert time.monotonic() - began > 0.4
    assert proxy.faults == {Fault.LATENCY: 1}


def test_only_requests_that_match_fail_and_only_so_many(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    filesystem = object_store.filesystem(proxy.endpoint, attempts=1)
    for name in "ab":
        put(filesystem, f"{prefix}/{name}", name.encode())
    proxy.fail_next(Fault.ERROR, count=2, method="GET", path=r"/a$")
    assert get(filesystem, f"{prefix}/b") == b"b"
    for _ in range(2):
        with pytest.raises(OSError, match=ANYTHING):
            get(filesystem, f"{prefix}/a")
    assert get(filesystem, f"{prefix}/a") == b"a"

    proxy.fail_next(Fault.ERROR, count=100)
    proxy.calm()
    assert get(filesystem, f"{prefix}/a") == b"a"
    assert proxy.faults == {Fault.ERROR: 2}


def test_the_proxy_counts_every_request_by_its_method(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    client = low_level(object_store, proxy.endpoint)
    bucket, folder = prefix.split("/")
    for _ in range(3):
        client.put_object(Bucket=bucket, Key=f"{folder}/n", Body=b"")
    client.get_object(Bucket=bucket, Key=f"{folder}/n")["Body"].read()
    client.delete_object(Bucket=bucket, Key=f"{folder}/n")
    assert proxy.requests == {"PUT": 3, "GET": 1, "DELETE": 1}


def test_retries_get_a_client_through_faults_by_chance(
    object_store: ObjectStore, proxy: FaultProxy, prefix: str
) -> None:
    rates = {Fault.SLOW_DOWN: 0.1, Fault.LOST_REPLY: 0.1, Fault.CUT_BODY: 0.1}
    proxy.follow(Schedule(seed=5, rates=rates))
    filesystem = object_store.filesystem(proxy.endpoint, attempts=12)

    def there_and_back(number: int) -> None:
        data = b"%d" % number * 1000
        put(filesystem, f"{prefix}/{number}", data)
        assert get(filesystem, f"{prefix}/{number}") == data

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(there_and_back, range(6)))
    assert set(proxy.faults) <= set(rates)
    assert proxy.faults.total() > 0


def test_a_schedule_depends_on_its_seed_and_on_nothing_else() -> None:
    rates = {Fault.ERROR: 0.1, Fault.CUT_BODY: 0.2}
    requests = [(method, f"/films/{key}", nth) for method in ("GET", "PUT") for key in range(500) for nth in range(3)]
    chosen = {request: Schedule(1, rates).fault(*request) for request in requests}
    assert {request: Schedule(1, rates).fault(*request) for request in reversed(requests)} == chosen
    assert {request: Schedule(2, rates).fault(*request) for request in requests} != chosen
    for fault, rate in rates.items():
        assert list(chosen.values()).count(fault) / len(requests) == pytest.approx(rate, abs=0.03)
    assert not any(Schedule(1, rates, path=r"\.mp4$").fault(*request) for request in requests)


def test_a_store_leaves_no_process_behind(object_store: ObjectStore, tmp_path: Path) -> None:
    with ObjectStore(tmp_path) as another:
        pids = another.pids()
        assert sorted(pids) == ["account", "container", "object", "proxy"]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
        assert another.endpoint != object_store.endpoint
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
