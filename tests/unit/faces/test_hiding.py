from __future__ import annotations

import numpy as np

from pipeline.faces.hiding import hide_places
from tests.unit.faces.test_tracking import RATE, Row, follow


def hidden(rows: list[Row], frames: int, person: list[int], hold_s: float = 0.0, starts: tuple[int, ...] = (0,)):  # type: ignore[no-untyped-def]
    tracks = follow(rows, frames, starts, settings={"max_gap_s": 0.1, "reach": 0.2})
    begins = np.zeros(frames, np.bool_)
    begins[list(starts)] = True
    times = np.arange(frames, dtype=np.float32) / np.float32(RATE)
    return tracks, hide_places(tracks, np.array(person), times, begins, hold_s)


def test_no_frame_between_two_tracks_of_one_person_is_left_open() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(10)] + [(n, 220.0, 100.0, 0) for n in range(30, 40)]
    tracks, found = hidden(rows, 40, [0, 0])
    assert len(np.unique(tracks.track)) == 2
    assert found.faces.frame.tolist() == list(range(10, 30))
    middle = (found.faces.box[:, 0] + found.faces.box[:, 2]) / 2
    assert (np.diff(middle) > 0).all(), "the place moves from the one to the other"
    sizes = found.faces.box[:, 2] - found.faces.box[:, 0]
    assert sizes[0] >= 1.5 * 60
    assert sizes.argmax() in (9, 10), "the longer unseen, the larger"


def test_tracks_of_two_people_and_of_two_shots_are_not_joined() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(10)] + [(n, 220.0, 100.0, 1) for n in range(30, 40)]
    assert not len(hidden(rows, 40, [0, 1])[1].faces)
    assert not len(hidden(rows, 40, [0, 0], starts=(0, 20))[1].faces)


def test_somebody_who_is_found_is_hidden_nowhere_else() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(10)] + [(n, 400.0, 100.0, 0) for n in range(12, 20)]
    _, found = hidden(rows, 20, [0, 0], hold_s=1.0)
    assert set(found.faces.frame.tolist()) == {10, 11}


def test_somebody_who_is_found_beside_hides_nobody_else() -> None:
    """Two who look like one person: while one is missing the other is no proof that nobody is there."""
    beside = [(n, 400.0, 100.0, 0) for n in range(40)]
    rows = [(n, 100.0, 100.0, 0) for n in range(10)] + beside + [(n, 110.0, 100.0, 0) for n in range(30, 40)]
    tracks, found = hidden(rows, 40, [0, 0, 0])
    assert len(np.unique(tracks.track)) == 3
    assert set(found.faces.frame.tolist()) == set(range(10, 30))


def test_a_place_is_held_before_and_after_within_its_shot() -> None:
    rows = [(n, 100.0, 100.0, 0) for n in range(20, 30)]
    _, found = hidden(rows, 60, [0], hold_s=0.4, starts=(0, 15))
    assert found.faces.frame.tolist() == [*range(15, 20), *range(30, 40)]
    assert set(found.track.tolist()) == {0}
