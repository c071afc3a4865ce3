"""What the tests of the commands share: commands in this process, and folders to be had again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from tests.contracts import broken_contract

Here = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs a command in a folder, in this process: exit code, result, stderr.

    For what ends before Ray has work: a process of its own imports for 10 s, each time.
    """

    def run(folder: Path, *words: str) -> tuple[int, dict[str, Any], str]:
        capfd.readouterr()
        monkeypatch.chdir(folder)
        code = cli.main(list(words))
        stdout, stderr = capfd.readouterr()
        assert stdout.count("\n") == 1, stdout + stderr
        assert broken_contract(json.loads(stdout)) == []
        return code, json.loads(stdout), stderr

    return run


class Kept:
    """Folders as a job has left them, for several tests: each may change them, the next has them again.

    Args:
        root: what lies directly in it stays as it is, the database of MLflow for one, which is open meanwhile.
        names: folders below.
    """

    def __init__(self, root: Path, *names: str) -> None:
        self.root, self._names = root, names
        for name in names:
            shutil.copytree(root / name, root.with_name(f"{root.name}-kept") / name)

    def restored(self) -> Path:
        """The root, with its folders as they were, times of files included."""
        for name in self._names:
            shutil.rmtree(self.root / name, ignore_errors=True)
            shutil.copytree(self.root.with_name(f"{self.root.name}-kept") / name, self.root / name)
        return self.root
