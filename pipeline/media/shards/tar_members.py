"""The members of a tar, judged one by one; nothing is ever extracted.

Python's `tarfile` reads each header block. What comes before a header (long names, PAX records) is read here:
`tarfile` takes it into memory whatever its size, calls itself once a block, and ends without a word at the first
damaged header after the first.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.shard import NOT_UTF8, name_problem, shown, split_name
from pipeline.media.shards.window import Window

BLOCK_BYTES = 512
LINK = "a link"
DEVICE = "a device or a pipe"
UNKNOWN = "a member of an unknown kind"
FULL_FOLDER = "a folder with data"
SPARSE = "a sparse file"
SECOND = "a second member of this name"

PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSIONS = (*PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = dict.fromkeys((tarfile.LNKTYPE, tarfile.SYMTYPE), LINK)
_KINDS |= dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE), DEVICE)
_HARMLESS = ("", NOT_UTF8, SPARSE)
_MOST_HEADER_BYTES = 1 << 20  # of one member; the longest path of Linux has 4096
_TAIL_BYTES = 64 << 10
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of a tar, or a PAX header for all members after it.

    Attributes:
        name: as stored; bytes that are not UTF-8 are shown escaped; empty for a PAX header.
        kind: tar's type flag.
        headers: its header and what comes before it, whole blocks as they are in the file.
        data_offset: position of its data in the file.
        size_bytes: of the data, without the padding to whole blocks.
        problem: why it cannot be used; empty when it can.
    """

    name: str
    kind: bytes
    headers: bytes
    data_offset: int
    size_bytes: int
    problem: str

    @property
    def is_file(self) -> bool:
        """Whether it is an ordinary file without a problem."""
        return self.kind in _REGULAR and not self.problem

    @property
    def is_hostile(self) -> bool:
        """Whether it must not be in a result: it would reach outside, or its name is taken."""
        return self.problem not in _HARMLESS

    @property
    def key(self) -> str:
        """Of its sample; empty when it belongs to none."""
        return "" if self.kind == tarfile.DIRTYPE else split_name(self.name)[0]

    @property
    def end(self) -> int:
        """Position of the block after its data."""
        return self.data_offset + padded(self.size_bytes)


def padded(size_bytes: int) -> int:
    """The size in whole blocks."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def read_members(window: Window, uri: str) -> Iterator[TarMember]:
    """All members in their order, the problem of each noted.

    Args:
        window: on the tar.
        uri: names the shard in errors.

    Raises:
        UnreadableError: cut off, damaged, without its end mark, or with data behind it.
        RefusedInputError: a compressed tar.
    """
    _refuse_compressed(window, uri)
    offset, count, names = 0, 0, set[str]()
    try:
        while (member := _member_at(window, offset, names)) is not None:
            yield member
            offset = member.end
            count += member.kind != tarfile.XGLTYPE
            names.add(member.name)
        if any(window.read(offset, _TAIL_BYTES)):
            raise tarfile.HeaderError("data behind the end mark")
    except tarfile.HeaderError as error:
        raise UnreadableError(uri, f"{error}, after {count} whole members", "Copy it again or pack it anew") from error


def pax_records(payload: bytes) -> list[tuple[bytes, bytes]]:
    """The (keyword, value) pairs of a PAX header, in their order.

    Raises:
        tarfile.HeaderError: they are not well formed.
    """
    records, position = [], 0
    while position < len(payload):
        length, _, _ = payload[position : position + 20].partition(b" ")
        end = position + (int(length) if length.isdigit() else 0)
        record = payload[position + len(length) + 1 : end]
        keyword, equals, value = record.partition(b"=")
        if end > len(payload) or not equals or not value.endswith(b"\n"):
            raise tarfile.HeaderError("a damaged PAX header")
        records.append((keyword, value[:-1]))
        position = end
    return records


def _refuse_compressed(window: Window, uri: str) -> None:
    start = window.read(0, BLOCK_BYTES)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            problem = f"a tar compressed with {name} cannot be read in parts"
            raise RefusedInputError(uri, problem, "Uncompress it: images are compressed already", code="compressed")


def _member_at(window: Window, offset: int, taken: set[str]) -> TarMember | None:
    """The member whose first header is at `offset`; None at the end mark.

    Raises:
        tarfile.HeaderError: there is no whole member.
    """
    pieces: list[bytes] = []
    before: dict[bytes, bytes] = {}
    while True:
        block = _blocks(window, offset, BLOCK_BYTES)
        if not pieces and block == bytes(BLOCK_BYTES):
            return None
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        offset += BLOCK_BYTES
        pieces.append(block)
        if header.type not in EXTENSIONS:
            break
        if header.type in before or not 0 <= header.size <= _MOST_HEADER_BYTES:
            raise tarfile.HeaderError(f"two headers of one kind, or one of {header.size} bytes, for one member")
        payload = _blocks(window, offset, padded(header.size))
        offset += len(payload)
        pieces.append(payload)
        before[header.type] = payload[: header.size]
        if header.type == tarfile.XGLTYPE:
            return _for_all(before, b"".join(pieces), offset)
    if header.type == tarfile.GNUTYPE_SPARSE:
        more = _sparse_blocks(window, offset, block)
        offset += len(more)
        pieces.append(more)
    return _described(window, header, before, b"".join(pieces), offset, taken)


def _blocks(window: Window, offset: int, size_bytes: int) -> bytes:
    blocks = window.read(offset, size_bytes)
    if len(blocks) < size_bytes:
        raise tarfile.HeaderError("cut off")
    return blocks


def _sparse_blocks(window: Window, offset: int, header: bytes) -> bytes:
    """The blocks that follow the header of an old GNU sparse file and say where its holes are."""
    blocks, goes_on = b"", header[482]
    while goes_on:
        block = _blocks(window, offset + len(blocks), BLOCK_BYTES)
        blocks, goes_on = blocks + block, block[504]
        if len(blocks) > _MOST_HEADER_BYTES:
            raise tarfile.HeaderError("a sparse file with too many holes")
    return blocks


def _for_all(before: dict[bytes, bytes], headers: bytes, offset: int) -> TarMember:
    """A PAX header for all members after it; one that would rename, resize or relink them all is refused."""
    keywords = {keyword for keyword, _ in pax_records(before[tarfile.XGLTYPE])}
    if len(before) > 1 or keywords & {b"path", b"size", b"linkpath"} or _is_sparse(keywords):
        raise tarfile.HeaderError("a PAX header that names or resizes all members")
    return TarMember("", tarfile.XGLTYPE, headers, offset, 0, "")


def _is_sparse(keywords: set[bytes]) -> bool:
    return any(keyword.startswith(b"GNU.sparse.") for keyword in keywords)


def _described(
    window: Window, header: tarfile.TarInfo, before: dict[bytes, bytes], headers: bytes, offset: int, taken: set[str]
) -> TarMember:
    """A member from its header and what came before it."""
    if sum(kind in before for kind in PAX) > 1:
        raise tarfile.HeaderError("two PAX headers for one member")
    records = dict(pax_records(next((before[kind] for kind in PAX if kind in before), b"")))
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE or _is_sparse(set(records))
    name, size = _name(header, before, records), _size(header, records)
    holds_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
    if holds_data and offset + size > window.size_bytes:
        raise tarfile.HeaderError(f"cut off ('{shown(name)}' should have {size} bytes)")
    problem = _problem(name, header.type, size, is_sparse)
    if not problem and header.type != tarfile.DIRTYPE and shown(name) in taken:
        problem = SECOND
    return TarMember(shown(name), header.type, headers, offset, size if holds_data else 0, problem)


def _name(header: tarfile.TarInfo, before: dict[bytes, bytes], records: dict[bytes, bytes]) -> str:
    """The member's name, decoded with `surrogateescape`."""
    names = [before[tarfile.GNUTYPE_LONGNAME].partition(b"\0")[0]] if tarfile.GNUTYPE_LONGNAME in before else []
    names += [records[keyword] for keyword in (b"GNU.sparse.name", b"path") if keyword in records][:1]
    if len(names) > 1:
        raise tarfile.HeaderError("two names for one member")
    name = names[0].decode("utf-8", "surrogateescape") if names else header.name
    return name.rstrip("/") if header.isdir() else name


def _size(header: tarfile.TarInfo, records: dict[bytes, bytes]) -> int:
    """Of the data in the tar, bytes."""
    stored = records.get(b"size")
    if header.size < 0 or (stored is not None and not (stored.isdigit() and len(stored) < 20)):
        raise tarfile.HeaderError("a size that is no number")
    return header.size if stored is None else int(stored)


def _problem(name: str, kind: bytes, size: int, is_sparse: bool) -> str:
    """Why a member cannot be used, what is hostile first."""
    if kind not in (*_REGULAR, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE):
        return _KINDS.get(kind, UNKNOWN)
    if kind == tarfile.DIRTYPE and size:
        return FULL_FOLDER
    odd = NOT_UTF8 if shown(name) != name else ""
    return name_problem(name) or odd or (SPARSE if is_sparse else "")
