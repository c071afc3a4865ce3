"""What is checked on the laptop before a job goes to a cluster, and whether that cluster may have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import Section
from pipeline.errors import RefusedError
from pipeline.redaction import has_password
from pipeline.runners.planning import with_absolute_paths as swap_paths
from pipeline.runners.preparation import run_prepare
from pipeline.runners.preparation_plan import with_absolute_paths as prepare_paths
from pipeline.runners.progress import warn
from pipeline.runners.ray_jobs import RayJobs, is_loopback, is_open, job_server
from pipeline.runners.swapping import run_swap
from pipeline.runners.tracking import tracking_uri
from pipeline.runners.training import run_training
from pipeline.runners.training_plan import with_absolute_paths as train_paths

_PLANS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, bool], dict[str, Any]]]] = {
    "prepare": (prepare_paths, run_prepare),
    "train": (train_paths, run_training),
    "swap": (swap_paths, run_swap),
}
"""Of each command: settings with absolute paths, and what runs it, or plans it."""


def connect(address: str | None, token: str | None, *, allow_open: bool) -> RayJobs:
    """The jobs of a cluster that it is safe to talk to.

    Raises:
        RefusedError: anybody may run code there; or it does not take the token.
        FatalError: no answer.
    """
    server = job_server(address)
    if not is_loopback(server):
        if is_open(server) and not allow_open:
            problem = "the cluster takes jobs from anybody: it asks for no token"
            mend = "Start it with RAY_AUTH_MODE=token, or say --allow-open where nobody else can reach it"
            raise RefusedError(server, problem, mend)
        if server.startswith("http://") and token:
            warn(f"{server}: the token travels unencrypted; a tunnel (ray dashboard, kubectl port-forward) hides it")
    return RayJobs(server, token)


def checked(
    command: str, settings: Section, *, here: bool, own_tracking: bool = False
) -> tuple[Section, dict[str, Any]]:
    """Settings as they hold wherever the job runs, and its plan.

    Args:
        command: one that can be submitted.
        settings: of the job.
        here: look at inputs and models, for the plan; else it is empty.
        own_tracking: where tracking.uri is null the cluster's MLFLOW_TRACKING_URI counts, not this machine's.

    Raises:
        FatalError: whatever the plan finds.
    """
    with_absolute_paths, run = _PLANS[command]
    absolute = with_absolute_paths(settings)
    given: Any = settings
    uri: str | None = given.tracking.uri if own_tracking else tracking_uri(absolute.tracking)
    if has_password(str(uri)):
        warn("MLFLOW_TRACKING_URI holds a password and does not go along: the cluster has to have its own")
        uri = None
    tracking = absolute.tracking.model_copy(update={"uri": uri})
    absolute = absolute.model_copy(update={"tracking": tracking})
    return absolute, run(absolute, True) if here else {}


def warn_of_paths(paths: Mapping[str, str]) -> None:
    """Say which settings are paths: they have to be the same on every node of the cluster."""
    if paths:
        named = ", ".join(f"{name}={path}" for name, path in paths.items())
        warn(f"paths, which every node of the cluster has to see: {named}. Addresses (s3://…) need nothing shared")
