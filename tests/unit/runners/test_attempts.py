from __future__ import annotations

from pipeline.runners.attempts import AttemptBook


def test_an_input_is_given_up_after_so_many_beginnings_without_an_end() -> None:
    book = AttemptBook(2)
    for _ in range(2):
        assert book.begin("swap", [], ["a"]) == (False, [None])
    _, (verdict,) = book.begin("swap", [], ["a"])
    assert verdict == ("killed_worker", "ended its worker 2 times (swap)")
    assert book.begin("finish", [], ["a"])[1] == [verdict]


def test_what_has_ended_is_begun_anew() -> None:
    book = AttemptBook(1)
    for _ in range(5):
        assert book.begin("swap", ["a"], ["a"]) == (False, [None])


def test_of_several_begun_together_none_is_blamed_until_it_was_alone() -> None:
    book = AttemptBook(1)
    assert book.begin("swap", [], ["a", "b"]) == (False, [None, None])
    assert book.begin("swap", [], ["a", "b"]) == (True, [None, None])
    assert book.begin("swap", [], ["a"]) == (False, [None])
    assert book.begin("swap", ["a"], ["b"]) == (False, [None])
    (verdict,) = book.begin("swap", [], ["b"])[1]
    assert verdict == ("killed_worker", "ended its worker 1 times (swap)")
    assert book.begin("swap", [], ["a"]) == (False, [None])


def test_an_input_that_takes_too_long_is_given_up_at_once() -> None:
    book = AttemptBook(3)
    book.begin("analyse", [], ["a"])
    book.timed_out("analyse", "a", 6.0)
    assert book.begin("analyse", [], ["a"]) == (False, [("timed_out", "took longer than 6 s to analyse")])
