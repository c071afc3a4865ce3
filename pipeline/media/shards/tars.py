"""WebDataset shards: a tar in which members of the same key belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Collection, Set
from typing import BinaryIO

from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media.shards.shard import ShardItem, split_name
from pipeline.media.shards.tar_members import BLOCK_BYTES, PAX, TarMember, padded, pax_records, read_members
from pipeline.media.shards.window import Window


def index_tar(file: BinaryIO, uri: str, suffixes: Collection[str]) -> list[ShardItem]:
    """The images and videos of a tar, without reading their data.

    Args:
        file: the tar; can seek.
        uri: names the shard in errors.
        suffixes: what an image or video ends with, with or without the first dot. All that follows the
            first dot of the base name must match: `7.seg.png` is no `.png`.

    Returns:
        One item for each member with such a name, in the tar's order; those that cannot be used have a problem.

    Raises:
        UnreadableError: cut off, damaged, without its end mark, or with data behind it.
        RefusedInputError: a compressed tar.
    """
    wanted = {suffix.lower().removeprefix(".") for suffix in suffixes}
    items = []
    for member in read_members(Window(file), uri):
        key, extension = split_name(member.name)
        if extension in wanted and member.kind != tarfile.DIRTYPE:
            items.append(ShardItem(key, member.name, member.data_offset, member.size_bytes, member.problem))
    return items


def read_tar_item(file: BinaryIO, uri: str, item: ShardItem) -> bytes:
    """The bytes of an item of `index_tar`.

    Raises:
        RefusedInputError: it has a problem.
        UnreadableError: the file is shorter than it was.
    """
    subject = f"{uri}/{item.name}"
    if item.problem:
        raise RefusedInputError(subject, item.problem, "Pack it as an ordinary file under a name of its own")
    file.seek(item.offset)
    data = file.read(item.size_bytes)
    if len(data) < item.size_bytes:
        raise UnreadableError(subject, "cut off", "Copy the shard again")
    return data


def rewrite_tar(
    source: BinaryIO, target: BinaryIO, uri: str, results: Callable[[str], bytes | None], dropped: Set[str]
) -> list[str]:
    """Write a tar again with other images in it.

    Members keep their order and headers (only sizes and checksums change); what is carried over is so byte for byte,
    at most 4 MiB in memory. The same input and results give the same bytes.

    Args:
        source: the tar; can seek.
        target: only written to, forward.
        uri: names the shard in errors.
        results: new bytes of the member with that name; None carries it over. Asked once for each ordinary file
            without a problem, in the tar's order.
        dropped: keys of samples of which no member is kept.

    Returns:
        Names of members left out because they are hostile: links, devices, unknown kinds, names that leave the shard
        or are taken. (A second member of a name would bring back the picture that the first no longer shows.)

    Raises:
        UnreadableError: as `index_tar`; part of the target is written by then.
        RefusedInputError: a compressed tar.
    """
    window, left_out, written_bytes = Window(source), [], 0
    for member in read_members(window, uri):
        if member.is_hostile:
            left_out.append(member.name)
        elif member.key not in dropped or not member.key:
            data = results(member.name) if member.is_file else None
            written_bytes += _carry(window, target, member) if data is None else _replace(target, member, data)
    end_bytes = 2 * BLOCK_BYTES
    target.write(bytes(end_bytes + -(written_bytes + end_bytes) % tarfile.RECORDSIZE))
    return left_out


def _carry(window: Window, target: BinaryIO, member: TarMember) -> int:
    """Copies a member; returns the bytes written."""
    target.write(member.headers)
    for piece in window.pieces(member.data_offset, member.size_bytes):
        target.write(piece)
    return len(member.headers) + _pad(target, member.size_bytes)


def _replace(target: BinaryIO, member: TarMember, data: bytes) -> int:
    """Writes a member with other data; returns the bytes written."""
    headers = _resized(member, len(data))
    target.write(headers)
    target.write(data)
    return len(headers) + _pad(target, len(data))


def _pad(target: BinaryIO, size_bytes: int) -> int:
    target.write(bytes(padded(size_bytes) - size_bytes))
    return padded(size_bytes)


def _resized(member: TarMember, size_bytes: int) -> bytes:
    """The member's headers for data of another size."""
    if size_bytes == member.size_bytes:
        return member.headers
    blocks, position, resized = member.headers, 0, []
    while position < len(blocks) - BLOCK_BYTES:
        header = blocks[position : position + BLOCK_BYTES]
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        payload = blocks[position + BLOCK_BYTES : position + BLOCK_BYTES + padded(info.size)]
        position += BLOCK_BYTES + len(payload)
        if info.type in PAX:
            records = _resized_records(payload[: info.size], size_bytes)
            header, payload = _with_size(header, len(records)), records.ljust(padded(len(records)), b"\0")
        resized += [header, payload]
    return b"".join([*resized, _with_size(blocks[position:], size_bytes)])


def _resized_records(payload: bytes, size_bytes: int) -> bytes:
    """PAX records in which a size, if there is one, is another."""
    if not any(keyword == b"size" for keyword, _ in pax_records(payload)):
        return payload
    return b"".join(
        _record(keyword, b"%d" % size_bytes if keyword == b"size" else value) for keyword, value in pax_records(payload)
    )


def _record(keyword: bytes, value: bytes) -> bytes:
    """A PAX record; its length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _with_size(header: bytes, size_bytes: int) -> bytes:
    """A header block with another size, and the checksum for it."""
    field = b"%011o\0" % size_bytes if size_bytes < 8**11 else b"\x80" + size_bytes.to_bytes(11, "big")
    blank = header[:124] + field + header[136:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]
