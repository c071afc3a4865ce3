"""The check of an encoded part: whether somebody can be recognised in one of its frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.faces.alignment import compose, frame_to_crop, invert
from pipeline.media.video import FOREVER, Span, probe
from pipeline.media.video_decoding import decode, shown
from pipeline.swapping.films.cast import Cast
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.look import Look
from pipeline.swapping.leaks import Leaks, find_leaks, without_leaks
from pipeline.swapping.work import Plan, Work
from pipeline.types import Ints


class LeakCheck:
    """Finds who can be recognised in an encoded part.

    Args:
        plan: of the job, which anonymises.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._look = Look(plan)

    def __call__(self, film: Film, cast: Cast, work: Work, part: str) -> Leaks:
        """Look at every frame of a part.

        Args:
            film: that it is of.
            cast: of the film.
            work: that the part was rendered from.
            part: path of the MP4.

        Raises:
            ItemError: the part cannot be decoded.
        """
        item, settings = film.file.item, self._plan.settings
        info = replace(probe(part, item), rotation=film.info.rotation, sample_aspect=film.info.sample_aspect)
        span = cast.pieces[work.segment]
        ticks = cast.ticks[(cast.ticks >= span.begin) & (cast.ticks < span.end)]
        everybody, _ = cast.people()
        frames = decode(part, item, info, Span(-FOREVER, FOREVER), settings.pools.finish.threads)
        found = list[Leaks]()
        for tick, frame in zip(ticks.tolist(), frames, strict=True):
            faces, rows = self._look.faces(shown(frame, info), item), np.flatnonzero(work.ticks == tick)
            found.append(find_leaks(faces, work, rows, everybody, settings.anonymise.leak_cosine, tick))
        return Leaks.joined(found)

    def blurred(self, film: Film, work: Work, tracks: Ints, leaks: Leaks) -> Work:
        """The work without what leaks; `tracks` are those of its faces."""
        model = self._plan.header.config
        to_crop = frame_to_crop(leaks.faces.landmarks, model.template, model.crop_size)
        return without_leaks(
            replace(work, whole=""), tracks, leaks, compose(invert(film.info.to_shown()[None]), invert(to_crop))
        )
