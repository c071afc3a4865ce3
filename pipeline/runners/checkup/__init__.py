"""Whether a job could run: everything it needs, looked at one by one, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Section
from pipeline.runners.checkup.check import Check, Level, worst
from pipeline.runners.checkup.cluster import check_cluster, check_token
from pipeline.runners.checkup.machine import check_machine
from pipeline.runners.checkup.subjects import Subjects, check_subjects, subjects_of
from pipeline.runners.ray_jobs import has_address, job_server


def examine(
    settings: Section | None, address: str | None, token: str | None, *, elsewhere: bool = False
) -> Iterator[Check]:
    """Look at everything.

    Args:
        settings: of a job; None looks at what every job needs.
        address: job server of the cluster that it would go to; None takes the environment's, else this machine.
        token: for the cluster.
        elsewhere: the job would go to a cluster that is looked at by somebody else.
    """
    subjects = subjects_of(settings)
    remote = has_address(address) and not elsewhere
    yield from check_machine(subjects.ray, subjects.needs, subjects.folders(), embedded=not (remote or elsewhere))
    if remote:
        yield from check_cluster(job_server(address), token)
    yield from check_subjects(subjects)


__all__ = ["Check", "Level", "Subjects", "check_token", "examine", "worst"]
