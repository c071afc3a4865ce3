from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import cli
from pipeline.config import TrackingConfig
from pipeline.redaction import has_password, redacted
from pipeline.runners.books import read_job, write_job
from pipeline.runners.progress import say

SECRET = "hunter2-canary"
ADDRESS = f"postgresql://story:{SECRET}@db.example:5432/mlflow"


def test_passwords_go_and_all_else_stays() -> None:
    assert redacted({"a": [ADDRESS, 3], "b": None}) == {
        "a": ["postgresql://story:***@db.example:5432/mlflow", 3],
        "b": None,
    }
    for text in (
        "http://host:5000/a@b",
        "s3://bucket/a:b@c",
        "sqlite:////tmp/x.db",
        "mail me@host: now",
        "http://u@host",
    ):
        assert redacted(text) == text
        assert not has_password(text)
    assert has_password(ADDRESS)


def test_a_setting_with_a_password_is_refused() -> None:
    with pytest.raises(ValueError, match="belongs in MLFLOW_TRACKING_URI") as caught:
        TrackingConfig(uri=ADDRESS)
    assert SECRET not in str(caught.value).replace(repr(ADDRESS), "")


def test_no_record_event_or_result_tells_a_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(str(tmp_path / "out"), {"command": "swap", "mlflow_uri": ADDRESS})
    assert read_job(str(tmp_path / "out"), "swap") == {"command": "swap", "mlflow_uri": redacted(ADDRESS)}
    say("warning", message=f"{ADDRESS} is down")
    assert SECRET not in capsys.readouterr().err


def test_what_the_command_line_answers_tells_no_password(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "swap.yaml").write_text("{}")
    code = cli.main(["swap", str(tmp_path / "swap.yaml"), f"tracking.uri={ADDRESS}"])
    out, err = capfd.readouterr()
    assert code == 2
    assert "password" in json.loads(out)["error"]
    assert SECRET not in out + err
