"""Commands as processes of their own, most of them forked off one that has imported everything.

Importing torch, Ray and MLflow takes ten seconds, and the tests of this folder start a hundred commands.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


class Command:
    """A command that runs, in a process group of its own.

    Args:
        pid: of its process.
        folder: where its output goes, and its exit code in the end.
        parent: of its process, where that is this one.
    """

    def __init__(self, pid: int, folder: Path, parent: subprocess.Popen[bytes] | None = None) -> None:
        self.pid, self._folder, self._process = pid, folder, parent
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._process is not None:
            self.returncode = self._process.poll()
        elif (self._folder / "code").exists():
            self.returncode = int((self._folder / "code").read_text())
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its exit code.

        Raises:
            TimeoutError: it runs longer.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} runs for more than {timeout:g} s:\n{self.said()[1][-3000:]}")
            time.sleep(0.05)
        return code

    def said(self) -> tuple[str, str]:
        """What is on stdout and stderr so far."""
        return (self._folder / "stdout").read_text(), (self._folder / "stderr").read_text()

    def communicate(self, timeout: float = 600.0) -> tuple[str, str]:
        """Wait for its end; what it has said.

        Raises:
            TimeoutError: it runs longer.
        """
        self.wait(timeout)
        return self.said()

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def spawn(words: Sequence[str], cwd: str, environment: Mapping[str, str]) -> Command:
    """Begin a command as a shell does."""
    folder = Path(mkdtemp(prefix="command-"))
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *words],
            cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
        )  # fmt: skip
    return Command(process.pid, folder, process)


def fork(words: Sequence[str], cwd: str, environment: Mapping[str, str]) -> Command:
    """Begin a command with everything imported."""
    folder = mkdtemp(prefix="command-")
    order = {"words": list(words), "cwd": cwd, "environment": dict(environment), "folder": folder}
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return Command(int(server.stdout.readline()), Path(folder))


@cache
def _server() -> subprocess.Popen[str]:
    command, variables = [sys.executable, "-m", "tests.faults.commands"], os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        command, cwd=ROOT, env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(server.terminate)
    return server


def _serve() -> None:
    """Begin a command for every line on stdin, and tell its process on stdout."""
    import pipeline.runners.upkeep  # noqa: F401 - all that commands need

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    for line in sys.stdin:
        if not os.fork():
            _watch(json.loads(line))


def _watch(order: Mapping[str, Any]) -> NoReturn:
    """Begin a command, and write down how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        _run(order)
    os.write(1, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    unfinished = Path(order["folder"], "unfinished")
    unfinished.write_text(str(code))
    unfinished.rename(Path(order["folder"], "code"))
    os._exit(0)


def _run(order: Mapping[str, Any]) -> NoReturn:
    """Be the command."""
    from jobs.cli import main

    code = 1
    try:
        os.setsid()
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environment"])
        files = [os.open(Path(order["folder"], name), os.O_WRONLY | os.O_CREAT) for name in ("stdout", "stderr")]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        code = main(order["words"])
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
