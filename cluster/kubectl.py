"""kubectl, as it is on this machine: it knows the cluster and how to prove who asks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection

from pipeline.errors import ConfigError, FatalError

_TIMEOUT_S = 120.0
_REASON = re.compile(r"Error from server \((\w+)\)")


def find_kubectl() -> str:
    """The path of kubectl.

    Raises:
        ConfigError: there is none.
    """
    found = shutil.which("kubectl")
    if found is None:
        raise ConfigError("kubectl", "is not on PATH", "Install it; --kube speaks to Kubernetes through it alone")
    return found


def kubectl(*words: str, given: str = "", allowed: Collection[str] = ()) -> tuple[str, str]:
    """Run kubectl once.

    Args:
        words: of its command line.
        given: its standard input.
        allowed: reasons for which the API server may refuse, for example `NotFound`.

    Returns:
        Standard output, and the reason of a refusal that is allowed; otherwise the reason is empty.

    Raises:
        ConfigError: there is no kubectl.
        FatalError: it failed for another reason, or takes minutes.
    """
    command = [find_kubectl(), *words]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FatalError(f"kubectl {words[0]}", f"no answer in {_TIMEOUT_S:g} s", _MEND) from error
    reason = _REASON.search(done.stderr)
    if done.returncode and not (reason and reason[1] in allowed):
        raise FatalError(f"kubectl {words[0]}", _said(done.stderr), _MEND)
    return done.stdout, reason[1] if done.returncode and reason else ""


_MEND = "The same kubectl command by hand shows more; `kubectl config current-context` says which cluster it means"


def _said(stderr: str) -> str:
    """The line of an error that says what it is: klog's come before it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not re.match(r"[EWI]\d{4} ", line)]
    return (next((line for line in lines if re.match(r"(?i)error", line)), "") or "".join(lines[:1]) or "failed")[:500]
