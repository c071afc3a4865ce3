"""Laws of every store: a folder, S3, and what fsspec reaches; and of S3 when it fails."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.config import StorageConfig
from pipeline.errors import ConfigError, OutputError, StoreError
from pipeline.media.addresses import split_address
from pipeline.media.store import PARTIAL, Store
from tests.fault_proxy import Fault, FaultProxy, Schedule
from tests.object_store import ObjectStore
from tests.unit.media.stores import KINDS, SPECIAL, names, quick, set_environment, silent_server

SMALL, LARGE = b"twenty bytes of text", random.Random(7).randbytes(20_000_000)
Make = Callable[..., Store]


@pytest.fixture
def prefix(object_store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """An address of this test alone."""
    return f"s3://{object_store.bucket}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "folder":
        yield Store(str(tmp_path / "a folder"))
    elif request.param == "fsspec":
        yield Store("memory://bucket/a folder")
        fsspec.filesystem("memory").store.clear()
    else:
        set_environment(monkeypatch, request.getfixturevalue("object_store"))
        yield Store(request.getfixturevalue("prefix"))


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """In front of the S3 server, and what `s3://` means."""
    with FaultProxy(object_store.endpoint, latency_seconds=0.3) as made:
        set_environment(monkeypatch, object_store, made.endpoint)
        yield made


@pytest.fixture
def direct(object_store: ObjectStore, prefix: str) -> Callable[[str], bytes | None]:
    """What is visible under a name, past the proxy."""
    files, root = object_store.filesystem(), prefix.removeprefix("s3://")

    def look(name: str) -> bytes | None:
        gc.collect()  # what an upload left behind may end now
        if not files.get_file_info(f"{root}/{name}").is_file:
            return None
        return bytes(files.open_input_file(f"{root}/{name}").read())

    return look


def test_what_is_written_is_read_whole_and_in_stretches(store: Store) -> None:
    store.write("deep/er/file.bin", SMALL)
    assert store.read("deep/er/file.bin") == SMALL
    assert store.read("deep/er/file.bin", 7, 5) == SMALL[7:12]
    assert store.read("deep/er/file.bin", 7) == SMALL[7:]
    assert store.read("deep/er/file.bin", 15, 100) == SMALL[15:]
    assert store.digest("deep/er/file.bin") == hashlib.sha256(SMALL).hexdigest()
    with store.open("deep/er/file.bin") as file:
        file.seek(7)
        assert file.read(5) == SMALL[7:12]


def test_the_last_write_counts_and_nothing_may_be_written(store: Store) -> None:
    for data in (SMALL, b"", b"new"):
        store.write("a", data)
        assert store.read("a") == data
    assert names(store) == ["a"]


def test_a_large_file_goes_and_comes_byte_for_byte(store: Store) -> None:
    with store.making("film.mp4") as path:
        path.write_bytes(LARGE)
        assert store.stat("film.mp4") is None
    store.write("second.mp4", LARGE)
    for name in ("film.mp4", "second.mp4"):
        with store.fetched(name) as path:
            assert path.read_bytes() == LARGE
        assert store.digest(name) == hashlib.sha256(LARGE).hexdigest()


def test_a_list_is_sorted_recursive_complete_and_any_name_comes_back(store: Store) -> None:
    for name in SPECIAL:
        store.write(name, name.encode())
    assert names(store) == sorted(SPECIAL)
    assert names(store, "é") == ["é/ü ñ.jpg"]
    assert names(store, "nothing") == []
    for name in SPECIAL:
        assert store.read(name) == name.encode()
        found = store.stat(name)
        assert found is not None
        assert (found.name, found.size_bytes) == (name, len(name.encode()))
    assert store.read_all([*SPECIAL, "gone"]) == {name: name.encode() for name in SPECIAL}


def test_a_neighbour_with_a_longer_name_is_not_below_the_address(store: Store) -> None:
    Store(f"{store.address}-neighbour").write("a", SMALL)
    assert store.is_empty()
    assert names(store) == []


def test_the_time_of_a_file_is_when_it_was_written(store: Store) -> None:
    store.write("a", SMALL)
    found = store.stat("a")
    assert found is not None
    if not store.address.startswith("memory"):  # fsspec has no common word for it
        assert abs(found.mtime_ns / 1e9 - time.time()) < 100
    assert next(store.list()).mtime_ns == found.mtime_ns


def test_what_is_removed_is_gone_and_may_have_been_before(store: Store) -> None:
    for name in ("a", "b/c", "b/d", "e"):
        store.write(name, SMALL)
    assert not store.is_empty()
    store.remove("a")
    store.remove("a")
    store.remove_folder("b")
    store.remove_all(["e", "never"])
    store.forget_empty("b")
    assert names(store) == []


def test_what_is_not_there_is_said_so(store: Store) -> None:
    assert store.is_empty()
    assert store.stat("a") is None
    assert store.read_or_none("a") is None
    for ask in (store.read, store.open, store.digest):
        with pytest.raises(FileNotFoundError):
            ask("a")
    with pytest.raises(FileNotFoundError), store.fetched("a") as path:
        path.read_bytes()


def test_what_is_not_finished_is_never_visible(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.making("film.mp4") as path:  # noqa: PT012
        path.write_bytes(SMALL)
        raise KeyboardInterrupt
    with store.making("nothing.mp4"):
        pass
    store.remove_folder(PARTIAL)
    assert names(store) == []


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.SLOW_DOWN, Fault.CUT_BODY, Fault.LOST_REPLY, Fault.LATENCY])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_fault_of_any_kind_is_survived_and_gives_the_right_bytes(
    proxy: FaultProxy, prefix: str, fault: Fault, data: bytes
) -> None:
    store = Store(prefix)
    proxy.fail_next(fault, method="PUT")
    store.write("written", data)
    with store.making("made.mp4") as path:
        proxy.fail_next(fault, method="PUT")
        path.write_bytes(data)
    for ask in (store.read, lambda name: bytes(store.open(name).read())):
        for method in ("GET", "HEAD"):
            proxy.fail_next(fault, method=method)
        assert ask("written") == data
    proxy.fail_next(fault, 2, method="GET")
    assert names(store) == ["made.mp4", "written"]
    proxy.fail_next(fault, method="GET", path="made")
    with store.fetched("made.mp4") as path:
        assert path.read_bytes() == data
    assert proxy.faults[fault] >= 6


def test_half_of_all_requests_failing_costs_time_and_nothing_else(proxy: FaultProxy, prefix: str) -> None:
    store = Store(prefix)
    expected = {f"{number}": SMALL * number for number in range(20)}
    proxy.follow(Schedule(3, {Fault.ERROR: 0.2, Fault.CUT_BODY: 0.15, Fault.LOST_REPLY: 0.15}))
    for name, data in expected.items():
        store.write(name, data)
    assert store.read_all([*expected, "never"]) == expected


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(SMALL, Fault.ERROR, id="small, error"),
        pytest.param(SMALL, Fault.CUT_BODY, id="small, cut", marks=pytest.mark.long),
        pytest.param(LARGE, Fault.ERROR, id="large, error", marks=pytest.mark.long),
        pytest.param(LARGE, Fault.CUT_BODY, id="large, cut", marks=pytest.mark.long),
    ],
)
def test_after_the_last_attempt_a_fault_is_told(proxy: FaultProxy, prefix: str, fault: Fault, data: bytes) -> None:
    Store(prefix).write("a", data)
    store = Store(prefix, quick())
    proxy.fail_next(fault, 100, method="GET")
    for ask in (store.read, store.digest, store.read_or_none):
        with pytest.raises(StoreError, match=f"{prefix}/a: "):
            ask("a")
    with pytest.raises(StoreError), store.fetched("a"):
        pytest.fail("there is no file")


@pytest.mark.parametrize(
    "where",
    [
        "partNumber=2",
        *(pytest.param(w, marks=pytest.mark.long) for w in ("uploads$", "partNumber=1", "uploadId=[^&]*$")),
    ],
)
def test_a_large_upload_that_fails_is_told_and_leaves_nothing(
    proxy: FaultProxy, prefix: str, direct: Callable[[str], bytes | None], where: str
) -> None:
    store = Store(prefix, quick())
    proxy.fail_next(Fault.ERROR, 100, method="PUT" if "part" in where else "POST", path=where)
    with pytest.raises(OutputError, match="cannot be written"):
        store.write("film.mp4", LARGE)
    with pytest.raises(OutputError, match="cannot be written"), store.making("film.mp4") as path:
        path.write_bytes(LARGE)
    assert proxy.faults[Fault.ERROR] >= 12
    assert direct("film.mp4") is None


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.SLOW_DOWN])
def test_a_small_upload_that_fails_leaves_the_old_object(
    proxy: FaultProxy, prefix: str, direct: Callable[[str], bytes | None], fault: Fault
) -> None:
    store = Store(prefix, quick())
    store.write("a", b"old")
    proxy.fail_next(fault, 100, method="PUT")
    with pytest.raises(OutputError):
        store.write("a", b"new")
    proxy.calm()
    assert direct("a") == b"old"


def test_the_lost_reply_of_an_upload_that_was_completed_is_survived(
    proxy: FaultProxy, prefix: str, direct: Callable[[str], bytes | None]
) -> None:
    proxy.fail_next(Fault.LOST_REPLY, method="POST", path="uploadId=")
    Store(prefix).write("a", LARGE)
    assert proxy.faults[Fault.LOST_REPLY] == 1
    assert direct("a") == LARGE


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_exception_in_the_middle_of_an_upload_leaves_nothing(
    proxy: FaultProxy,
    prefix: str,
    direct: Callable[[str], bytes | None],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1_000_000:
                raise error
            return super().read(size)

    monkeypatch.setattr("pipeline.media.uploads.io.BytesIO", Breaks)
    for name, data in (("one-put", LARGE[:5_000_000]), ("parts", LARGE)):
        with pytest.raises((error, OutputError)):
            Store(prefix, quick()).write(name, data)
        assert direct(name) is None


@pytest.mark.parametrize("size", [5_000_000, 20_000_000], ids=["one put", "parts"])
def test_a_kill_at_any_moment_leaves_nothing_or_all(
    object_store: ObjectStore, prefix: str, direct: Callable[[str], bytes | None], size: int
) -> None:
    program = (
        "from pipeline.media.store import Store; import sys\n"
        "store = Store(sys.argv[1]); data = b'x' * int(sys.argv[2]); store.write('first', b'x'); print(1, flush=True)\n"
        "for number in range(1000): store.write(f'file-{number}', data)"
    )
    environment = os.environ | object_store.environment()
    for delay in (0.05, 0.3):
        command = [sys.executable, "-c", program, prefix, str(size)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for number in range(1000):
            found = direct(f"file-{number}")
            assert found is None or len(found) == size
            if found is None:
                break


@pytest.mark.long
def test_a_store_that_never_answers_is_given_up(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as endpoint:
        set_environment(monkeypatch, object_store, endpoint)
        store = Store("s3://films/a", quick(attempts=6))
        began = time.monotonic()
        for ask in (lambda: store.read("a"), lambda: names(store), lambda: store.stat("a")):
            with pytest.raises(StoreError, match=f"does not answer at {endpoint}"):
                ask()
        for data in (SMALL, LARGE[:12_000_000], LARGE):
            with pytest.raises(OutputError, match=f"does not answer at {endpoint}"):
                store.write("a", data)
        assert time.monotonic() - began < 90


@pytest.mark.long
def test_a_body_that_stops_in_the_middle_is_given_up(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nLast-Modified: Wed, 25 Nov 2026 20:00:00 GMT\r\n\r\nhalf"
    with silent_server(said) as endpoint:
        set_environment(monkeypatch, object_store, endpoint)
        began = time.monotonic()
        with pytest.raises(StoreError):
            Store("s3://films/a", quick()).read("a")
        assert time.monotonic() - began < 30


def test_what_is_wrong_with_a_store_is_said_quickly_and_in_one_line(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(address: str = "s3://films/check", *, writable: bool = False, **environment: str) -> str:
        set_environment(monkeypatch, object_store)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        with pytest.raises(ConfigError) as caught:
            Store(address).check("inputs", writable=writable)
        assert time.monotonic() - began < 10
        assert "\n" not in str(caught.value)
        return str(caught.value)

    nobody = "http://127.0.0.1:9"
    assert check(AWS_ENDPOINT_URL=nobody).startswith(
        f"inputs: s3://films/check: the store cannot be reached at {nobody}."
    )
    assert "reached at http://no-such-host.invalid." in check(AWS_ENDPOINT_URL="http://no-such-host.invalid")
    assert "refuses these credentials. Check AWS_SECRET_ACCESS_KEY" in check(AWS_SECRET_ACCESS_KEY="wrong")
    assert "credentials. Check AWS_" in check(AWS_ACCESS_KEY_ID="nobody:here")
    for writable in (False, True):
        assert "s3://no-such-bucket/a: no such bucket. Make it" in check("s3://no-such-bucket/a", writable=writable)
    for address in ("s3://", "s3:///a"):
        assert "names no bucket. Give s3://bucket/prefix." in check(address)
    assert check("ftpx://films/a").startswith("ftpx://films/a: not an address that can be used")


def test_a_good_store_is_checked_without_writing(store: Store) -> None:
    store.check("inputs")
    store.check("output", writable=True)
    assert store.is_empty()


def test_a_shaky_store_is_checked_all_the_same(proxy: FaultProxy, prefix: str) -> None:
    proxy.fail_next(Fault.SLOW_DOWN, 4)
    Store(prefix).check("output", writable=True)


def test_a_folder_that_cannot_be_one_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SMALL)
    for address in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="not a folder"):
            Store(str(address)).check("output", writable=True)
    with pytest.raises(OutputError, match="cannot be written"):
        Store(str(tmp_path / "file")).write("a", SMALL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="no permission to write"):
        Store(str(tmp_path / "new")).check("output", writable=True)
    tmp_path.chmod(0o700)


def test_no_credential_is_ever_said(
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(0)
    canary = "canary7Secret"
    said: list[str] = []

    def hear(ask: Callable[[], object]) -> None:
        with pytest.raises((ConfigError, StoreError, OutputError)) as caught:
            ask()
        said.extend([str(caught.value), repr(caught.value), "".join(traceback.format_exception_only(caught.value))])

    set_environment(monkeypatch, object_store)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary)
    monkeypatch.setenv("AWS_SESSION_TOKEN", canary)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", canary)
    for endpoint in (object_store.endpoint, f"http://me:{canary}@127.0.0.1:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = Store("s3://films/canary", StorageConfig(attempts=1))
        for ask in (lambda: store.check("inputs", writable=True), lambda: store.read("a"), lambda: names(store)):  # noqa: B023
            hear(ask)
        hear(lambda: store.write("a", SMALL))  # noqa: B023
    hear(lambda: Store(f"s3://key:{canary}@films/a"))
    assert said
    captured = capfd.readouterr()
    ours = [record.getMessage() for record in caplog.records if record.levelno >= 20]
    assert canary not in "\n".join([*said, *ours, captured.out, captured.err])


def test_a_file_is_split_from_its_bucket_or_folder() -> None:
    assert split_address("s3://films/a/b c.mp4") == ("s3://films", "a/b c.mp4")
    assert split_address("/films/a/b c.mp4") == ("/films/a", "b c.mp4")
