from __future__ import annotations

import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.side_files import (
    SideFiles,
    count_from_stats,
    side_files_of,
    update_side_table,
    update_stats,
)
from tests.shards import PNG, layout, make_parquet


def test_side_files_are_named_after_their_shard() -> None:
    assert side_files_of("s3://b/00000.tar") == SideFiles("s3://b/00000.parquet", "s3://b/00000_stats.json")
    assert side_files_of("00000.parquet") == SideFiles("", "00000_stats.json")


def _stats() -> bytes:
    counts = {"success": 8, "HTTP Error 404: Not Found": 2}
    facts = {"count": 10, "successes": 8, "failed_to_download": 2, "failed_to_resize": 0}
    return json.dumps(facts | {"duration": 1.5, "start_time": 1.0, "end_time": 2.5, "status_dict": counts}).encode()


def test_counts_are_read_or_unknown() -> None:
    assert count_from_stats(_stats()) == 8
    odd = [b"", b"[]", b"{}", b'{"successes": true}', b'{"successes": -1}', b"\xff", b"[" * 100_000]
    assert [count_from_stats(data) for data in odd] == [None] * len(odd)


def test_stats_count_what_could_not_be_swapped_and_keep_the_rest() -> None:
    after = json.loads(update_stats(_stats(), "00000_stats.json", 5, {"no_face": 2, "unreadable": 1}))
    before = json.loads(_stats())
    assert after == before | {
        "successes": 5,
        "failed_to_swap": 3,
        "status_dict": {"success": 5, "HTTP Error 404: Not Found": 2, "no_face": 2, "unreadable": 1},
    }
    assert list(after)[: len(before)] == list(before)
    with pytest.raises(UnreadableError, match="stats: not a JSON object"):
        update_stats(b"[1]", "stats", 0, {})


def _side_table() -> bytes:
    schema = pa.schema(
        [
            ("url", pa.string()),
            ("key", pa.string()),
            ("status", pa.string()),
            ("error_message", pa.string()),
            ("width", pa.int32()),
            ("sha256", pa.string()),
            ("exif", pa.null()),
        ],
        metadata={"made": "by hand"},
    )
    rows = {
        "url": ["u0", "u1", "u2"],
        "key": ["0", "1", "2"],
        "status": ["success", "success", "failed_to_download"],
        "error_message": [None, None, "404"],
        "width": [64, 64, None],
        "sha256": ["x", "y", None],
        "exif": [None] * 3,
    }
    return make_parquet(rows, schema, row_group_size=2, compression="zstd")


def test_a_side_table_changes_only_where_it_must() -> None:
    data, digest = _side_table(), hashlib.sha256(PNG).hexdigest()
    after = update_side_table(data, "t", {"1": "t/1: no face."}, {"0": {"sha256": digest, "width": 32, "depth": 3}})
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    rows[0] |= {"sha256": digest, "width": 32}
    rows[1] |= {"status": "failed_to_swap", "error_message": "t/1: no face."}
    assert pq.read_table(io.BytesIO(after)).to_pylist() == rows
    assert layout(after) == layout(data)
    assert layout(update_side_table(data, "t", {}, {})) == layout(data)


def test_a_side_table_of_another_kind_is_refused() -> None:
    with pytest.raises(RefusedInputError, match="t: no column 'key'"):
        update_side_table(make_parquet({"id": [1]}), "t", {}, {})
    with pytest.raises(RefusedInputError, match="does not fit column 'width'"):
        update_side_table(_side_table(), "t", {}, {"0": {"width": "wide"}})
    with pytest.raises(UnreadableError, match="t: damaged"):
        update_side_table(b"PAR1", "t", {}, {})
