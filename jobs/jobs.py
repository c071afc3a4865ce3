"""`simswap jobs list|status|logs|stop [ID] [--address URL | --kube NAMESPACE]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cluster.kube import KubeJobs
from cluster.token import find_token
from jobs.cli import main, split_words
from jobs.command import JOB_SERVER, KUBERNETES, Command
from pipeline.config import JobsConfig
from pipeline.errors import ConfigError
from pipeline.runners.following import look_after
from pipeline.settings import load_settings

_ACTIONS = ("list", "status", "logs", "stop")

COMMAND = Command(
    says="look after the jobs of a cluster",
    settings=JobsConfig,
    words={"[ACTION]": f"{', '.join(_ACTIONS)}; list where it is left out", "[ID]": "name of a job, for all but list"},
    flags=True,
    reads={"{address}": "the job server: jobs, and what they print", "{kube}": "the same of a namespace"},
    writes={"{address}": "stop: asks the job to stop", "{kube}": "stop: deletes the job and its cluster"},
    environment={**JOB_SERVER, **KUBERNETES},
    result={
        "status": "done (list), pending, running, succeeded, failed or stopped; of logs as of the job's result",
        "jobs?": "list: of each job what status has",
        "id?": "name of the job",
        "attempt?": "how many times it was begun; on Kubernetes since it was last stopped",
        "submission_id?": "what Ray calls it; with --kube the uid of its RayJob",
        "seconds?": "s that it has run",
        "job_exit_code?": "exit code of the job; null while it runs, and where it never ran",
        "*?": "logs: what the job's result has, once it has ended",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Look at the jobs of a cluster, follow one, or end it."""
    action = words[0] if words else "list"
    if action not in _ACTIONS:
        raise ConfigError(action, "is nothing that can be done with jobs", f"One of {', '.join(_ACTIONS)} is")
    names, overrides = split_words(words[1:], [] if action == "list" else ["ID"])
    settings = load_settings(JobsConfig, None, overrides)

    name = names[0] if names else ""
    if settings.kube is not None:
        return {**look_after(KubeJobs(settings.kube), action, name, dry_run), "command": "jobs"}

    from pipeline.runners.submitting import connect

    token = find_token()
    jobs = connect(settings.address, token.value if token else None, allow_open=True)
    return {**look_after(jobs, action, name, dry_run), "command": "jobs"}


if __name__ == "__main__":
    sys.exit(main(["jobs", *sys.argv[1:]]))
