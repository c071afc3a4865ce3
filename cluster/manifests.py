"""A kustomize overlay made into one job: its RayJob with the job's name, command and settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.kubectl import kubectl
from cluster.launcher import unfilled
from cluster.submission import KUBE_FOLDER, SETTINGS_FILE, Submission
from pipeline.errors import ConfigError, FatalError

Tree = dict[str, Any]

JOB_LABEL = "simswap/job"
"""Label with a job's id, of everything that is made for that job alone."""

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
_EXAMPLE = "cluster/kuberay/overlays/swap is an example"


@dataclass(frozen=True, slots=True)
class Overlay:
    """A kustomize overlay that a job can be made of.

    Attributes:
        namespace: where all of it goes.
        others: its objects, without the RayJob and the ConfigMap of the job's settings.
        rayjob: its one RayJob.
        settings: the RayJob's volume with the job's settings.
    """

    namespace: str
    others: Sequence[Tree]
    rayjob: Tree
    settings: Tree


@dataclass(frozen=True, slots=True)
class Manifests:
    """What Kubernetes gets for a job.

    Attributes:
        namespace: where all of it goes.
        shared: objects that are brought up to date before, in this order, and the job's settings.
        rayjob: the job itself.
    """

    namespace: str
    shared: Sequence[Tree]
    rayjob: Tree


def read_overlay(overlay: str) -> Overlay:
    """Render an overlay, and check that it is one of a job.

    Args:
        overlay: folder of the kustomization.

    Raises:
        ConfigError: kustomize does not take the overlay, it is not one of a job, or has values that are not filled in.
    """
    objects = _render(overlay)
    rayjob = _only_rayjob(overlay, objects)
    namespace = rayjob["metadata"].get("namespace")
    if not namespace:
        raise ConfigError(overlay, "its RayJob has no namespace", "Say `namespace:` in kustomization.yaml")
    volume = _settings_volume(overlay, rayjob)
    shipped = ("ConfigMap", volume["configMap"]["name"])
    others = [tree for tree in objects if tree is not rayjob and (tree["kind"], tree["metadata"]["name"]) != shipped]
    _refuse_unfilled(overlay, [*others, rayjob])
    return Overlay(namespace, others, rayjob, volume)


def make_manifests(overlay: str, submission: Submission) -> Manifests:
    """The objects of an overlay, its RayJob made into a job of ours.

    The ConfigMap that its head mounts at `KUBE_FOLDER` is replaced by one with the job's settings. That one is named
    by job and content and cannot be changed, so an attempt never sees the settings of another. All other addresses
    and secrets are the overlay's own: of this machine's environment nothing goes along.

    Args:
        overlay: folder of the kustomization.
        submission: made for Kubernetes.

    Raises:
        ConfigError: kustomize does not take the overlay, it is not one of a job, or has values that are not filled in;
            or the job's id is no name there.
    """
    made_of = read_overlay(overlay)
    if not _NAME.fullmatch(submission.id):
        problem = "is no name of a RayJob: it begins with a letter and has 47 characters at most"
        raise ConfigError(f"id: {submission.id}", problem, "Give another --id")
    rayjob = made_of.rayjob
    labels = {"app.kubernetes.io/part-of": "simswap", JOB_LABEL: submission.id}
    settings = _settings(submission, made_of.namespace, labels)
    made_of.settings["configMap"] = {"name": settings["metadata"]["name"]}
    rayjob["metadata"]["name"] = submission.id
    rayjob["metadata"]["labels"] = {**rayjob["metadata"].get("labels", {}), **labels}
    rayjob["spec"]["entrypoint"] = submission.entrypoint
    rayjob["spec"]["runtimeEnvYAML"] = _with_variables(rayjob["spec"].get("runtimeEnvYAML", ""), submission.variables)
    return Manifests(made_of.namespace, [*made_of.others, settings], rayjob)


def _render(overlay: str) -> list[Tree]:
    if not Path(overlay).is_dir():
        raise ConfigError(overlay, "is no folder", _EXAMPLE)
    try:
        text, _ = kubectl("kustomize", str(Path(overlay).resolve()))
    except ConfigError:
        raise
    except FatalError as error:
        raise ConfigError(overlay, f"is not rendered ({error.problem})", _EXAMPLE) from error
    return [tree for tree in yaml.safe_load_all(text) if tree]


def _only_rayjob(overlay: str, objects: Sequence[Tree]) -> Tree:
    found = [tree for tree in objects if tree["kind"] == "RayJob"]
    if len(found) != 1:
        mend = f"{_EXAMPLE}; a standing cluster is submitted to with --address"
        raise ConfigError(overlay, f"has {len(found) or 'no'} RayJob{'s' * (len(found) > 1)}, not one", mend)
    return found[0]


def _settings_volume(overlay: str, rayjob: Tree) -> Tree:
    """The volume with the settings: the one that the head mounts at `KUBE_FOLDER`."""
    pod = rayjob["spec"].get("rayClusterSpec", {}).get("headGroupSpec", {}).get("template", {}).get("spec", {})
    mounts = [mount for container in pod.get("containers", [])[:1] for mount in container.get("volumeMounts", [])]
    names = {mount["name"] for mount in mounts if mount["mountPath"].rstrip("/") == KUBE_FOLDER}
    for volume in pod.get("volumes", []):
        if volume["name"] in names and "configMap" in volume:
            found: Tree = volume
            return found
    raise ConfigError(overlay, f"the head of its RayJob mounts no ConfigMap at {KUBE_FOLDER}", _EXAMPLE)


def _refuse_unfilled(overlay: str, objects: Sequence[Tree]) -> None:
    found = [f"{tree['kind']} {tree['metadata']['name']}: {where}" for tree in objects for where in unfilled(tree)]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError(overlay, f"values still read <...>: {', '.join(found[:5])}{more}", "Fill them in")


def _settings(submission: Submission, namespace: str, labels: Mapping[str, str]) -> Tree:
    text = json.dumps(submission.settings, indent=1)
    name = f"{submission.id}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "immutable": True,
        "data": {SETTINGS_FILE: text},
    }


def _with_variables(runtime_env: str, variables: Mapping[str, str]) -> str:
    """A runtime environment, as YAML, with these variables besides its own."""
    tree = yaml.safe_load(runtime_env) or {}
    return yaml.safe_dump({**tree, "env_vars": {**tree.get("env_vars", {}), **variables}})
