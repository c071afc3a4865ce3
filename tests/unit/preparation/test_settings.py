from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import PrepareConfig
from pipeline.errors import ConfigError
from pipeline.settings import load_settings

SHIPPED = str(Path(__file__).resolve().parents[3] / "jobs" / "configs" / "prepare.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["output=in/set"], "output: in/set overlaps inputs in"),
        (["output=s3://bucket/set"], "is no folder of this machine"),
        (["labels=table"], "give one exactly when labels is table"),
        (["table=t.csv"], "give one exactly when labels is table"),
        (["faces=all"], "all needs labels=cluster"),
        (["filters.max_yaw=91"], "filters.max_yaw=91"),
        (["filters.min_px=3"], "no setting 'filters.min_px'; did you mean 'filters.min_"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(PrepareConfig, SHIPPED, ["inputs=in", "output=out", "models=pack", *words])
    assert says in str(error.value)


def test_one_setting_of_a_section_leaves_the_others_as_they_were() -> None:
    words = ["inputs=in", "output=out", "models=pack", "pool.workers=9", "ray.num_cpus=4"]
    settings = load_settings(PrepareConfig, SHIPPED, words)
    assert (settings.pool.items, settings.ray.no_progress_timeout_s) == (1, 3600)
