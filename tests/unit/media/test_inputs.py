"""Laws of listing and reading inputs, wherever they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import ImagesConfig, StorageConfig
from pipeline.errors import ConfigError, ItemError
from pipeline.media import inputs as module
from pipeline.media.inputs import InputFile, Inputs, list_inputs
from pipeline.media.store import Store, store_at
from tests.fault_proxy import Fault, FaultProxy
from tests.object_store import ObjectStore
from tests.unit.media.stores import KINDS, SPECIAL, quick, set_environment

FILES = {name: name.encode() * 50 for name in SPECIAL}


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Files with all kinds of names in a store of each kind."""
    made = {"folder": str(tmp_path / "in"), "fsspec": f"memory://{tmp_path.name}", "s3": f"s3://films/{tmp_path.name}"}
    if request.param == "s3":
        set_environment(monkeypatch, request.getfixturevalue("object_store"))
    store = Store(made[request.param])
    for name, data in FILES.items():
        store.write(name, data)
    store_at.cache_clear()
    yield made[request.param]
    store_at.cache_clear()


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """In front of the S3 server; `s3://films/faulty` holds the files."""
    with FaultProxy(object_store.endpoint) as made:
        set_environment(monkeypatch, object_store, made.endpoint)
        store = Store("s3://films/faulty")
        for name, data in FILES.items():
            store.write(name, data)
        store_at.cache_clear()
        yield made
        store_at.cache_clear()


def reader(address: str, max_bytes: int = 1_000_000, storage: StorageConfig | None = None) -> Inputs:
    return Inputs(address, ImagesConfig(max_bytes=max_bytes), storage or StorageConfig())


def code(inputs: Inputs, file: InputFile) -> str:
    with pytest.raises(ItemError) as caught:
        inputs.read(file)
    return caught.value.code


def test_all_files_are_listed_with_their_size_and_read(address: str) -> None:
    files, inputs = list(list_inputs(address)), reader(address)
    assert {file.item: file.size_bytes for file in files} == {name: len(data) for name, data in FILES.items()}
    assert list(list_inputs(address)) == files
    inputs.ahead(files)
    assert {file.item: inputs.read(file) for file in files} == FILES


def test_any_order_and_any_part_of_what_was_announced_may_be_read(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AHEAD_BYTES", 1000)
    files, inputs = list(list_inputs(address)), reader(address)
    inputs.ahead(files)
    assert [inputs.read(file) for file in reversed(files)] == [FILES[file.item] for file in reversed(files)]
    inputs.ahead(files[:5])
    assert inputs.read(files[1]) == FILES[files[1].item]
    inputs.ahead(files[3:])
    assert [inputs.read(file) for file in files] == [FILES[file.item] for file in files]


def test_what_is_fetched_ahead_is_bounded_in_bytes(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    files, inputs = list(list_inputs("s3://films/faulty")), reader("s3://films/faulty")
    monkeypatch.setattr(module, "_AHEAD_BYTES", files[0].size_bytes + files[1].size_bytes)
    before = proxy.requests["GET"]
    inputs.ahead(files)
    inputs._pool.shutdown(wait=True)  # type: ignore[union-attr]
    assert proxy.requests["GET"] - before == 2


def test_a_file_that_is_too_large_is_refused_and_not_fetched(address: str) -> None:
    files, inputs = list(list_inputs(address)), reader(address, max_bytes=10)
    inputs.ahead(files)
    assert {code(inputs, file) for file in files} == {"too_large"}


def test_a_file_that_has_gone_is_a_reason_and_the_others_are_read(address: str) -> None:
    files, inputs = list(list_inputs(address)), reader(address)
    Store(address).remove(files[0].item)
    inputs.ahead(files)
    assert code(inputs, files[0]) == "gone"
    assert [inputs.read(file) for file in files[1:]] == [FILES[file.item] for file in files[1:]]


def test_no_file_is_no_error_and_no_folder_is(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, object_store)
    assert list(list_inputs("s3://films/never-used")) == []
    assert list(list_inputs(str(tmp_path))) == []
    with pytest.raises(ConfigError, match="no such folder"):
        list(list_inputs(str(tmp_path / "never")))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ConfigError, match="inputs: s3://films/other: the store refuses"):
        list(list_inputs("s3://films/other"))


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.CUT_BODY, Fault.LOST_REPLY])
def test_faults_while_fetching_ahead_are_survived(proxy: FaultProxy, fault: Fault) -> None:
    files, inputs = list(list_inputs("s3://films/faulty")), reader("s3://films/faulty")
    proxy.fail_next(fault, len(files), method="GET")
    inputs.ahead(files)
    assert {file.item: inputs.read(file) for file in files} == FILES


def test_a_store_that_keeps_failing_is_a_reason_of_that_input_alone(proxy: FaultProxy) -> None:
    files = list(list_inputs("s3://films/faulty"))
    inputs = reader("s3://films/faulty", storage=quick())
    proxy.fail_next(Fault.ERROR, 100, method="GET", path="100")
    inputs.ahead(files)
    bad = next(file for file in files if file.item == "100%.jpg")
    assert code(inputs, bad) == "store_error"
    assert all(inputs.read(file) == FILES[file.item] for file in files if file != bad)


def test_odd_things_in_a_folder_are_listed_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "good.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "never")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    problems = {file.item: file.problem for file in list_inputs(str(tmp_path))}
    assert [name for name, problem in problems.items() if not problem] == ["good.jpg", "link.jpg"]
    assert problems["pipe"] == "not a regular file"
    assert problems["\\xff.jpg"] == "its name is not UTF-8"
    assert {code(reader(str(tmp_path)), file) for file in list_inputs(str(tmp_path)) if file.problem} == {"not_a_file"}
