"""`simswap submit swap CONFIG.yaml [key=value ...] [--address URL] [--id NAME] [--detach]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.submission import JOBS, make_submission, paths_of, write_package
from cluster.token import find_token
from jobs.cli import main, split_words
from pipeline.config import SubmitConfig
from pipeline.errors import ConfigError
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Check a job here, give it to a cluster, and follow it to its end."""
    own = [word for word in words if word.partition("=")[0] in SubmitConfig.model_fields]
    given = load_settings(SubmitConfig, None, own)
    (command, config), overrides = split_words([w for w in words if w not in own], ["COMMAND", "CONFIG.yaml"])
    if command not in JOBS:
        raise ConfigError(command, "cannot be submitted", f"One of {', '.join(JOBS)} can")
    settings = load_settings(JOBS[command], config, overrides)

    from pipeline.runners.submitting import ask, checked, connect, submit, warn_of_paths

    settings, plan = checked(command, settings, here=not given.skip_plan)
    submission = make_submission(command, settings, given)
    warn_of_paths(paths_of(submission.settings))
    facts = {"command": "submit", "id": submission.id, "entrypoint": submission.entrypoint}
    if dry_run:
        return {**facts, "status": "planned", "variables": sorted(submission.variables), "plan": plan}
    token = find_token()
    jobs = connect(given.address, token.value if token else None, allow_open=given.allow_open)
    with TemporaryDirectory(prefix="simswap-submit-") as folder:
        write_package(submission, Path(folder))
        job = {
            "entrypoint": submission.entrypoint,
            "runtime_env": {"working_dir": folder, "env_vars": dict(submission.variables)},
            "entrypoint_num_cpus": submission.cpus or None,
        }
        return {**facts, **submit(jobs, job, given, submission.id, ask())}


if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
