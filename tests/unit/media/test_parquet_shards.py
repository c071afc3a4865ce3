from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.parquet_files import reading
from pipeline.media.shards.parquet_shards import ParquetShard, rewrite_parquet
from tests.shards import JPEG, PNG, hugging_face, layout, make_parquet


def _shard(data: bytes, **columns: str) -> ParquetShard:
    return ParquetShard(io.BytesIO(data), "00000.parquet", **columns)


def _rewrite_parquet(data: bytes, results: dict[str, bytes], dropped: Sequence[str] = (), **columns: str) -> bytes:
    target = io.BytesIO()
    rewrite_parquet(_shard(data, **columns), target, results.get, frozenset(dropped))
    return target.getvalue()


def test_the_struct_of_hugging_face_is_found_and_read() -> None:
    shard = _shard(hugging_face())
    items = list(shard.items())
    assert [(item.key, item.name, item.offset, item.size_bytes) for item in items] == [
        (str(row), f"{row}.jpg", row, len(JPEG) + 1) for row in range(7)
    ]
    for row in (0, 6, 3, 2, 2, 5, 4, 1):
        assert shard.read(row) == JPEG + bytes([row])
    assert [shard.rows(group) for group in range(shard.num_groups)] == [range(3), range(3, 6), range(6, 7)]
    with pytest.raises(IndexError):
        shard.read(7)


def test_items_can_be_read_on_the_way() -> None:
    shard = _shard(hugging_face())
    assert [shard.read(item.offset) for item in shard.items([0, 2])] == [JPEG + bytes([row]) for row in (0, 1, 2, 6)]
    assert [shard.read(6 - item.offset) for item in shard.items()] == [JPEG + bytes([6 - row]) for row in range(7)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_binary_column_and_a_key_column_are_found(kind: pa.DataType) -> None:
    data = make_parquet({"key": ["a", "b/c.v1"], "jpg": pa.array([PNG, JPEG], kind)})
    assert [(item.key, item.name) for item in _shard(data).items()] == [("a", "a.png"), ("b/c.v1", "b/c.v1")]
    assert _shard(data).read(1) == JPEG


def test_keys_that_are_not_unique_are_not_keys() -> None:
    data = make_parquet({"key": ["a", "a"], "id": [7, 8], "jpg": [JPEG, JPEG]})
    assert [item.key for item in _shard(data).items()] == ["7", "8"]
    with pytest.raises(RefusedInputError, match=r"no column 'key' of strings .*; it has key, id, jpg"):
        _shard(data, key_column="key")


def test_names_differ_though_a_suffix_was_added() -> None:
    data = make_parquet({"key": ["a", "a.jpg"], "jpg": [JPEG, JPEG]})
    assert [item.name for item in _shard(data).items()] == ["a", "a.jpg"]


def test_a_row_without_bytes_or_with_a_hostile_key_is_an_item_with_a_problem() -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "p"}, None, {"bytes": JPEG, "path": None}], image)
    data = make_parquet({"key": ["a", "b", "../c"], "image": images})
    shard = _shard(data)
    problems = [item.problem for item in shard.items()]
    assert problems == ["a path in its row, but no bytes", "no image in its row", "its name leaves the shard"]
    with pytest.raises(RefusedInputError, match=r"00000\.parquet/1: no image in its row"):
        shard.read(1)


def test_a_column_that_cannot_be_guessed_is_asked_for_with_the_choice() -> None:
    data = make_parquet({"jpg": [JPEG], "mask": [PNG], "n": [1]})
    with pytest.raises(RefusedInputError, match=r"2 columns .* it has jpg \(binary\), mask \(binary\), n \(int64\)"):
        _shard(data)
    with pytest.raises(RefusedInputError, match="no column 'n' of image bytes"):
        _shard(data, image_column="n")
    assert _shard(data, image_column="mask").read(0) == PNG


@pytest.mark.parametrize("cut", [0, 4, 60, 0.5, 0.99])
def test_damaged_parquet_says_so(cut: float) -> None:
    data = hugging_face()
    with pytest.raises(UnreadableError, match=r"00000\.parquet"):
        _shard(data[: int(cut * len(data)) if cut < 1 else int(cut)])
    holed = data[:4] + b"\xff" * 60 + data[64:]
    with pytest.raises(UnreadableError, match=r"00000\.parquet"):
        list(_shard(holed).items())
    with pytest.raises(UnreadableError):
        _rewrite_parquet(holed, {})


LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zstd": {"compression": {"jpg": "none", "key": "zstd", "when": "gzip"}, "row_group_size": 4},
    "indexed": {"write_page_index": True, "use_dictionary": ["key"], "row_group_size": 2},
    "old": {"version": "1.0", "use_deprecated_int96_timestamps": True, "store_schema": False},
}


def _table(rows: int = 9) -> dict[str, Any]:
    when = pa.array([1_600_000_000_123_456 + row for row in range(rows)], pa.timestamp("us"))
    jpg = pa.array([JPEG * (row + 1) if row != 4 else None for row in range(rows)], pa.binary())
    return {
        "key": [f"{row:04d}" for row in range(rows)],
        "jpg": jpg,
        "when": when,
        "tags": [["x"] * (row % 3) for row in range(rows)],
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_parquet_shard_keeps_its_layout_and_other_columns(name: str) -> None:
    data = make_parquet(_table(), **LAYOUTS[name])
    same = _rewrite_parquet(data, {})
    assert layout(same) == layout(data)
    assert pq.read_table(io.BytesIO(same)).equals(pq.read_table(io.BytesIO(data)), check_metadata=True)
    changed = _rewrite_parquet(data, {"0002.jpg": PNG}, ["0003"])
    assert layout(changed) == layout(data)
    before, after = (pq.read_table(io.BytesIO(one)) for one in (data, changed))
    assert after.drop_columns("jpg").equals(before.drop_columns("jpg"))
    rows = before.column("jpg").to_pylist()
    assert after.column("jpg").to_pylist() == [*rows[:2], PNG, None, *rows[4:]]
    assert changed == _rewrite_parquet(data, {"0002.jpg": PNG}, ["0003"])


def test_of_a_struct_only_the_bytes_change_and_a_dropped_one_is_null() -> None:
    data = hugging_face()
    changed = pq.read_table(io.BytesIO(_rewrite_parquet(data, {"1.jpg": PNG}, ["2"])))
    rows = changed.column("image").to_pylist()
    assert rows[:3] == [{"bytes": JPEG + b"\0", "path": "0.jpg"}, {"bytes": PNG, "path": "1.jpg"}, None]
    assert changed.schema.metadata == pq.read_schema(io.BytesIO(data)).metadata
    assert changed.column("label").to_pylist() == list(range(7))


def test_where_null_is_not_allowed_a_dropped_image_has_no_bytes() -> None:
    schema = pa.schema([pa.field("jpg", pa.binary(), nullable=False)])
    changed = _rewrite_parquet(make_parquet({"jpg": [JPEG, PNG]}, schema), {}, ["0"])
    assert pq.read_table(io.BytesIO(changed)).equals(pa.table({"jpg": [b"", PNG]}, schema=schema))


def test_an_empty_shard_stays_one() -> None:
    data = make_parquet({"jpg": pa.array([], pa.binary())})
    assert list(_shard(data).items()) == []
    assert layout(_rewrite_parquet(data, {}))[0] == layout(data)[0]


def test_an_error_of_the_caller_is_not_taken_for_damage() -> None:
    def results(name: str) -> bytes:
        raise OSError(f"{name} is lost")

    with pytest.raises(OSError, match=r"0\.jpg is lost"):
        rewrite_parquet(_shard(hugging_face()), io.BytesIO(), results, frozenset())


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=60), st.none() | st.binary(max_size=60)), max_size=9),
    st.integers(1, 4),
    st.sets(st.integers(0, 9)),
    st.booleans(),
)
def test_any_parquet_shard_keeps_its_rows(
    rows: list[tuple[bytes | None, bytes | None]], group: int, dropped: set[int], as_struct: bool
) -> None:
    old = [{"bytes": data, "path": "p"} if as_struct else data for data, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if as_struct else pa.binary()
    data = make_parquet({"image": pa.array(old, kind), "n": list(range(len(rows)))}, row_group_size=group)
    names = {item.offset: item.name for item in _shard(data).items()}
    results = {names[row]: new for row, (_, new) in enumerate(rows) if new is not None}
    changed = pq.read_table(io.BytesIO(_rewrite_parquet(data, results, [str(row) for row in dropped])))
    expected = [
        None if r in dropped else (new if new is not None and o is not None else o) for r, (o, new) in enumerate(rows)
    ]
    images = [image and image["bytes"] if as_struct else image for image in changed.column("image").to_pylist()]
    assert images == expected
    assert changed.column("n").to_pylist() == list(range(len(rows)))


def test_a_target_on_disk_is_left_open(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as target:
        rewrite_parquet(_shard(hugging_face()), target, lambda name: None, frozenset())
        target.write(b"")
        assert pq.ParquetFile(target).metadata.num_rows == 7


@settings(max_examples=80)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_of_parquet_ends_in_items_or_an_error_of_the_shard(damage: list[tuple[float, int]]) -> None:
    data = bytearray(hugging_face())
    for place, value in damage:
        data[int(place * len(data))] = value
    with suppress(UnreadableError, RefusedInputError):
        shard = _shard(bytes(data))
        for item in shard.items():
            assert item.problem or len(shard.read(item.offset)) == item.size_bytes
        _rewrite_parquet(bytes(data), {"1.jpg": PNG})


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no disk"), OSError("AWS Error NETWORK_CONNECTION during GET")])
def test_a_store_that_fails_is_not_taken_for_damage(error: OSError) -> None:
    with pytest.raises(OSError, match=str(error)[-8:]), reading("s3://in/0.parquet"):
        raise error


def test_a_small_file_of_huge_repeated_values_takes_little_memory() -> None:
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([bytes(1 << 20)], pa.binary()))
    data = make_parquet({"jpg": repeated}, store_schema=False, dictionary_pagesize_limit=2 << 20)
    before, peak = pa.total_allocated_bytes(), 0
    for item in _shard(data).items():
        assert item.size_bytes == 1 << 20
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert len(data) < 1 << 20
    assert peak < 150 << 20
