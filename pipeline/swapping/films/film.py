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

    def span(self, number: int) -> FilmSpan:
        """One of its spans."""
        return FilmSpan(self, number)


@dataclass(frozen=True, slots=True)
class FilmSpan:
    """One span of a film: what a worker takes at a time.

    Attributes:
        film: which.
        number: of the span, from 0.
    """

    film: Film
    number: int

    @property
    def span(self) -> Span:
        """Which ticks."""
        return self.film.spans[self.number]


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
