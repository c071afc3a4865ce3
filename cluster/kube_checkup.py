"""Whether a job could go to Kubernetes: looked at from here, by kubectl; nothing is changed there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from cluster.kubectl import find_kubectl, kubectl
from cluster.manifests import Overlay, read_overlay
from pipeline.errors import ConfigError, FatalError, RefusedError, SimSwapError

Look = Callable[[], str]

_RIGHTS = (
    ("create", "ray.io", "rayjobs"),
    ("get", "ray.io", "rayjobs"),
    ("list", "ray.io", "rayjobs"),
    ("delete", "ray.io", "rayjobs"),
    ("create", "", "configmaps"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
"""What `submit --kube` and `jobs --kube` do: verb, group, resource."""

_REFERENCES = {"secretKeyRef": "name", "secretRef": "name", "secret": "secretName"}
"""Where a pod names a secret that it needs -> the field with its name."""


def kube_looks(overlay: str) -> Iterator[tuple[str, Look]]:
    """What to look at, in order: name of the thing, and a call that says how it is.

    A look raises a `SimSwapError` where something is wrong. What could only be wrong for the same reason is not yielded
    then.

    Args:
        overlay: folder of the kustomization that `submit --kube` would be given.
    """
    yield "kubectl", _context
    yield "overlay", lambda: f"{overlay}: a job in namespace {read_overlay(overlay).namespace}"
    try:
        found = read_overlay(overlay)
        _context()
    except SimSwapError:
        return
    yield "kuberay", partial(_kuberay, found.namespace)
    yield "rights", partial(_rights, found.namespace)
    yield "secrets", partial(_secrets, found)


def _context() -> str:
    text, _ = kubectl("config", "current-context")
    return f"{find_kubectl()}, context {text.strip()}"


def _kuberay(namespace: str) -> str:
    try:
        kubectl("get", "rayjobs.v1.ray.io", "--namespace", namespace, "--output", "name")
    except FatalError as error:
        if "have a resource type" not in error.problem:
            raise
        raise ConfigError(
            "kuberay", "the cluster knows no RayJob of ray.io/v1", "Install the KubeRay operator"
        ) from error
    return "the cluster knows RayJobs"


def _rights(namespace: str) -> str:
    asked = [_review(namespace, *right) for right in _RIGHTS]
    text, _ = kubectl(
        "create", "--filename", "-", "--output", 'jsonpath={.status.allowed}{"\\n"}', given="\n---\n".join(asked)
    )
    answers = dict(zip(_RIGHTS, text.splitlines(), strict=False))
    missing = [f"{right[0]} {right[2]}" for right in _RIGHTS if answers.get(right) != "true"]  # unanswered is refused
    if missing:
        problem = f"this user may not {', '.join(missing)} in namespace {namespace}"
        raise RefusedError("rights", problem, "Have them granted by a Role and a RoleBinding")
    return f"jobs may be made, followed and stopped in namespace {namespace}"


def _review(namespace: str, verb: str, group: str, resource: str) -> str:
    resource, _, part = resource.partition("/")
    what = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
    return json.dumps(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what},
        }
    )


def _secrets(overlay: Overlay) -> str:
    shipped = {tree["metadata"]["name"] for tree in overlay.others if tree["kind"] == "Secret"}
    named = sorted({*_secrets_in([overlay.rayjob, *overlay.others])} - shipped)
    reasons = {name: _reason(name, overlay.namespace) for name in named}
    missing = [name for name in named if reasons[name] == "NotFound"]
    if missing:
        problem = f"namespace {overlay.namespace} has no secret {', '.join(missing)}, which the overlay's pods need"
        raise ConfigError("secrets", problem, "Make them: docs/cluster.md says how")
    unseen = [name for name in named if reasons[name]]
    return f"{', '.join(unseen)} may not be looked at" if unseen else f"{', '.join(named) or 'none needed'}"


def _reason(name: str, namespace: str) -> str:
    """Why a secret is not shown; empty where it is there."""
    words = ("get", "secret", name, "--namespace", namespace, "--output", "name")
    return kubectl(*words, allowed=("NotFound", "Forbidden"))[1]


def _secrets_in(tree: Any) -> Iterator[str]:
    """Names of secrets that pods cannot do without."""
    if isinstance(tree, Mapping):
        for kind, field in _REFERENCES.items():
            found = tree.get(kind)
            if isinstance(found, Mapping) and field in found and not found.get("optional"):
                yield str(found[field])
        yield from (str(one["name"]) for one in tree.get("imagePullSecrets") or ())
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _secrets_in(value)
