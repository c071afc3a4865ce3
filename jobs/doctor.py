"""`simswap doctor [COMMAND CONFIG.yaml [key=value ...]] [--address URL | --kube OVERLAY]`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cluster.kube_checkup import kube_looks
from cluster.submission import JOBS
from cluster.token import find_token
from jobs.cli import main, split_own, split_words
from jobs.command import COPIES, JOB_SERVER, KUBERNETES, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import DoctorConfig, Section
from pipeline.errors import ConfigError
from pipeline.settings import load_settings

COMMAND = Command(
    says="look for what would stop a job, here or on a cluster",
    settings=DoctorConfig,
    words={"[COMMAND]": f"{', '.join(JOBS)}: the job; without it what every job needs", "[CONFIG.yaml]": SETTINGS_FILE},
    settings_of=tuple(JOBS),
    flags=True,
    reads={
        "this machine": "packages, GPUs, memory, disk",
        "{address}": "the job server: who may use it, which Ray it is",
        "{kube}": "the overlay; of kubectl's context RayJobs, rights and whether secrets are there",
        "{inputs}": "a listing; the same of all other stores",
        "{models}": "model packs, checkpoint, sources, MLflow: whether they can be used",
    },
    environment={**JOB_SERVER, **KUBERNETES, **STORES, **COPIES, **TRACKING},
    result={
        "status": "done, or failed where there is a fault",
        "found": "level (ok, skipped, warning, fault) -> how many",
        "checks": "for each thing its name, level, what was found (says) and what to do about it (mend)",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Look at everything a job needs, here or on a cluster; changes nothing."""
    given, rest = split_own(DoctorConfig, words)
    settings: Section | None = None
    if rest:
        (command, config), overrides = split_words(rest, ["COMMAND", "CONFIG.yaml"])
        if command not in JOBS:
            raise ConfigError(command, "is no job", f"One of {', '.join(JOBS)} is")
        settings = load_settings(JOBS[command], config, overrides)

    from pipeline.runners.checkup import Check, check_token, examine, worst
    from pipeline.runners.progress import say

    checks: list[Check] = []

    def note(check: Check) -> None:
        checks.append(check)
        say("check", **check.facts(), message=str(check))

    value = None
    if given.kube is not None:
        for name, look in kube_looks(given.kube):
            note(Check.tried(name, look))
    else:
        try:
            token = find_token()
            value = token.value if token else None
            origin, open_to_others = (token.origin, token.open_to_others) if token else (None, False)
            note(check_token(origin, open_to_others=open_to_others))
        except ConfigError as error:
            note(Check.of("token", error))
    for check in examine(settings, given.address, value, elsewhere=given.kube is not None):
        note(check)
    found = Counter(check.level for check in checks)
    status = "failed" if worst(checks) == "fault" else "done"
    return {"command": "doctor", "status": status, "found": dict(found), "checks": [check.facts() for check in checks]}


if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
