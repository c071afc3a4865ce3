"""Shards as datasets have them, and hostile ones, made on the spot."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
JPEG, PNG = b"\xff\xd8\xff\xe0 a picture", b"\x89PNG\r\n\x1a\n another"
BLOCK = 512

Member = tuple[tarfile.TarInfo, bytes]


class Counted(io.BytesIO):
    """Bytes in memory that count how they are read."""

    num_reads = 0
    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.num_reads += 1
        self.read_bytes += len(data)
        return data


class Forward(io.RawIOBase):
    """A target that can only be written to, as on an object store."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.largest_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += data
        self.largest_bytes = max(self.largest_bytes, len(data))
        return len(data)


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    """A member with odd but fixed facts; `fields` are attributes of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid, info.mtime = len(data), 0o640, 1001, 20, 1_600_000_000
    info.uname, info.gname = "ada", "staff"
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def make_tar(members: Sequence[Member], kind: str = "ustar", **options: Any) -> bytes:
    """A tar as `tarfile` writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[kind], **options) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def webdataset(samples: int = 5, size_bytes: int = 900) -> list[Member]:
    """A picture, its caption and its facts for each sample, as img2dataset names them."""
    members = []
    for number in range(samples):
        key = f"{number:09d}"
        members.append(member(f"{key}.jpg", JPEG + bytes([number % 251]) * (size_bytes + number)))
        members.append(member(f"{key}.txt", b"a caption"))
        members.append(member(f"{key}.json", b'{"key": "%d"}' % number, mtime=1_700_000_000 + number))
    return members


def read_tar(data: bytes) -> list[tuple[Any, ...]]:
    """All that `tarfile` says about each member, and its bytes."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [(m.name, m.type, m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, _pax(m), _data(tar, m)) for m in tar]


def _pax(info: tarfile.TarInfo) -> dict[str, str]:
    return {key: value for key, value in info.pax_headers.items() if key != "size"}


def _data(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info) if info.isreg() else None
    return b"" if file is None else file.read()


def with_header(block: bytes, start: int, field: bytes) -> bytes:
    """A header block with other bytes at `start` and a checksum for it."""
    changed = block[:start] + field + block[start + len(field) :]
    total = sum(changed[:148]) + 8 * 32 + sum(changed[156:BLOCK])
    return changed[:148] + b"%06o\0 " % total + changed[156:]


def claiming(name: str, size_bytes: int, data: bytes = b"") -> bytes:
    """A tar whose only member says it has so many bytes."""
    tar = make_tar([member(name, data)])
    return with_header(tar[:BLOCK], 124, b"%011o\0" % size_bytes) + tar[BLOCK:]


def pax_header(records: bytes, kind: bytes = tarfile.XHDTYPE, size_bytes: int | None = None) -> bytes:
    """A PAX header with these records, true to form or not."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, len(records) if size_bytes is None else size_bytes
    return info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // BLOCK) * BLOCK, b"\0")


def sparse_tar() -> bytes:
    """An old GNU sparse file of a megabyte of which 512 bytes are stored, then an ordinary picture."""
    info = tarfile.TarInfo("hole.jpg")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, BLOCK
    more = b"".join(b"%011o\0%011o\0" % (at, 0) for at in range(1, 22)).ljust(BLOCK, b"\0")
    header = with_header(info.tobuf(tarfile.GNU_FORMAT), 386, b"%011o\0%011o\0" % (0, BLOCK))
    header = with_header(with_header(header, 483, b"%011o\0" % (1 << 20)), 482, b"\1")
    return header + more + bytes(BLOCK) + make_tar([member("whole.jpg", JPEG)])


def hostile_members() -> list[Member]:
    """Members that must not come through, each beside an ordinary picture."""
    odd = [
        member("soft.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.jpg", type=tarfile.LNKTYPE, linkname="../../outside"),
        member("device.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("pipe.jpg", type=tarfile.FIFOTYPE),
        member("unknown.jpg", b"data", type=b"Q"),
        member("/absolute.jpg", JPEG),
        member("a/../../up.jpg", JPEG),
        member("a\\..\\..\\up.jpg", JPEG),
        member("C:\\up.jpg", JPEG),
        member("good1.jpg", b"the picture before the swap"),
    ]
    return [one for number, bad in enumerate(odd) for one in (member(f"good{number}.jpg", JPEG), bad)]


def damaged_tars() -> dict[str, bytes]:
    """Tars that are not whole, by what is wrong."""
    good = make_tar(webdataset(3))
    second = good.index(b"000000000.txt")
    deep = b"".join(pax_header(b"20 comment=whatever\n") for _ in range(3000))
    return {
        "empty": b"",
        "text": b"this is no tar " * 100,
        "cut in a header": good[: second + 100],
        "cut in the data": good[: BLOCK + 300],
        "cut between members": good[:second],
        "checksum": good[:second] + b"X" + good[second + 1 :],
        "two gigabytes": claiming("a.jpg", 2 << 30, JPEG),
        "negative size": with_header(good[:BLOCK], 124, b"\xff" * 12) + good[BLOCK:],
        "two archives": good + good,
        "huge PAX": pax_header(b"", size_bytes=8 << 20) + bytes(9 << 20) + good,
        "PAX beyond the end": pax_header(b"", size_bytes=1 << 19) + good,
        "PAX size": pax_header(b"22 size=9999999999999\n") + good,
        "PAX size of letters": pax_header(b"12 size=1_0\n") + good,
        "PAX length": pax_header(b"99999 path=a\n") + good,
        "PAX number": pax_header(b"9" * 5000 + b" path=a\n") + good,
        "PAX before the end": pax_header(b"10 path=a\n") + bytes(2 * BLOCK),
        "many PAX": deep + good,
        "PAX for all": pax_header(b"16 path=../../x\n", kind=tarfile.XGLTYPE) + good,
        "two names": pax_header(b"10 path=a\n") + _long_name(b"b.jpg") + good,
    }


def _long_name(name: bytes) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, len(name)
    return info.tobuf(tarfile.GNU_FORMAT) + name.ljust(BLOCK, b"\0")


def make_parquet(columns: Mapping[str, Any], schema: pa.Schema | None = None, **options: Any) -> bytes:
    """A Parquet file of these columns."""
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns), schema=schema), out, **options)
    return out.getvalue()


def hugging_face(rows: int = 7, row_group_size: int = 3) -> bytes:
    """A shard as `datasets` writes it: a struct of bytes and path, and the features in the metadata."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'}
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    images = [{"bytes": JPEG + bytes([row]), "path": f"{row}.jpg"} for row in range(rows)]
    return make_parquet({"image": images, "label": list(range(rows))}, schema, row_group_size=row_group_size)


def layout(data: bytes) -> tuple[Any, ...]:
    """All of a Parquet file that is not in its rows: schema, version, row groups, columns."""
    file = pq.ParquetFile(io.BytesIO(data))
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    columns = [[group.column(number) for number in range(group.num_columns)] for group in groups]
    facts = [[(c.path_in_schema, c.compression, c.has_dictionary_page, c.has_offset_index) for c in r] for r in columns]
    return file.schema_arrow.serialize().to_pybytes(), file.metadata.format_version, [g.num_rows for g in groups], facts
