"""Settings of the commands that talk to a cluster: `submit` and `jobs`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, model_validator

from pipeline.config.base import Section, unit

JobId = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$")]


class SubmitConfig(Section):
    """Settings of `simswap submit`, besides those of the job; given as `--name value`."""

    address: str | None = None
    """Job server of the cluster, `http://HEAD:8265` or `https://…`. None takes RAY_API_SERVER_ADDRESS, then
    RAY_ADDRESS if it is one, then `http://127.0.0.1:8265`, where a tunnel to the cluster would end."""
    id: JobId | None = None
    """Name of the job: there is never a second copy of it at work. None makes one of the command and its settings."""
    detach: bool = False
    """Return as soon as the cluster has the job, instead of following it to its end."""
    skip_plan: bool = False
    """Do not check the plan from here: for inputs and models that only the cluster can see."""
    allow_open: bool = False
    """Submit to a cluster that anybody may submit to: one without token authentication, on another machine."""
    python: str = "python"
    """The cluster's Python, which has what the project needs installed: a name on its PATH, or a path."""
    cpus: Annotated[NonNegativeFloat, unit("CPUs")] = 0.0
    """CPUs that the job's own process reserves. 0 places it on the head; more places it on a worker with room."""
    kube: str | None = None
    """Folder of a kustomize overlay with one RayJob (cluster/kuberay/overlays/swap or train, filled in): the job goes
    to Kubernetes by kubectl and gets a cluster of its own. None submits to the job server of a cluster."""

    @model_validator(mode="after")
    def _one_kind_of_cluster(self) -> Self:
        _refuse_beside_kube(self, "address", "allow_open", "python", "cpus")
        return self


class DoctorConfig(Section):
    """Settings of `simswap doctor`, besides those of a job; given as `--name value`."""

    address: str | None = None
    """Job server of the cluster that a job would go to. None takes the environment's, else looks at this machine."""
    kube: str | None = None
    """Folder of the kustomize overlay that `simswap submit --kube` would be given: looks at Kubernetes, by kubectl."""

    @model_validator(mode="after")
    def _one_kind_of_cluster(self) -> Self:
        _refuse_beside_kube(self, "address")
        return self


class JobsConfig(Section):
    """Settings of `simswap jobs`; given as `--name value`."""

    address: str | None = None
    """As of `simswap submit`."""
    kube: str | None = None
    """Namespace on Kubernetes: the jobs there that `simswap submit --kube` made, asked for by kubectl. None asks a
    job server."""

    @model_validator(mode="after")
    def _one_kind_of_cluster(self) -> Self:
        _refuse_beside_kube(self, "address")
        return self


def _refuse_beside_kube(settings: Section, *names: str) -> None:
    """Check that settings of a job server are not given together with `kube`.

    Raises:
        ValueError: they are.
    """
    given = [f"--{name.replace('_', '-')}" for name in names if name in settings.model_fields_set]
    if getattr(settings, "kube", None) is not None and given:
        raise ValueError(f"{', '.join(given)} cannot be given with --kube: that is for job servers; leave one out")
