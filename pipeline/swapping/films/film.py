"""A film as work: what it is, and the spans that it is worked on in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import SegmentsConfig
from pipeline.errors import RefusedInputError
from pipeline.media.storage import InputFile
from pipeline.media.video import Span, VideoInfo, cut, probe


@dataclass(frozen=True, slots=True)
class Film:
    """A video among the inputs.

    Attributes:
        file: the input.
        path: where it can be read.
        info: from a probe.
        spans: that hold every frame once.
    """

    file: InputFile
    path: str
    info: VideoInfo
    spans: tuple[Span, ...]


def open_film(root: str, file: InputFile, settings: SegmentsConfig) -> Film:
    """Probe a video and cut it.

    Raises:
        ItemError: not a regular file, or no video that can be read.
    """
    if file.problem:
        raise RefusedInputError(file.item, file.problem, code="not_a_file", status="skipped")
    path = str(Path(root) / file.item)
    info = probe(path, file.item)
    return Film(file, path, info, tuple(cut(info, path, file.item, settings)))


def check_unchanged(root: str, file: InputFile) -> None:
    """Check that an input is still what was listed: the stages read it several times.

    Raises:
        ItemError: it has changed or gone.
    """
    try:
        facts = (Path(root) / file.item).stat()
    except OSError as error:
        raise RefusedInputError(file.item, f"has gone ({error.strerror})", "Run again", "changed") from error
    if (facts.st_size, facts.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
        raise RefusedInputError(file.item, "changed while it was worked on", "Run again", "changed")
