from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.cast import Cast, choose_cast


def cast(people: int, photos: int, held_out: int, pairs: int = 12, grid: tuple[int, int] = (2, 3)) -> Cast:
    return choose_cast(np.repeat(np.arange(people), photos), np.arange(people) < held_out, pairs, grid)


@given(people=st.integers(2, 30), photos=st.integers(1, 5), pairs=st.integers(1, 50), data=st.data())
def test_pairs_are_of_two_people_who_are_held_out_and_self_swaps_of_one(
    people: int, photos: int, pairs: int, data: st.DataObject
) -> None:
    held_out = data.draw(st.integers(2, people))
    chosen = cast(people, photos, held_out, pairs)
    target, source, own = (part // photos for part in (chosen.target, chosen.source, chosen.own))
    assert len(target) == pairs
    assert (target != source).all()
    assert (own == target).all()
    assert max(target.max(), source.max()) < held_out
    assert ((chosen.own != chosen.target) | (photos == 1)).all()
    counts = np.bincount(target, minlength=held_out)
    assert counts.max() - counts.min() <= 1, "everybody is a target about equally often"


@given(people=st.integers(2, 30), held_out=st.integers(1, 30), photos=st.integers(1, 12))
def test_the_gallery_holds_every_source_where_it_is_wanted(people: int, held_out: int, photos: int) -> None:
    chosen = cast(people, photos, min(held_out, people))
    assert (np.bincount(chosen.gallery_person) == min(photos, 8)).all()
    owner = {int(n): int(sample) // photos for n, sample in zip(chosen.gallery_person, chosen.gallery, strict=True)}
    assert [owner[int(n)] for n in chosen.wanted] == (chosen.source // photos).tolist()
    assert len(set(owner.values())) == len(owner)


def test_one_held_out_person_gets_the_faces_of_people_of_the_training_set() -> None:
    chosen = cast(people=6, photos=2, held_out=1)
    assert (chosen.target // 2 == 0).all()
    assert set(chosen.source // 2) == {1, 2, 3, 4, 5}


def test_every_pair_of_people_comes_once_before_one_comes_again() -> None:
    chosen = cast(people=5, photos=3, held_out=5, pairs=20)
    assert len(set(zip(chosen.target // 3, chosen.source // 3, strict=True))) == 20


def test_the_grid_is_filled_with_different_people_then_with_other_photographs() -> None:
    chosen = cast(people=4, photos=2, held_out=3, grid=(2, 6))
    assert len(set(chosen.grid_sources // 2)) == 2
    assert (np.bincount(chosen.grid_targets // 2) == 2).all()
    assert len(set(chosen.grid_targets)) == 6


def test_the_cast_is_always_the_same() -> None:
    one, other = cast(9, 3, 5), cast(9, 3, 5)
    assert (one.target == other.target).all()
    assert (one.grid_sources == other.grid_sources).all()
