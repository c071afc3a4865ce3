"""Who plays whom while somebody looks at a generator: always the same people in the same pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Ints

CASTING = 1
"""Of `choose_cast`; one more whenever the same people come into other pairs."""

_GALLERY_PHOTOS = 8
"""Photographs of each identity that its mean embedding in the gallery is made of, at most."""

_MOST_STRANGERS = 32
"""Sources that are borrowed from training where one person alone is held out."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Photographs by their number in the set, and the part each plays.

    Attributes:
        target: [K] targets.
        source: [K] a photograph of another person for each target.
        own: [K] another photograph of the target's own person; the target itself where there is no other.
        gallery: [G] photographs of everybody who is a source.
        gallery_person: [G] place of their person in the gallery, 0 … P - 1.
        wanted: [K] place of each source's person in the gallery.
        grid_sources: [s] columns of the picture, all of different people as far as they go.
        grid_targets: [t] rows of the picture, the same.
    """

    target: Ints
    source: Ints
    own: Ints
    gallery: Ints
    gallery_person: Ints
    wanted: Ints
    grid_sources: Ints
    grid_targets: Ints


def choose_cast(identity: Ints, held_out: NDArray[np.bool_], pairs: int, grid: tuple[int, int], seed: int = 0) -> Cast:
    """Choose targets and sources among held-out people, everybody about equally often.

    Where one person alone is held out, the sources are people of the training set.

    Args:
        identity: [N] person of every photograph, an index into `held_out`.
        held_out: [P] who may be looked at; at least one, and two people in all.
        pairs: how many pairs, K.
        grid: sources x targets of the picture.
        seed: the same seed and people give the same choice.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(held_out))
    strangers = np.random.default_rng(seed).permutation(np.flatnonzero(~held_out))[:_MOST_STRANGERS]
    sources = order if len(order) > 1 else strangers
    albums = _Albums(identity, seed)
    turn, place = np.divmod(np.arange(pairs), len(order))
    if len(order) > 1:  # in each turn everybody gets the face of the person so many places further on
        source_place = (place + 1 + turn % (len(order) - 1)) % len(order)
    else:
        source_place = turn % len(strangers)
    columns, rows = (np.arange(count) for count in grid)
    gallery = [(p, n) for n, person in enumerate(sources) for p in albums.first(int(person), _GALLERY_PHOTOS)]
    return Cast(
        target=albums.photos(order[place], turn),
        source=albums.photos(sources[source_place], turn),
        own=albums.photos(order[place], turn + 1),
        gallery=np.array([photo for photo, _ in gallery], np.int64),
        gallery_person=np.array([n for _, n in gallery], np.int64),
        wanted=source_place.astype(np.int64),
        grid_sources=albums.photos(sources[columns % len(sources)], columns // len(sources)),
        grid_targets=albums.photos(order[::-1][rows % len(order)], rows // len(order)),
    )


class _Albums:
    """Everybody's photographs, in an order that the seed decides."""

    def __init__(self, identity: Ints, seed: int) -> None:
        shuffled = np.random.default_rng([seed, 1]).permutation(len(identity))
        self._photos = shuffled[np.argsort(identity[shuffled], kind="stable")]
        self._first = np.searchsorted(identity[self._photos], np.arange(int(identity.max()) + 2))

    def photos(self, people: Ints, turns: Ints) -> Ints:
        """The photograph of each person at each turn; after the last comes the first again."""
        first, count = self._first[people], self._first[people + 1] - self._first[people]
        return np.asarray(self._photos[first + turns % count], np.int64)

    def first(self, person: int, most: int) -> Ints:
        """The first photographs of one person."""
        return np.asarray(self._photos[self._first[person] : self._first[person + 1]][:most], np.int64)
