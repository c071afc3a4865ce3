"""Estimates from trials whose rates are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EstimateConfig, SwapConfig
from pipeline.errors import ConfigError, OutputError
from pipeline.media.store import Store
from pipeline.runners.books import write_job
from pipeline.runners.estimating import estimate
from pipeline.swapping.receipts import ReceiptBook
from pipeline.types import Receipt

BEGAN, START_S, END_S = 1_700_000_000.0, 12.0, 5.0
RECEIPT = Receipt("", "done", "", "", "", 1, 1, "", "", 64, 64, "r", (), 0.2, 0.5, 0.1, 0.0)

Make = Callable[..., str]


@pytest.fixture
def trial(tmp_path: Path) -> Make:
    """Makes the books of a finished trial whose inputs ended so many seconds apart."""

    def make(items: int = 101, item_s: float = 0.5, **facts: Any) -> str:
        output = str(tmp_path / "out")
        ended = BEGAN + START_S + (items - 1) * item_s + END_S
        settings = {
            "inputs": "/in", "output": output, "source": "/s.jpg", "models": "x", "swapper": {"passthrough": True},
            "ray": {"num_cpus": 2}, "pools": {"swap": {"workers": 2}},
        }  # fmt: skip
        job = {"command": "swap", "finished": True, "began": BEGAN, "ended": ended, "layout": "files", "recipe": "r"}
        job["settings"] = SwapConfig.model_validate(settings).model_dump(mode="json")
        write_job(output, job | facts)
        ReceiptBook(Store(output)).add(
            [replace(RECEIPT, item=f"{n}.png", finished_at=BEGAN + START_S + n * item_s) for n in range(items)]
        )
        return output

    return make


def told(output: str, **settings: Any) -> dict[str, Any]:
    return estimate(output, EstimateConfig.model_validate(settings))


def test_the_trial_itself_is_estimated_as_it_was(trial: Make) -> None:
    found = told(trial(), items=101)
    assert found["seconds"] == pytest.approx(START_S + 101 * 0.5 + END_S, abs=0.1)
    assert found["held_up_by"] == "cores"  # (0.2 + 0.5 + 0.1) / 2 is more than 0.5 / 2
    assert found["trial"]["share_of_bound"] == pytest.approx(0.4 / 0.5)
    assert found["trial"]["enough"]
    assert found["workers"] == {"analyse": 1, "swap": 2, "finish": 1}


def test_more_inputs_take_longer_and_more_workers_do_not(trial: Make) -> None:
    output = trial()
    assert told(output, items=10_000)["seconds"] == pytest.approx(17 + 10_000 * 0.5, abs=0.1)
    wide = told(output, items=10_000, analyse=4, swap=10, finish=2)
    assert wide["cores"] == 16
    assert wide["held_up_by"] in ("analyse", "swap", "finish", "cores")
    assert wide["seconds"] == pytest.approx(17 + 10_000 * 0.05 / 0.8, rel=0.01)  # each stage, and the cores, take 0.05
    assert told(output, items=10_000, analyse=4, swap=10, finish=2, cores=4)["held_up_by"] == "cores"


def test_hours_say_how_many_workers_it_takes(trial: Make) -> None:
    found = told(trial(), items=1_000_000, hours=10.0)
    assert found["hours"] <= 10.0
    assert found["workers"] == {"analyse": 7, "swap": 18, "finish": 4}  # 1e6 x 0.2 / 0.8 in 35,983 s, and so on
    with pytest.raises(ConfigError, match="starting and ending alone"):
        told(trial(), items=10, hours=0.001)


def test_another_generator_and_prices_count(trial: Make) -> None:
    found = told(trial(), items=1000, swap_s=0.01, analyse=1, swap=1, finish=1, cores=3, cpu_hour=0.1)
    assert found["held_up_by"] == "analyse"
    assert found["seconds"] == pytest.approx(17 + 1000 * 0.2 / 0.8, abs=0.1)
    assert found["cost"] == pytest.approx(round(found["seconds"] / 3600 * 3 * 0.1, 2))


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"finished": False}, "is no finished trial"),
        ({"began": None}, "is no finished trial"),
        ({"items": 5}, "5 inputs are too few"),
        ({"began": BEGAN + 60}, "the trial was interrupted"),
    ],
)
def test_what_is_no_trial_is_refused(trial: Make, facts: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        told(trial(**facts), items=10)


def test_where_nothing_was_swapped_there_is_no_trial(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="no job has worked here"):
        told(str(tmp_path / "empty"), items=10)
