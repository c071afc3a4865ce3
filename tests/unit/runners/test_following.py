"""Following a job, and leaving it: the same wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.runners.following import Ask, Attempt, follow

AT_WORK = Attempt("mine", 1, "mine-1", "RUNNING", "", None, 1.0, 0.0)


class Jobs:
    """A place where one job runs for ever: who follows it presses Ctrl-C."""

    address = "here"
    words = " --kube simswap"

    def __init__(self) -> None:
        self.stopped = False

    def attempts(self, id_: str | None = None) -> list[Attempt]:
        return [AT_WORK]

    def latest(self, id_: str) -> Attempt:
        return AT_WORK

    def submit(self, submission: Mapping[str, Any], id_: str) -> tuple[Attempt, bool]:
        return AT_WORK, False

    def follow(self, attempt: Attempt, tell: Callable[[str], None]) -> Attempt:
        raise KeyboardInterrupt

    def stop(self, attempt: Attempt, longest_s: float) -> Attempt:
        self.stopped = True
        return replace(attempt, status="STOPPED")


@pytest.mark.parametrize("ask", [None, lambda question: "", lambda question: "leave it"])
def test_ctrl_c_leaves_a_job_at_work(ask: Ask | None, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs()
    assert follow(jobs, AT_WORK, ask) == {"status": "detached", "exit_code": 130}
    assert not jobs.stopped
    assert "simswap jobs stop mine --kube simswap" in capsys.readouterr().err


def test_ctrl_c_stops_a_job_where_a_person_says_so() -> None:
    jobs = Jobs()
    assert follow(jobs, AT_WORK, lambda question: "s") == {
        "status": "interrupted",
        "error": "STOPPED",
        "exit_code": 130,
    }
    assert jobs.stopped
