from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.order import Pairing, SampleOrder


def order(samples: int = 103, shards: int = 7, seed: int = 0, window: int = 2, held_out: int = 5) -> SampleOrder:
    shard = np.sort(np.arange(samples) % shards)
    train = np.arange(samples) % 19 != 3 if held_out else np.ones(samples, np.bool_)
    return SampleOrder(shard, train, seed, window)


@given(batch=st.integers(1, 40), window=st.integers(1, 9))
def test_an_epoch_shows_every_training_sample_once_whatever_the_batch(batch: int, window: int) -> None:
    stream = order(window=window)
    epochs = 3
    seen = np.concatenate([stream.samples(i, batch) for i in range(0, epochs * stream.epoch_length, batch)])[
        : epochs * stream.epoch_length
    ]
    for epoch in seen.reshape(epochs, stream.epoch_length):
        assert sorted(epoch) == [n for n in range(103) if n % 19 != 3]


def test_the_stream_is_the_same_wherever_it_is_entered_and_another_for_another_seed() -> None:
    whole = order().samples(0, 300)
    for start in (0, 1, 97, 98, 250):
        assert np.array_equal(order().samples(start, 300 - start), whole[start:])
    assert not np.array_equal(order(seed=1).samples(0, 300), whole)
    length = order().epoch_length
    assert not np.array_equal(whole[:length], whole[length : 2 * length])


def test_a_window_reads_few_shards_at_a_time() -> None:
    shard = np.repeat(np.arange(50), 20)
    stream = SampleOrder(shard, np.ones(1000, np.bool_), 0, 4)
    for window in stream.samples(0, 1000)[:960].reshape(12, 80):
        assert len(np.unique(shard[window])) == 4


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=12), step=st.integers(0, 9), seed=st.integers(0, 3))
def test_nobody_is_their_own_source(sizes: list[int], step: int, seed: int) -> None:
    identity = np.repeat(np.arange(len(sizes)), sizes)
    samples = np.random.default_rng(seed).permutation(len(identity))
    sources = Pairing(identity, np.ones(len(identity), np.bool_), seed).others(samples, step)
    assert (identity[sources] != identity[samples]).all()
    if max(sizes) * 2 <= sum(sizes):
        assert sorted(sources) == sorted(samples), "a derangement of the batch: everybody is a source once"


def test_held_out_people_are_nobodys_source() -> None:
    identity = np.repeat(np.arange(6), 4)
    train = identity != 5
    pairing = Pairing(identity, train, 0)
    crowd = np.flatnonzero(identity == 0)  # one identity fills the batch: sources come from outside
    for step in range(20):
        assert set(identity[pairing.others(crowd, step)]) <= {1, 2, 3, 4}
        assert set(identity[pairing.same(crowd, step)]) == {0}


def test_the_same_person_comes_from_another_photograph_where_there_is_one() -> None:
    identity = np.array([0, 0, 0, 1, 2, 2])
    same = Pairing(identity, np.ones(6, np.bool_), 3).same(np.arange(6), 0)
    assert np.array_equal(identity[same], identity)
    assert same[3] == 3
    assert (same[[0, 1, 2, 4, 5]] != np.array([0, 1, 2, 4, 5])).all()


@pytest.mark.parametrize("step", [0, 7])
def test_pairs_depend_on_seed_and_step_alone(step: int) -> None:
    identity = np.repeat(np.arange(30), 3)
    samples = np.arange(0, 90, 2)
    one, other = (Pairing(identity, np.ones(90, np.bool_), 5) for _ in range(2))
    assert np.array_equal(one.others(samples, step), other.others(samples, step))
    assert not np.array_equal(one.others(samples, step), one.others(samples, step + 1))
