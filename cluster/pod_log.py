"""What a job on Kubernetes prints: the log of the pod that submitted it to its cluster, and shows its output."""

from __future__ import annotations

import codecs
import json
import subprocess
import time
from collections.abc import Callable
from tempfile import NamedTemporaryFile
from types import TracebackType

from cluster.kubectl import find_kubectl, kubectl
from pipeline.errors import FatalError
from pipeline.runners.progress import warn

READ_S = 0.5


class PodLog:
    """The log of a job's newest submitter pod, passed on as it comes; a connection that breaks is made anew.

    kubectl writes to a file that is read here, so that nothing waits for a log that stands still.

    Args:
        namespace: of the job.
        name: of the job, and of Kubernetes' Job that submits it.
        tell: takes each piece of the log, once.
    """

    def __init__(self, namespace: str, name: str, tell: Callable[[str], None]) -> None:
        self._where = ("--namespace", namespace)
        self._name = name
        self._tell = tell
        self._pod = ""
        self._told = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def begun(self) -> bool:
        """Whether anything has been passed on."""
        return self._told > 0

    def __enter__(self) -> PodLog:
        self._file = NamedTemporaryFile(prefix="simswap-log-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._file.close()

    def open(self) -> None:
        """Begin to read, or go on where the log broke off; nothing happens while it is read or no pod is there."""
        if self._process is not None and self._process.poll() is None:
            return
        self._take()
        self._close()
        if self._choose():
            command = [find_kubectl(), *self._where, "logs", "--follow", self._pod]
            with open(self._file.name, "wb") as log:  # a place of its own to write at, while we read at ours
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is a question to us, not its end
                )

    def pass_on(self, seconds: float) -> None:
        """Pass on what comes in so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._take()
            time.sleep(READ_S)
        self._take()

    def finish(self) -> None:
        """The job has ended: pass on the rest, all at once."""
        self._take()
        self._close()
        try:
            if self._pod or self._choose():
                text, _ = kubectl(*self._where, "logs", self._pod, allowed=["NotFound", "BadRequest"])
                self._new(text.encode()[self._told :])
        except FatalError as error:
            warn(f"the end of its log is missing: {error}")

    def _choose(self) -> bool:
        """Take the newest pod; the log of another than before begins at its beginning."""
        found, _ = kubectl(*self._where, "get", "pods", "--selector", f"job-name={self._name}", "--output", "json")
        pods = sorted(json.loads(found)["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        name = str(pods[-1]["metadata"]["name"]) if pods else self._pod
        if name != self._pod:
            self._pod, self._told = name, 0
            self._decoder.reset()
        return bool(pods)

    def _take(self) -> None:
        """Pass on what kubectl has written since."""
        self._file.seek(self._told)
        self._new(self._file.read())

    def _new(self, piece: bytes) -> None:
        self._told += len(piece)
        text = self._decoder.decode(piece)
        if text:
            self._tell(text)

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
