from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.protocol import Protocol, differences

PROTOCOL = Protocol("set", 112, ("a", "b"), 10, "judge", ("finder",))


@pytest.mark.parametrize(
    "change",
    [
        {"data_digest": "other"},
        {"crop_size": 224},
        {"people": ("a", "c")},
        {"pairs": 11},
        {"judge_digest": "other"},
        {"finder_digests": ("finder", "another")},
    ],
)
def test_whatever_decides_figures_is_in_the_digest(change: dict[str, object]) -> None:
    assert replace(PROTOCOL).digest == PROTOCOL.digest
    assert replace(PROTOCOL, **change).digest != PROTOCOL.digest  # type: ignore[arg-type]


def test_figures_are_compared_where_both_have_them() -> None:
    baseline = {"protocol_digest": "p", "figures": {"retrieval": 0.75, "landmark_error": 0.1}}
    assert differences({"retrieval": 0.5, "score": 1.0}, "p", baseline, "b.json") == {"retrieval": -0.25}


def test_figures_of_another_protocol_are_not() -> None:
    with pytest.raises(ConfigError, match="measured by another protocol"):
        differences({}, "p", {"protocol_digest": "q", "figures": {}}, "b.json")
