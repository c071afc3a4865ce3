"""What can only be decided when all faces are known: who is who, who shows somebody else, who is shown too rarely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PrepareConfig
from pipeline.faces.clustering import cluster
from pipeline.faces.identity import unlike_the_others
from pipeline.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class People:
    """Whose face each one is, and which stay in the set.

    Attributes:
        names: [P] of all identities.
        identity: [N] index into `names`.
        cosine: [N] to the mean of the identity's other faces; NaN for an only one.
        outlier: [N] does not look like the others.
        too_few: [N] belongs to an identity of which too few photographs are left.
    """

    names: tuple[str, ...]
    identity: Ints
    cosine: Floats
    outlier: NDArray[np.bool_]
    too_few: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """[N] faces that make up the set."""
        return ~(self.outlier | self.too_few)

    def counts(self) -> Ints:
        """[P] faces of every identity in the set."""
        return np.asarray(np.bincount(self.identity[self.kept], minlength=len(self.names)), np.int64)


def settle(labels: Sequence[str], photo: Ints, embeddings: Floats, settings: PrepareConfig) -> People:
    """Decide whose each face is and which stay.

    An identity most of whose photographs look odd keeps them all: then nobody can say which are right.

    Args:
        labels: N labelled identities; not looked at when they are to be found by clustering.
        photo: [N] number of the photograph each face is in.
        embeddings: [N, E] unit length; may be memory-mapped.
        settings: of the job.
    """
    names, identity = _named(labels, embeddings, settings)
    outlier, cosine = np.zeros(len(identity), np.bool_), np.full(len(identity), np.nan, np.float32)
    for rows in _rows_of_each(identity, len(names)):
        odd, likeness = unlike_the_others(np.asarray(embeddings[rows]), settings.filters.outlier_cosine)
        if len(rows) > 1:
            cosine[rows] = likeness
        if settings.labels != "cluster" and odd.sum() * 2 < len(rows):
            outlier[rows] = odd
    left = np.unique(np.stack([identity, photo])[:, ~outlier], axis=1)[0]  # once for every photograph of an identity
    photos = np.bincount(left, minlength=len(names))
    return People(names, identity, cosine, outlier, (photos[identity] < settings.filters.min_photos) & ~outlier)


def _named(labels: Sequence[str], embeddings: Floats, settings: PrepareConfig) -> tuple[tuple[str, ...], Ints]:
    if settings.labels == "cluster":
        group = cluster(embeddings, settings.cluster.min_cosine)
        return tuple(f"person-{number:05d}" for number in range(int(group.max(initial=-1)) + 1)), group
    names, identity = np.unique(np.asarray(labels, object), return_inverse=True)
    return tuple(str(name) for name in names), np.asarray(identity, np.int64)


def _rows_of_each(identity: Ints, count: int) -> list[Ints]:
    """The rows of every identity, in order."""
    order = np.argsort(identity, kind="stable")
    return np.split(order, np.cumsum(np.bincount(identity, minlength=count))[:-1]) if count else []
