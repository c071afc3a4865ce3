"""A kubectl that does not end, or is not there, is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import kubectl as module
from cluster.kubectl import kubectl
from pipeline.errors import ConfigError, FatalError


def test_one_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "_TIMEOUT_S", 1.0)
    with pytest.raises(FatalError, match="no answer in 1 s"):
        kubectl("get")


def test_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="is not on PATH"):
        kubectl("get")
