"""Who is who where nothing says so: average linkage over the cosines of the embeddings.

The mean cosine between two groups of faces is the product of the groups' mean embeddings, so groups are kept as
means and no matrix of all pairs is ever held. Merging nearest pairs of groups that are each other's nearest gives
the same tree in any order (average linkage is reducible), so all of a round are merged at once.
"""

from __future__ import annotations

import numpy as np

from pipeline.types import Floats, Ints

_ROWS = 1024
"""Groups compared with all others at a time: 4 kB times the number of groups of memory."""


def cluster(embeddings: Floats, min_cosine: float) -> Ints:
    """Groups of faces by average linkage.

    Memory grows with N (twice the embeddings), time with N squared: one core takes 16 s for 20,000 faces.

    Args:
        embeddings: [N, E] unit length; may be memory-mapped.
        min_cosine: groups are joined while the mean cosine between two of them is at least this.

    Returns:
        [N] number of every face's group, numbered from the largest group down; equal ones by their first face.
    """
    group: Ints = np.arange(len(embeddings), dtype=np.int64)
    means, counts = np.array(embeddings, np.float32), np.ones(len(embeddings))
    nearest, cosine = np.full(len(means), -1, np.int64), np.zeros(len(means), np.float32)
    alive: Ints = group.copy()  # groups that something is near enough to
    stale = alive
    while len(alive) > 1:
        nearest[stale], cosine[stale] = _nearest(means, stale, alive)
        alive = alive[cosine[alive] >= min_cosine]
        alive = alive[np.isin(nearest[alive], alive)]  # rounding may part a pair at the very threshold
        if not len(alive):
            break
        into, away = _mutual(nearest, cosine, alive)
        share = (counts[away] / (counts[into] + counts[away])).astype(np.float32)[:, None]
        means[into] += share * (means[away] - means[into])
        counts[into] += counts[away]
        moved = np.arange(len(means))
        moved[away] = into
        group = moved[group]
        alive = np.setdiff1d(alive, away, assume_unique=True)
        stale = alive[np.isin(alive, into) | np.isin(nearest[alive], np.concatenate([into, away]))]
    return _by_size(group)


def _nearest(means: Floats, of: Ints, among: Ints) -> tuple[Ints, Floats]:
    """For every group of `of` the group of `among` with the highest mean cosine, itself excepted, and that cosine."""
    others = means[among]
    nearest, cosine = np.empty(len(of), np.int64), np.empty(len(of), np.float32)
    for start in range(0, len(of), _ROWS):
        rows = of[start : start + _ROWS]
        products = means[rows] @ others.T
        products[among[None, :] == rows[:, None]] = -np.inf
        best = products.argmax(axis=1)
        nearest[start : start + _ROWS] = among[best]
        cosine[start : start + _ROWS] = products[np.arange(len(rows)), best]
    return nearest, cosine


def _mutual(nearest: Ints, cosine: Floats, alive: Ints) -> tuple[Ints, Ints]:
    """Pairs that are each other's nearest, the lower number first.

    Rounding can leave a ring of equals without such a pair; then the closest one is taken.
    """
    mutual = alive[nearest[nearest[alive]] == alive]
    lower = mutual[mutual < nearest[mutual]]
    if not len(lower):
        closest = alive[cosine[alive].argmax()]
        pair = np.sort([closest, nearest[closest]])
        return pair[:1], pair[1:]
    return lower, nearest[lower]


def _by_size(group: Ints) -> Ints:
    """The same groups numbered from the largest down."""
    _, first, number, counts = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return np.asarray(rank[number], np.int64)
