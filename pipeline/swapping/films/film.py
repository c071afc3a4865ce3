"""A film as work: what it is, and the spans that it is worked on in."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import SegmentsConfig
from pipeline.errors import RefusedInputError, StoreError, UnreadableError
from pipeline.media.inputs import InputFile, refuse_problem
from pipeline.media.store import Store
from pipeline.media.stretch import stretch_address
from pipeline.media.video import Span, VideoInfo, cut, probe


@dataclass(frozen=True, slots=True)
class Film:
    """A video among the inputs.

    Attributes:
        file: the input.
        path: where it can be read: a path, or an address in a store.
        info: from a probe.
        spans: that hold every frame once.
    """

    file: InputFile
    path: str
    info: VideoInfo
    spans: tuple[Span, ...]


def open_film(originals: Store, file: InputFile, settings: SegmentsConfig) -> Film:
    """Probe a video and cut it.

    Raises:
        ItemError: not a regular file, or no video that can be read.
    """
    if file.problem:
        refuse_problem(file)
    path = path_of(originals, file)
    info = probe(path, file.item)
    return Film(file, path, info, tuple(cut(info, path, file.item, settings)))


def path_of(originals: Store, file: InputFile) -> str:
    """Where a video can be read."""
    if file.shard:
        return stretch_address(f"{originals.address}/{file.where}", file.offset, file.size_bytes)
    return f"{originals.address}/{file.where}"


def check_unchanged(originals: Store, file: InputFile) -> None:
    """Check that an input is still what was listed: the stages read it several times.

    Raises:
        ItemError: it has changed or gone.
    """
    try:
        found = originals.stat(file.where)
    except StoreError as error:
        raise UnreadableError(file.item, f"cannot be read: {error.problem}", error.mend, code="store_error") from error
    if found is None:
        raise RefusedInputError(file.item, "has gone", "Run again", "changed")
    size = found.size_bytes if file.shard else file.size_bytes
    if (found.size_bytes, found.mtime_ns) != (size, file.mtime_ns):
        raise RefusedInputError(file.item, "changed while it was worked on", "Run again", "changed")
