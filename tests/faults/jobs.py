"""A small swap job as a command of its own, to be killed and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.factories import small_job

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class SmallJob:
    """A swap of small pictures in a folder of its own.

    Attributes:
        root: folder that holds all of it.
        environment: further variables of the commands.
    """

    root: Path
    environment: dict[str, str]

    @classmethod
    def make(cls, root: Path, images: int, **changes: Any) -> SmallJob:
        """Draw the pictures and write the settings."""
        # One picture a batch: what a fault hits is then one picture too.
        pools = {name: {"items": 2, "cpus": 0.3} for name in ("analyse", "swap", "finish")}
        pools["swap"]["workers"] = 1
        defaults = {"pools": pools, "tracking": {"enabled": False, "contact_sheet": 0}}
        settings = small_job(root, images, **(defaults | changes))
        (root / "swap.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
        return cls(root, {})

    def start(self, *words: str, command: str = "swap", **environment: str) -> subprocess.Popen[str]:
        """Begin a command, in a process group of its own."""
        files = [str(self.root / "swap.yaml")] if command == "swap" else [str(self.root / "out")]
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | self.environment | environment
        variables["SIMSWAP_FAILPOINTS_JOB"] = str(self.root / "job.pid")
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", command, *files, *words],
            cwd=self.root, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        (self.root / "job.pid").write_text(str(process.pid))
        return process

    def run(self, *words: str, command: str = "swap", **environment: str) -> tuple[int, dict[str, Any]]:
        """Run a command to its end: exit code and result; a killed one has none."""
        process = self.start(*words, command=command, **environment)
        stdout, stderr = process.communicate(timeout=400)
        if process.returncode == -signal.SIGKILL:
            return process.returncode, {}
        assert stdout.count("\n") == 1, stdout + stderr
        return process.returncode, json.loads(stdout) | {"stderr": stderr}


def failing(*points: str) -> Mapping[str, str]:
    """Environment of a command in which these fail points are set."""
    return {"SIMSWAP_FAILPOINTS": ",".join(points)}
