"""What a swap of a film will look like: a few seconds side by side with the original, and frames of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.faces.selection import STAYS
from pipeline.media.video import FOREVER, Span
from pipeline.media.video_decoding import decode, shown
from pipeline.swapping.films.cast import UNSURE, Cast, Casting, refuse_unsure
from pipeline.swapping.films.cut import Cut
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.look import Look, join_seen
from pipeline.swapping.films.render import Render
from pipeline.swapping.people import People, choose_sources
from pipeline.swapping.swap import Swap
from pipeline.swapping.work import Plan
from pipeline.types import Ints

Pixels = NDArray[np.uint8]

_GAP = 4
"""White pixels between original and result."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of a film, before and after.

    Attributes:
        seconds: since the film's begin.
        original: [H, W, 3] u8 RGB, as it is shown.
        result: [H, W, 3] u8 RGB.
        faces: that were found.
        swapped: that got a source.
    """

    seconds: float
    original: Pixels
    result: Pixels
    faces: int
    swapped: int


class Preview:
    """Swaps parts of a film in one process.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._people = plan, People(plan)
        self._look, self._casting, self._cut = Look(plan), Casting(plan), Cut(plan)
        self._swap, self._render = Swap(plan), Render(plan)

    def samples(self, film: Film, count: int) -> Iterator[Sample]:
        """Frames of a film, evenly spread, each by itself: nobody is followed between them.

        Raises:
            ItemError: the film cannot be decoded, or a policy ends it.
        """
        spans = [Span(tick, tick + 1) for tick in self._ticks(film, count)]
        cast, roles = self._cast(replace(film, spans=tuple(spans)))
        for number, span in enumerate(cast.pieces):
            for original, result in self._pairs(film, cast, roles, number):
                became = cast.become(roles, self._plan.settings.policy.low_confidence)
                become = became[cast.track[cast.between(span)]]
                seconds = float((span.begin - film.info.start) * film.info.time_base)
                yield Sample(seconds, original, result, len(become), int((become != STAYS).sum()))

    def clip(self, film: Film, at_s: float, seconds: float, width: int, path: str) -> int:
        """Write a stretch of a film as MP4, the original left and the result right.

        Args:
            film: which.
            at_s: where it begins, seconds.
            seconds: how long it is.
            width: most pixels that it is wide.
            path: to write.

        Returns:
            Its frames.

        Raises:
            ItemError: the film cannot be decoded, or a policy ends it.
        """
        info = film.info
        begin = info.start + round(at_s / float(info.time_base))
        span = Span(begin, begin + max(round(seconds / float(info.time_base)), 1))
        cast, roles = self._cast(replace(film, spans=(span,)))
        sides = (
            _side_by_side(*pair, width)
            for number in range(len(cast.pieces))
            for pair in self._pairs(film, cast, roles, number)
        )
        return _write_clip(path, sides, cast.ticks - cast.ticks[:1], info.time_base, info.rate)

    def _ticks(self, film: Film, count: int) -> list[int]:
        """Times of frames that there are."""
        ticks = list[int]()
        for number in range(count):
            info = film.info
            wanted = info.start + int((info.end - info.start) * (number + 0.5) / count)
            frame = next(decode(film.path, film.file.item, info, Span(wanted, FOREVER)), None)
            if frame is not None and frame.pts is not None and frame.pts not in ticks:
                ticks.append(frame.pts)
        if not ticks:  # shorter than it promises
            frame = next(decode(film.path, film.file.item, film.info, Span(-FOREVER, FOREVER)))
            ticks.append(frame.pts or 0)
        return sorted(ticks)

    def _cast(self, film: Film) -> tuple[Cast, Ints]:
        cast = self._casting(film, join_seen([self._look(film, span) for span in film.spans]))
        embeddings, area = cast.people()
        key = f"{film.spans[0].begin}-{film.spans[-1].end}"
        roles = choose_sources(self._plan, self._people, key, film.file.item, embeddings, area)
        refuse_unsure(self._plan, film.file.item, cast.person[cast.fate == UNSURE], roles)
        return cast, roles

    def _pairs(self, film: Film, cast: Cast, roles: Ints, number: int) -> Iterator[tuple[Pixels, Pixels]]:
        """Original and result of every frame of a piece, as they are shown."""
        work = self._swap([self._cut(film, cast, roles, number)])[0]
        span = cast.pieces[number]
        originals = decode(film.path, film.file.item, film.info, span)
        for original, result in zip(originals, self._render.frames(film, span, work), strict=True):
            views = [shown(frame, film.info).permute(1, 2, 0).numpy() for frame in (original, result)]
            yield views[0], views[1]


def _side_by_side(original: Pixels, result: Pixels, width: int) -> Pixels:
    """[h, w, 3]: both in one picture of even sides, no wider than allowed."""
    height, wide = original.shape[:2]
    scale = min((width - _GAP) / (2 * wide), 1.0)
    size = (max(int(wide * scale), 2), max(int(height * scale), 2))
    views = [cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in (original, result)]
    picture = np.concatenate([views[0], np.full((size[1], _GAP, 3), 255, np.uint8), views[1]], axis=1)
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]


def _write_clip(path: str, pictures: Iterator[Pixels], ticks: Ints, base: Fraction, rate: Fraction | None) -> int:
    count = 0
    with av.open(path, "w", format="mp4", container_options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate or 25, options={"crf": "18", "preset": "veryfast"})
        stream.time_base = stream.codec_context.time_base = base
        for tick, picture in zip(ticks.tolist(), pictures, strict=True):
            if not count:
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def contact_sheet(samples: Sequence[Sample], side: int = 320) -> Pixels:
    """Samples in two columns of pairs, each with its time and its faces.

    Args:
        samples: of a film.
        side: width of a picture, pixels.
    """
    tiles = [_tile(sample, side) for sample in samples]
    blank = np.full_like(tiles[0], 255)
    rows = [np.concatenate([tiles[n], (tiles[n + 1 : n + 2] or [blank])[0]], axis=1) for n in range(0, len(tiles), 2)]
    return np.concatenate(rows)


def _tile(sample: Sample, side: int) -> Pixels:
    height = max(round(sample.original.shape[0] * side / sample.original.shape[1]), 1)
    views = [cv2.resize(v, (side, height), interpolation=cv2.INTER_AREA) for v in (sample.original, sample.result)]
    tile = np.full((height + 26, 2 * side + 20, 3), 255, np.uint8)
    tile[22 : 22 + height, 6 : 6 + side], tile[22 : 22 + height, 10 + side : 10 + 2 * side] = views
    says = f"{sample.seconds:.2f} s   {sample.swapped} of {sample.faces} faces"
    cv2.putText(tile, says, (8, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return tile
