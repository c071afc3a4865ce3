"""Progress: nothing that was counted stays untold."""

from __future__ import annotations

import json

import pytest

from pipeline.runners.progress import Progress


def test_the_last_line_tells_all_that_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("swap", 3) as progress:
        progress.advance(0, {"spans": 2})
        progress.advance(2, {"faces": 5})
        progress.advance(0, {"spans": 4})
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["done"], line["total"], line["spans"], line["faces"]) == (2, 3, 4, 5)


def test_a_job_that_is_through_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("swap", 2) as progress:
        progress.advance(2, {"faces": 1})
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_job_that_breaks_off_tells_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("swap", 2)
    progress.advance(1, {})
    progress.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert json.loads(capsys.readouterr().err)["done"] == 1
