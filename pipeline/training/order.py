"""Which samples a step sees and who becomes whom: pure functions of the seed and the step.

Nothing here has a state to save: a resumed run, and a run with another number of workers, asks for the same step and
gets the same samples. An epoch shows every sample once; the stream of samples is one epoch after the other, so that
no sample is left out where the batch does not divide the epoch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Ints

_SHARDS, _ROWS, _DERANGEMENT, _PARTNER = range(4)  # streams of random numbers, apart from one another


class SampleOrder:
    """The endless stream of training samples: epochs of shuffled windows of shuffled shards.

    Samples are shuffled within a window of shards, so that a loader reads each shard once an epoch and holds
    `window_shards` of them.

    Args:
        shard: [N] number of the shard of every sample, not decreasing.
        train: [N] which samples are trained on.
        seed: decides the order.
        window_shards: shards that are mixed.
    """

    def __init__(self, shard: Ints, train: NDArray[np.bool_], seed: int, window_shards: int) -> None:
        samples = np.flatnonzero(train)
        shards, first = np.unique(shard[samples], return_index=True)
        self._in_shard = np.split(samples, first[1:]) if len(shards) else []
        self._seed = seed
        self._window_shards = window_shards
        self.epoch_length = len(samples)
        self._window = lru_cache(maxsize=2)(self._shuffled_window)
        self._layout = lru_cache(maxsize=2)(self._shuffled_shards)

    def samples(self, start: int, count: int) -> Ints:
        """[count] sample numbers at the positions from `start` on."""
        parts, position = [], start
        while position < start + count:
            epoch, at = divmod(position, self.epoch_length)
            _, ends = self._layout(epoch)
            number = int(np.searchsorted(ends, at, side="right"))
            begin = int(ends[number - 1]) if number else 0
            rows = self._window(epoch, number)[at - begin : at - begin + start + count - position]
            parts.append(rows)
            position += len(rows)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _shuffled_shards(self, epoch: int) -> tuple[list[Ints], Ints]:
        """The windows of an epoch as places in `_in_shard`, and the position at which each ends."""
        order = np.random.default_rng([self._seed, _SHARDS, epoch]).permutation(len(self._in_shard))
        windows = [order[i : i + self._window_shards] for i in range(0, len(order), self._window_shards)]
        sizes = [sum(len(self._in_shard[place]) for place in window) for window in windows]
        return windows, np.cumsum(sizes)

    def _shuffled_window(self, epoch: int, number: int) -> Ints:
        windows, _ = self._layout(epoch)
        rows = np.concatenate([self._in_shard[place] for place in windows[number]])
        return np.random.default_rng([self._seed, _ROWS, epoch, number]).permutation(rows)


class Pairing:
    """Who becomes whom in a batch.

    Args:
        identity: [N] of every sample.
        train: [N] which samples are trained on: the others are nobody's source either.
        seed: decides the choices.
    """

    def __init__(self, identity: Ints, train: NDArray[np.bool_], seed: int) -> None:
        self._identity = identity
        samples = np.flatnonzero(train)
        self._by_identity = samples[np.argsort(identity[samples], kind="stable")]
        self._people, self._first = np.unique(identity[self._by_identity], return_index=True)
        self._seed = seed

    def others(self, samples: Ints, step: int) -> Ints:
        """[B] a source of another identity for every target: a derangement of the batch over identities.

        Where one identity fills more than half of the batch, what is over takes sources from outside.
        """
        random = np.random.default_rng([self._seed, _DERANGEMENT, step])
        shuffled = random.permutation(len(samples))
        _, group = np.unique(self._identity[samples], return_inverse=True)
        rank = random.permutation(group.max() + 1)[group]
        order = shuffled[np.argsort(rank[shuffled], kind="stable")]  # identities together, each in random order
        sources = np.empty_like(samples)
        sources[order] = samples[np.roll(order, -int(np.bincount(group).max()))]
        for place in np.flatnonzero(self._identity[sources] == self._identity[samples]):
            sources[place] = self._somebody_else(int(self._identity[samples[place]]), random)
        return sources

    def same(self, samples: Ints, step: int) -> Ints:
        """[B] another photograph of the same person for every target; the same one where there is no other."""
        random = np.random.default_rng([self._seed, _PARTNER, step])
        return np.array([self._partner(int(sample), random) for sample in samples], np.int64)

    def _partner(self, sample: int, random: np.random.Generator) -> int:
        photos = self._photos(int(np.searchsorted(self._people, self._identity[sample])))
        others = photos[photos != sample]
        return int(others[random.integers(len(others))]) if len(others) else sample

    def _somebody_else(self, identity: int, random: np.random.Generator) -> int:
        own = int(np.searchsorted(self._people, identity))
        person = (own + 1 + int(random.integers(len(self._people) - 1))) % len(self._people)
        photos = self._photos(person)
        return int(photos[random.integers(len(photos))])

    def _photos(self, person: int) -> Ints:
        end = self._first[person + 1] if person + 1 < len(self._people) else len(self._by_identity)
        return self._by_identity[self._first[person] : end]
