from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.shard import ShardItem, guessed_suffix, name_problem, split_name
from pipeline.media.shards.tars import index_tar, read_tar_item, rewrite_tar
from tests.shards import (
    BLOCK,
    FORMATS,
    JPEG,
    PNG,
    Counted,
    Forward,
    Member,
    claiming,
    damaged_tars,
    hostile_members,
    make_tar,
    member,
    pax_header,
    read_tar,
    sparse_tar,
    webdataset,
    with_header,
)

SUFFIXES = ("jpg", ".png", "mp4")
DAMAGED = damaged_tars()


def _index(data: bytes) -> list[ShardItem]:
    return index_tar(io.BytesIO(data), "s3://in/00000.tar", SUFFIXES)


def _rewrite(
    data: bytes, results: dict[str, bytes] | None = None, dropped: Sequence[str] = ()
) -> tuple[bytes, list[str]]:
    target: Any = Forward()
    left_out = rewrite_tar(io.BytesIO(data), target, "00000.tar", (results or {}).get, frozenset(dropped))
    return bytes(target.written), left_out


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("000.jpg", "000", "jpg"),
        ("a/b.c/000.seg.PNG", "a/b.c/000", "seg.png"),
        ("./000.jpg", "./000", "jpg"),
        ("a.b/000", "", ""),
        (".hidden.jpg", "", ""),
        ("a/.jpg", "", ""),
        ("000.", "", ""),
    ],
)
def test_a_name_is_split_at_the_first_dot_of_its_base_name(name: str, key: str, extension: str) -> None:
    assert split_name(name) == (key, extension)


@pytest.mark.parametrize("name", ["", "/a", "..", "a/..", "../a", "a/../../b", "\\a", "..\\a", "C:\\a", "c:/a", "a\0b"])
def test_no_name_leads_out_of_the_shard(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "..a/b..c", "a:b", "https://a/b"])
def test_an_odd_name_that_stays_inside_is_no_problem(name: str) -> None:
    assert not name_problem(name)


def test_a_suffix_is_guessed_from_the_first_bytes() -> None:
    films = b"\0\0\0\x20ftypisom\0\0", b"\0\0\0\x20ftypavif\0\0"
    heads = [JPEG, PNG, b"RIFF\1\2\3\4WEBPVP8 ", *films, b"", b"text"]
    assert [guessed_suffix(head) for head in heads] == [".jpg", ".png", ".webp", ".mp4", ".avif", "", ""]


def test_only_images_are_items_and_each_is_read_back_from_its_place() -> None:
    members = [*webdataset(3), member("a/x.seg.png", PNG), member("b/Y.PNG", PNG), member("c/z.cls", b"1")]
    data = make_tar(members)
    items = _index(data)
    assert [(item.key, item.name) for item in items] == [
        ("000000000", "000000000.jpg"),
        ("000000001", "000000001.jpg"),
        ("000000002", "000000002.jpg"),
        ("b/Y", "b/Y.PNG"),
    ]
    bytes_of = {info.name: content for info, content in members}
    assert all(read_tar_item(io.BytesIO(data), "s", item) == bytes_of[item.name] for item in items)


@pytest.mark.parametrize("kind", FORMATS)
def test_long_and_foreign_names_are_read_in_each_format(kind: str) -> None:
    long = "/".join(["d" * 60] * (2 if kind == "ustar" else 6)) + "/0.jpg"
    data = make_tar([member(long, JPEG), member("größe.jpg", PNG), member("0.jpg", JPEG)], kind)
    items = _index(data)
    assert [(item.name, item.problem) for item in items] == [(long, ""), ("größe.jpg", ""), ("0.jpg", "")]
    assert read_tar_item(io.BytesIO(data), "s", items[1]) == PNG


def test_every_hostile_member_is_an_item_with_a_problem() -> None:
    items = _index(make_tar(hostile_members()))
    problems = [item.problem for item in items]
    good = [item.name for item in items if not item.problem]
    assert good == [f"good{number}.jpg" for number in range(len(hostile_members()) // 2)]
    assert set(problems) == {
        "",
        "a link",
        "a device or a pipe",
        "a member of an unknown kind",
        "its name leaves the shard",
        "a second member of this name",
    }
    with pytest.raises(RefusedInputError, match="a link"):
        read_tar_item(io.BytesIO(), "s", items[problems.index("a link")])


def test_a_name_that_is_not_utf8_is_shown_escaped_and_carried_over() -> None:
    data = make_tar([member("gr\udcfcn.jpg", JPEG), member("b.jpg", PNG)], "gnu", encoding="utf-8")
    assert [(item.name, item.problem) for item in _index(data)] == [
        ("gr\\xfcn.jpg", "its name is not UTF-8"),
        ("b.jpg", ""),
    ]
    assert _rewrite(data, {"gr\\xfcn.jpg": PNG}) == (data, [])


def test_a_sparse_file_is_a_problem_and_what_follows_is_found() -> None:
    data = sparse_tar()
    assert [(item.name, item.problem) for item in _index(data)] == [("hole.jpg", "a sparse file"), ("whole.jpg", "")]
    changed, left_out = _rewrite(data, {"hole.jpg": PNG})
    assert (changed.rstrip(b"\0"), left_out) == (data.rstrip(b"\0"), [])
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    pax = pax_header(records) + make_tar([member("hole.jpg", b"1\n0\n0\n"), member("whole.jpg", JPEG)])
    assert [(item.name, item.problem) for item in _index(pax)] == [("hole.jpg", "a sparse file"), ("whole.jpg", "")]


def test_a_pickle_is_carried_as_bytes_and_never_loaded() -> None:
    data = make_tar([member("a.jpg", JPEG), member("a.pyd", pickle.dumps(Trap())), member("a.pth", b"\x80\x04.")])
    assert [item.name for item in _index(data)] == ["a.jpg"]
    assert _rewrite(data) == (data, [])


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("loaded",))


@pytest.mark.parametrize("name", DAMAGED)
def test_a_tar_that_is_not_whole_says_so_with_its_name(name: str) -> None:
    with pytest.raises(UnreadableError, match=r"s3://in/00000\.tar: .* after \d+ whole members"):
        _index(DAMAGED[name])
    with pytest.raises(UnreadableError):
        _rewrite(DAMAGED[name])


def test_the_error_counts_the_whole_members_before_the_damage() -> None:
    with pytest.raises(UnreadableError, match="after 1 whole members"):
        _index(DAMAGED["checksum"])


def test_a_claim_of_two_gigabytes_takes_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(UnreadableError, match=r"cut off \('a\.jpg' should have 2147483648 bytes\)"):
        _index(claiming("a.jpg", 2 << 30, JPEG))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_every_cut_of_a_tar_is_noticed() -> None:
    data = make_tar(webdataset(1, 100), "pax")
    end = data.rindex(b"}") // BLOCK * BLOCK + BLOCK
    for length in range(0, end + BLOCK, 64):
        with pytest.raises(UnreadableError):
            _index(data[:length])


@settings(max_examples=60)
@given(st.binary(max_size=40), st.integers(0, 6 * BLOCK), st.sampled_from(list(FORMATS)))
def test_any_damage_ends_in_items_or_an_error_of_the_shard(noise: bytes, place: int, kind: str) -> None:
    data = make_tar([member("größe.jpg", JPEG), *webdataset(1, 100)], kind)
    with suppress(UnreadableError, RefusedInputError):
        _index(data[:place] + noise + data[place + len(noise) :])


def test_a_compressed_tar_is_refused_with_a_way_out() -> None:
    with pytest.raises(RefusedInputError, match=r"compressed with gzip cannot be read in parts\. Uncompress it"):
        _index(gzip.compress(make_tar(webdataset(1))))


def test_an_index_needs_few_reads_and_reads_over_large_members() -> None:
    small, large = Counted(make_tar(webdataset(2000, 300))), Counted(make_tar([member("a.mp4", bytes(9 << 20))] * 3))
    assert len(index_tar(small, "s", SUFFIXES)) == 2000
    assert small.num_reads <= 2 + len(small.getvalue()) // (1 << 20)
    assert len(index_tar(large, "s", SUFFIXES)) == 3
    assert large.read_bytes < 2 << 20


@pytest.mark.slow
def test_ten_thousand_members_are_indexed_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(make_tar(webdataset(3334, 20_000)))
    start = time.perf_counter()
    with open(path, "rb") as file:
        assert len(index_tar(file, "s", SUFFIXES)) == 3334
    assert time.perf_counter() - start < 5


def test_a_file_of_pyarrow_does_as_well(tmp_path: Path) -> None:
    data = make_tar(webdataset(3))
    (tmp_path / "0.tar").write_bytes(data)
    local = fs.LocalFileSystem()
    with local.open_input_file(str(tmp_path / "0.tar")) as file:
        assert index_tar(file, "s", SUFFIXES) == _index(data)
        with local.open_output_stream(str(tmp_path / "1.tar")) as target:
            rewrite_tar(file, target, "s", lambda name: None, frozenset())
    assert (tmp_path / "1.tar").read_bytes() == data


@pytest.mark.parametrize("kind", FORMATS)
def test_without_results_a_tar_comes_back_byte_for_byte(kind: str) -> None:
    folders = [member("a", type=tarfile.DIRTYPE, mode=0o755), member("empty.txt")]
    more = [member("a/" + "x" * 90 + "/größe.jpg", PNG, mtime=1.5 if kind == "pax" else 1)]
    data = make_tar(folders + webdataset(4) + more, kind)
    assert _rewrite(data) == (data, [])


def test_pax_records_of_one_and_of_all_members_are_kept() -> None:
    one = member("a.jpg", JPEG, pax_headers={"comment": "mine", "SCHILY.xattr.user.x": "ü"})
    data = make_tar([one, member("b.jpg", JPEG)], "pax", pax_headers={"comment": "for all"})
    assert _rewrite(data) == (data, [])
    changed, _ = _rewrite(data, {"a.jpg": PNG * 40})
    assert [row[8] for row in read_tar(changed)] == [row[8] for row in read_tar(data)]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_result_changes_only_the_bytes_of_its_member(kind: str) -> None:
    data = make_tar([*webdataset(3), member("größe.jpg", JPEG)], kind)
    new = {"000000001.jpg": PNG * 100, "größe.jpg": b""}
    before, (changed, left_out) = read_tar(data), _rewrite(data, new)
    assert not left_out
    assert read_tar(changed) == [(*row[:-1], new.get(row[0], row[-1])) for row in before]
    assert len(changed) % tarfile.RECORDSIZE == 0
    assert changed == _rewrite(data, new)[0]


def test_a_size_in_a_pax_record_follows_the_result() -> None:
    ordinary = make_tar([member("a.jpg", JPEG), member("b.jpg", PNG)])
    record = b"%d size=%d\n" % (len(b"11 size=%d\n" % len(JPEG)), len(JPEG))
    data = (
        pax_header(b"20 comment=whatever\n" + record) + with_header(ordinary[:BLOCK], 124, b"0" * 11) + ordinary[BLOCK:]
    )
    changed, _ = _rewrite(data, {"a.jpg": PNG * 500})
    assert [(row[0], row[8], row[-1]) for row in read_tar(changed)] == [
        ("a.jpg", {"comment": "whatever"}, PNG * 500),
        ("b.jpg", {}, PNG),
    ]


def test_a_dropped_sample_leaves_with_all_its_members() -> None:
    data = make_tar([*webdataset(3), member("000000001/x.jpg", JPEG), member("000000001", b"no extension")])
    changed, left_out = _rewrite(data, dropped=["000000001"])
    assert not left_out
    kept = [row for row in read_tar(data) if not row[0].startswith("000000001.")]
    assert read_tar(changed) == kept


def test_hostile_members_are_left_out_and_named() -> None:
    members = hostile_members()
    changed, left_out = _rewrite(make_tar(members), {"good1.jpg": PNG})
    names = [info.name for info, _ in members]
    assert left_out == names[1::2]
    after = read_tar(changed)
    assert [row[0] for row in after] == names[::2]
    assert next(row[-1] for row in after if row[0] == "good1.jpg") == PNG


def test_a_large_member_is_carried_in_small_pieces() -> None:
    data, target = make_tar([member("a.mp4", bytes(21 << 20)), member("b.jpg", JPEG)]), Forward()
    source, sink = Counted(data), target
    tracemalloc.start()
    rewrite_tar(source, sink, "s", lambda name: None, frozenset())  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1] - len(target.written)
    tracemalloc.stop()
    assert target.written == data
    assert target.largest_bytes <= 4 << 20
    assert peak < 20 << 20
    assert source.read_bytes <= len(data) + (1 << 20)


NAMES = st.text("ab/.é-", min_size=1, max_size=12).filter(
    lambda name: not name_problem(name) and not name.endswith("/") and name.strip("/.")
)


@settings(max_examples=40)
@given(
    st.dictionaries(NAMES, st.tuples(st.binary(max_size=1500), st.none() | st.binary(max_size=1500)), max_size=6),
    st.sampled_from(list(FORMATS)),
    st.sets(st.sampled_from(["a", "b", "a/b", "é"])),
)
def test_any_tar_keeps_its_members_order_and_facts(
    contents: dict[str, tuple[bytes, bytes | None]], kind: str, dropped: set[str]
) -> None:
    members: list[Member] = [member(name, old) for name, (old, _) in contents.items()]
    data = make_tar(members, kind)
    results = {name: new for name, (_, new) in contents.items() if new is not None}
    changed, left_out = _rewrite(data, results, list(dropped))
    kept = [row for row in read_tar(data) if split_name(row[0])[0] not in dropped]
    assert not left_out
    assert read_tar(changed) == [(*row[:-1], results.get(row[0], row[-1])) for row in kept]
    assert len(changed) % tarfile.RECORDSIZE == 0
    if not results and not dropped:
        assert changed == data
