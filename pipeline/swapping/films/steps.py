"""The steps of a film over its state on disk: each does nothing where it was done before, and can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ItemError, PolicyError
from pipeline.faces.selection import pair_roles
from pipeline.media.inputs import InputFile
from pipeline.swapping.films.cast import UNSURE, Casting, refuse_unsure
from pipeline.swapping.films.cut import Cut
from pipeline.swapping.films.film import check_unchanged, open_film
from pipeline.swapping.films.look import Look, join_seen
from pipeline.swapping.films.state import FilmState
from pipeline.swapping.people import People, choose_sources
from pipeline.swapping.work import Plan, Work
from pipeline.types import Floats, Ints


def open_step(plan: Plan, file: InputFile) -> int:
    """Probe a film.

    Returns:
        Spans to look at; 0 where the film gets no result.
    """
    state = FilmState(plan, file)
    if state.end() is not None:
        return 0
    film = state.film()
    if film is None:
        try:
            film = open_film(plan.originals(), file, plan.settings.videos.segments)
        except ItemError as error:
            state.ended(error)
            return 0
        state.opened(film)
    return len(film.spans)


class LookStep:
    """Looks at spans.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._look = plan, Look(plan)

    def __call__(self, file: InputFile, number: int) -> None:
        """Look at one span of a film."""
        state = FilmState(self._plan, file)
        film = state.film()
        if film is None or state.seen(number) is not None or state.end() is not None:
            return
        try:
            check_unchanged(self._plan.originals(), file)
            state.looked(number, self._look(film, film.spans[number]))
        except ItemError as error:
            state.ended(error)


@dataclass(frozen=True, slots=True)
class Troupe:
    """What has to be known of a film to decide who its people become.

    Attributes:
        file: the input.
        pieces: to swap; 0 where the film gets no result.
        embeddings: [Q, E] unit length: whom each person looks like.
        area: [Q] of all their faces, pixels.
        unsure: people of the tracks that are not sure enough.
    """

    file: InputFile
    pieces: int
    embeddings: Floats
    area: Floats
    unsure: Ints


def cast_step(plan: Plan, file: InputFile) -> Troupe:
    """Follow the faces of a film of which every span was looked at."""
    state = FilmState(plan, file)
    film = state.film()
    nobody = Troupe(file, 0, np.zeros((0, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    if film is None or state.end() is not None:
        return nobody
    cast = state.cast()
    if cast is None:
        seen = [part for n in range(len(film.spans)) if (part := state.seen(n)) is not None]
        if len(seen) != len(film.spans):
            raise AssertionError(f"{file.item}: cast before all of it was looked at")
        try:
            cast = Casting(plan)(film, join_seen(seen))
        except ItemError as error:
            state.ended(error)
            return nobody
        state.was_cast(cast)
    return Troupe(file, len(cast.pieces), *cast.people(), cast.person[cast.fate == UNSURE])


def roles_step(plan: Plan, people: People, troupes: Sequence[Troupe]) -> list[Troupe]:
    """Decide who the people of films become; in the order of the inputs, and in one process.

    Returns:
        The films that get a result.
    """
    kept = list[Troupe]()
    roles = list[tuple[FilmState, Ints]]()
    for troupe in troupes:
        state = FilmState(plan, troupe.file)
        if troupe.pieces and state.roles() is None:
            key, item = state.key, troupe.file.item
            if troupe.file.source >= 0:
                become = pair_roles(troupe.area, troupe.file.source, troupe.file.face or plan.settings.selection.mode)
            else:
                become = choose_sources(plan, people, key, item, troupe.embeddings, troupe.area)
            try:
                refuse_unsure(plan, item, troupe.unsure, become)
            except PolicyError as error:
                state.ended(error)
                continue
            roles.append((state, become))
        if troupe.pieces:
            kept.append(troupe)
    people.save()
    for state, become in roles:
        state.took_roles(become)
    return kept


class CutStep:
    """Cuts the crops of pieces.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._cut = plan, Cut(plan)

    def __call__(self, file: InputFile, number: int) -> Work:
        """One piece of a film as work for the generator."""
        state = FilmState(self._plan, file)
        film, cast, roles = state.film(), state.cast(), state.roles()
        if film is None or cast is None or roles is None:
            raise AssertionError(f"{file.item}: cut before it was cast")
        try:
            check_unchanged(self._plan.originals(), file)
            return self._cut(film, cast, roles, number)
        except ItemError as error:
            return Work.of(file, number).ended_by(error)
