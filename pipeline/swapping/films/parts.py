"""The last stage of a piece: rendered or copied, checked, and its figures kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ItemError, RefusedInputError
from pipeline.faces.selection import STAYS
from pipeline.media.video_copying import copy_span
from pipeline.swapping.films.cast import Cast
from pipeline.swapping.films.check import LeakCheck
from pipeline.swapping.films.film import Film, check_unchanged
from pipeline.swapping.films.render import Render
from pipeline.swapping.films.state import FilmState
from pipeline.swapping.leaks import refuse_leaks
from pipeline.swapping.work import Plan, Work
from pipeline.types import Ints


class FinishPiece:
    """Turns the work of a piece into an encoded part of the film.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._render = Render(plan)
        settings = plan.settings
        anonymise = settings.selection.mode == "anonymise" and settings.anonymise.check
        self._check = LeakCheck(plan) if anonymise else None

    def __call__(self, work: Work) -> int:
        """Make the part and keep its figures; what is wrong with it ends the film.

        Returns:
            Faces swapped.
        """
        state = FilmState(self._plan, work.file)
        film, cast = state.film(), state.cast()
        if work.end is not None:
            state.ended(work.end)
        if film is None or cast is None or state.end() is not None:
            return 0
        try:
            check_unchanged(self._plan.originals(), work.file)
            figures = self._part(state, film, cast, work)
        except ItemError as error:
            state.ended(error)
            return 0
        except av.FFmpegError as error:
            problem = f"the encoder refuses a frame ({error.strerror})"
            state.ended(RefusedInputError(work.file.item, problem, "Set another videos.encoder.codec", "not_writable"))
            return 0
        state.rendered(work.segment, figures)
        return int((work.become >= 0).sum())

    def _part(self, state: FilmState, film: Film, cast: Cast, work: Work) -> dict[str, NDArray[Any]]:
        start = time.perf_counter()
        leaks, become = np.zeros(0, np.float32), work.become
        with state.store.making(state.part(work.segment)) as path:
            if not self._copied(film, cast, work, path):
                self._render(film, cast.pieces[work.segment], work, str(path))
            if self._check is not None and path.exists():
                leaks, become = self._mended(self._check, film, cast, work, path)
        names = ("source_before", "source_after", "owner_after")
        figures: dict[str, NDArray[Any]] = {name: getattr(work, name) for name in names}
        seconds = np.array([work.analyse_s, work.swap_s, time.perf_counter() - start])
        return figures | {"become": become, "leaks": leaks, "seconds": seconds}

    def _copied(self, film: Film, cast: Cast, work: Work, path: Path) -> bool:
        """Copy the packets where nothing changes, if that is wanted and can be done."""
        settings = self._plan.settings.videos
        if not settings.copy_untouched or work.whole == "blur" or (work.become != STAYS).any():
            return False
        span = cast.pieces[work.segment]
        frames = int(((cast.ticks >= span.begin) & (cast.ticks < span.end)).sum())
        return copy_span(film.path, film.file.item, film.info, span, str(path), settings.encoder, frames)

    def _mended(
        self, check: LeakCheck, film: Film, cast: Cast, work: Work, path: Path
    ) -> tuple[NDArray[np.float32], Ints]:
        """[L] cosines of the leaks, and [N] what became of the faces: by policy leaks end the film, or are blurred."""
        item, policy = film.file.item, self._plan.settings.policy.leak
        leaks = check(film, cast, work, str(path))
        refuse_leaks(item, leaks, policy)
        become = work.become
        if len(leaks) and policy == "blur":
            span = cast.pieces[work.segment]
            mended = check.blurred(film, work, cast.track[cast.between(span)], leaks)
            self._render(film, span, mended, str(path))
            refuse_leaks(item, check(film, cast, mended, str(path)), "fail")
            become = mended.become[: len(become)]
        return leaks.cosine, become
