"""Films: a video from file to file, span by span.

open -> look (every span) -> cast (the film: tracks, people) -> roles (who becomes whom) -> cut -> swap -> finish (every
piece) -> assemble (the film). Who somebody becomes is decided once for a film, so that the spans it is worked on in
change nothing of the result. Between the steps go crops and geometry, never frames; what is done lies on disk.
"""

from __future__ import annotations

from pipeline.swapping.films.assemble import assemble
from pipeline.swapping.films.parts import FinishPiece
from pipeline.swapping.films.state import FILMS, FilmState, forget_other_films
from pipeline.swapping.films.steps import CutStep, LookStep, cast_step, open_step, roles_step
from pipeline.swapping.films.swapper import FilmSwapper

__all__ = [
    "FILMS",
    "CutStep",
    "FilmState",
    "FilmSwapper",
    "FinishPiece",
    "LookStep",
    "assemble",
    "cast_step",
    "forget_other_films",
    "open_step",
    "roles_step",
]
