"""A kubectl that does not end is ended and asked once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import kubectl as module
from cluster.kubectl import kubectl
from pipeline.errors import ConfigError, FatalError


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "kubectl").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(module, "_TIMEOUT_S", 1.0)


def test_one_that_hangs_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f"[ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exec sleep 60; }}; echo $1", monkeypatch)
    assert kubectl("get") == ("get\n", "")


def test_one_that_always_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec sleep 60", monkeypatch)
    with pytest.raises(FatalError, match="no answer in 3 s"):
        kubectl("get")


def test_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="is not on PATH"):
        kubectl("get")
