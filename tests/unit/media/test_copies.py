"""Models and sources from buckets: one copy a machine, whole or not there, new when the bucket's are."""

from __future__ import annotations

import threading
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import ConfigError
from pipeline.faces.packs import find_pack
from pipeline.faces.sources import load_sources
from pipeline.media.copies import CACHE, local_copy
from pipeline.media.store import Store
from pipeline.model.checkpoint import read_header
from pipeline.portrait_pack import pack_folder, shipped_generator
from tests.object_store import ObjectStore
from tests.unit.media.stores import set_environment


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    local_copy.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def bucket() -> Store:
    fsspec.filesystem("memory").store.clear()
    return Store("memory://bucket")


def test_a_path_is_itself(tmp_path: Path, cache: Path) -> None:
    assert local_copy(str(tmp_path / "gone")) == str(tmp_path / "gone")
    assert local_copy("buffalo_l") == "buffalo_l"
    assert local_copy(f"file://{tmp_path}/x") == f"{tmp_path}/x"
    assert not cache.exists()


def test_a_file_and_a_folder_come_whole_and_under_their_names(bucket: Store, cache: Path) -> None:
    for name, data in {"m/a.onnx": b"a", "m/deep/b.onnx": b"b", "m2/c": b"c"}.items():
        bucket.write(name, data)
    file, folder = Path(local_copy("memory://bucket/m/a.onnx")), Path(local_copy("memory://bucket/m/"))
    assert (file.name, file.read_bytes(), folder.name) == ("a.onnx", b"a", "m")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {"a.onnx", "deep/b.onnx"}
    assert not list(cache.glob(".partial-*"))


def test_what_is_there_is_not_fetched_again_and_what_changed_is(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.write("a", b"old")
    first = local_copy("memory://bucket/a")
    local_copy.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "fetched", None)  # fetching again would fail
        assert local_copy("memory://bucket/a") == first
    bucket.write("a", b"newer")
    local_copy.cache_clear()
    assert Path(local_copy("memory://bucket/a")).read_bytes() == b"newer"
    assert Path(first).read_bytes() == b"old", "who uses it still may"


def test_many_at_once_get_one_whole_copy(bucket: Store, cache: Path) -> None:
    bucket.write("a", bytes(1_000_000))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(local_copy.__wrapped__("memory://bucket/a"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert Path(found[0]).stat().st_size == 1_000_000
    assert len(list(cache.iterdir())) == 1


def test_nothing_there_and_no_place_for_it_are_said(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"memory://bucket/none: nothing is there"):
        local_copy("memory://bucket/none")
    bucket.write("a", b"a")
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=CACHE):
        local_copy("memory://bucket/a")


def test_a_name_that_leads_out_is_refused(bucket: Store, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    bucket.write("m/a", b"a")
    hostile = bucket.stat("m/a")
    assert hostile is not None
    bad = type(hostile)("m/../../../evil", hostile.size_bytes, hostile.mtime_ns)
    monkeypatch.setattr(Store, "list", lambda *_: iter([bad]))
    with pytest.raises(ConfigError, match="leads out of the folder"):
        local_copy("memory://bucket/m")
    assert not list(cache.rglob("evil"))


def test_pack_checkpoint_and_people_load_from_s3(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    set_environment(monkeypatch, object_store)
    store = Store(f"s3://{object_store.bucket}/copies")
    here = Path(pack_folder("portraits"))
    for path in here.iterdir():
        store.write(f"packs/portraits/{path.name}", path.read_bytes())
    store.write("tiny.safetensors", Path(shipped_generator()).read_bytes())
    pack = find_pack(f"{store.address}/packs/portraits")
    assert pack.digest == find_pack(str(here)).digest
    assert Path(pack.folder).is_relative_to(cache)
    assert read_header(f"{store.address}/tiny.safetensors") == read_header(shipped_generator())
    with pytest.raises(ConfigError, match="nothing is there"):
        load_sources(f"{store.address}/people.parquet", None, None, print)  # type: ignore[arg-type]
