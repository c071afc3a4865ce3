"""What is checked on the laptop before a job goes to a cluster, and whether that cluster may have it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pipeline.config import Section
from pipeline.errors import RefusedError
from pipeline.redaction import has_password
from pipeline.runners.progress import warn
from pipeline.runners.ray_jobs import RayJobs, is_loopback, is_open, job_server

_PLANS = {
    "prepare": ("preparation_plan", "plan_preparation", "describe_preparation"),
    "train": ("training_plan", "plan_training", "describe_training"),
    "evaluate": ("evaluation_plan", "plan_evaluation", "describe_evaluation"),
    "swap": ("planning", "plan_job", "describe_plan"),
}
"""Of each command the module that plans it, and its functions; only that one is loaded: each takes seconds."""


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
    module, plan, describe = _PLANS[command]
    plans = importlib.import_module(f"pipeline.runners.{module}")
    absolute = plans.with_absolute_paths(settings)
    given: Any = settings
    uri: str | None = given.tracking.uri if own_tracking else absolute.tracking.address()
    if has_password(str(uri)):
        warn("MLFLOW_TRACKING_URI holds a password and does not go along: the cluster has to have its own")
        uri = None
    tracking = absolute.tracking.model_copy(update={"uri": uri})
    absolute = absolute.model_copy(update={"tracking": tracking})
    return absolute, getattr(plans, describe)(getattr(plans, plan)(absolute)) if here else {}


def warn_of_paths(paths: Mapping[str, str]) -> None:
    """Say which settings are paths: they have to be the same on every node of the cluster."""
    if paths:
        named = ", ".join(f"{name}={path}" for name, path in paths.items())
        warn(f"paths, which every node of the cluster has to see: {named}. Addresses (s3://…) need nothing shared")
