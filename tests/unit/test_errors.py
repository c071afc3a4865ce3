from __future__ import annotations

import pickle

import pytest

from pipeline import errors
from pipeline.errors import FatalError, ItemError, SimSwapError


def every_class(base: type[SimSwapError] = SimSwapError) -> list[type[SimSwapError]]:
    return [base] + [c for child in base.__subclasses__() for c in every_class(child)]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_after_pickling(kind: type[SimSwapError]) -> None:
    error = kind("a.jpg", "is broken", "Replace it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_what_an_item_error_says_beside_its_text_survives_pickling() -> None:
    error = errors.PolicyError("a.jpg", "no face", code="no_face", status="skipped")
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.status) == ("no_face", "skipped")


def test_a_message_reads_input_problem_mend() -> None:
    assert str(SimSwapError("a.jpg", "no face", "Lower the score")) == "a.jpg: no face. Lower the score."
    assert str(SimSwapError("a.jpg", "no face")) == "a.jpg: no face."
    assert str(SimSwapError("x=1", "no setting 'x'; did you mean 'y'?")) == "x=1: no setting 'x'; did you mean 'y'?"


def test_every_error_has_one_fate() -> None:
    fates = (FatalError, ItemError, errors.TransientError)
    for kind in every_class()[1:]:
        assert sum(issubclass(kind, fate) for fate in fates) == 1


def test_exit_codes_are_those_of_the_command() -> None:
    codes = {kind.__name__: kind.exit_code for kind in every_class(FatalError)}
    assert (codes["ConfigError"], codes["ConsentError"], codes["CheckpointError"]) == (2, 3, 1)
