"""`simswap submit swap CONFIG.yaml [key=value ...] [--address URL | --kube OVERLAY] [--id NAME] [--detach]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.kube import KubeJobs
from cluster.manifests import make_manifests
from cluster.submission import JOBS, PASSED_ON, make_submission, paths_of, write_package
from cluster.token import find_token
from jobs.cli import main, split_own, split_words
from jobs.command import COPIES, JOB_SERVER, KUBERNETES, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import SubmitConfig
from pipeline.errors import ConfigError
from pipeline.runners.following import ask, submit
from pipeline.settings import load_settings

COMMAND = Command(
    says="give a job to a cluster",
    settings=SubmitConfig,
    words={"COMMAND": f"{', '.join(JOBS)}: what to submit", "CONFIG.yaml": SETTINGS_FILE},
    settings_of=tuple(JOBS),
    flags=True,
    reads={
        "{inputs}": "and all else that the plan of COMMAND reads; nothing with --skip-plan",
        "{kube}": "the overlay, and what it is made of",
    },
    writes={
        "{address}": f"the job server: code, networks that come with it, settings, and {', '.join(PASSED_ON)}",
        "{kube}": "nothing there, but to the cluster of kubectl's context: its objects, with the job's settings",
    },
    environment={
        **JOB_SERVER,
        **KUBERNETES,
        **STORES,
        **COPIES,
        "MLFLOW_TRACKING_URI": TRACKING["MLFLOW_TRACKING_URI"],
    },
    result={
        "status": "of the job; submitted or at_work with --detach, detached after Ctrl-C",
        "id": "name of the job",
        "entrypoint": "its command line on the cluster",
        "attempt": "how many times it was begun; on Kubernetes since it was last stopped",
        "submission_id": "what Ray calls it; with --kube the uid of its RayJob",
        "address": "job server of the cluster; with --kube `kubernetes:NAMESPACE`",
        "*?": "what the result of COMMAND has, where it was followed to its end",
    },
    plan={
        "id": "name of the job",
        "entrypoint": "its command line on the cluster",
        "variables": "names of the environment variables that go along",
        "plan": "plan of COMMAND; empty with --skip-plan",
        "manifests?": "with --kube: the objects that would be applied, the RayJob last",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Check a job here, give it to a cluster, and follow it to its end."""
    given, rest = split_own(SubmitConfig, words)
    (command, config), overrides = split_words(rest, COMMAND.words)
    if command not in JOBS:
        raise ConfigError(command, "cannot be submitted", f"One of {', '.join(JOBS)} can")
    settings = load_settings(JOBS[command], config, overrides)

    from pipeline.runners.submitting import checked, connect, warn_of_paths

    settings, plan = checked(command, settings, here=not given.skip_plan, own_tracking=given.kube is not None)
    submission = make_submission(command, settings, given)
    warn_of_paths(paths_of(submission.settings))
    facts: dict[str, Any] = {"command": "submit", "id": submission.id, "entrypoint": submission.entrypoint}
    planned = {**facts, "status": "planned", "variables": sorted(submission.variables), "plan": plan}
    if given.kube is not None:
        made = make_manifests(given.kube, submission)
        if dry_run:
            return {**planned, "manifests": [*made.shared, made.rayjob]}
        objects = {"shared": made.shared, "rayjob": made.rayjob}
        return {**submit(KubeJobs(made.namespace), objects, given, submission.id, ask()), **facts}
    if dry_run:
        return planned
    token = find_token()
    jobs = connect(given.address, token.value if token else None, allow_open=given.allow_open)
    with TemporaryDirectory(prefix="simswap-submit-") as folder:
        write_package(submission, Path(folder))
        job = {
            "entrypoint": submission.entrypoint,
            "runtime_env": {"working_dir": folder, "env_vars": dict(submission.variables)},
            "entrypoint_num_cpus": submission.cpus or None,
        }
        return {**submit(jobs, job, given, submission.id, ask()), **facts}


if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
