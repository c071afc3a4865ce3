"""The Kubernetes manifests as they are applied: fields, locks, references, and that they suit the program."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EvaluateConfig, Section, SwapConfig, TrainConfig
from pipeline.settings import load_settings
from tests.kuberay import OVERLAYS, Tree, cluster_of, overlay, pods, schema_problem, security_problems

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("name", sorted(path.name for path in OVERLAYS.iterdir()))
JOBS = pytest.mark.parametrize(
    ("name", "kind"), [("swap", SwapConfig), ("train", TrainConfig), ("evaluate", EvaluateConfig)]
)
SECRETS = {"simswap-object-store", "simswap-redis"}
"""Secrets that are not in the manifests: people make them, docs/cluster.md says how."""


@EVERY
def test_kubernetes_and_kuberay_know_every_field(name: str) -> None:
    assert schema_problem(overlay(name)) is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda o: cluster_of(o).update(enableInTreeAutoscalling=True), "enableInTreeAutoscalling"),
        (lambda o: cluster_of(o)["autoscalerOptions"].update(version="v3"), "v3"),
        (lambda o: cluster_of(o)["workerGroupSpecs"][0].pop("maxReplicas"), "maxReplicas"),
        (lambda o: cluster_of(o)["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "not of type 'string'"),
        (lambda o: cluster_of(o)["workerGroupSpecs"][1]["template"]["spec"].update(tollerations=[]), "tollerations"),
        (lambda o: cluster_of(o)["autoscalerOptions"]["securityContext"].update(readonly=True), "readonly"),
        (lambda o: job(o)["spec"].update(ttlSecondsAfterFinnished=1), "ttlSecondsAfterFinnished"),
        (lambda o: job(o)["spec"].update(submissionMode="Job"), "Job"),
        (lambda o: of_kind(o, "NetworkPolicy")["spec"].update(ingres=[]), "ingres"),
    ],
)
def test_a_planted_error_is_found(fault: Callable[[list[Tree]], None], message: str) -> None:
    objects = copy.deepcopy(overlay("swap"))
    fault(objects)
    assert message in (schema_problem(objects) or "nothing")


@EVERY
def test_no_pod_may_do_more_than_it_must(name: str) -> None:
    found = {pod: security_problems(template) for pod, template in pods(overlay(name))}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "fault",
    [
        lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        lambda spec: spec["securityContext"].pop("seccompProfile"),
        lambda spec: spec.pop("automountServiceAccountToken"),
        lambda spec: spec.update(hostNetwork=True),
        lambda spec: spec["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
        lambda spec: spec["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
        lambda spec: spec["containers"][0]["volumeMounts"].clear(),
    ],
)
def test_a_pod_that_may_do_more_is_found(fault: Callable[[Tree], None]) -> None:
    _, template = next(iter(pods(copy.deepcopy(overlay("gpu")))))
    fault(template["spec"])
    assert security_problems(template)


@EVERY
def test_only_the_autoscaler_gets_at_the_kubernetes_api(name: str) -> None:
    for _, template in pods(overlay(name)):
        holders = [
            container["name"]
            for container in template["spec"]["containers"]
            for mount in container["volumeMounts"]
            if "serviceaccount" in mount["mountPath"]
        ]
        assert holders == ([] if template["spec"]["containers"][-1]["name"] != "autoscaler" else ["autoscaler"])


@EVERY
def test_other_namespaces_reach_neither_gcs_nor_dashboard(name: str) -> None:
    spec = of_kind(overlay(name), "NetworkPolicy")["spec"]
    chosen = spec["podSelector"]["matchLabels"]
    for pod, template in pods(overlay(name)):
        assert chosen.items() <= template["metadata"]["labels"].items(), pod
    own, operator = spec["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (peer,) = operator["from"]
    assert peer.keys() == {"namespaceSelector", "podSelector"}


@EVERY
def test_what_is_referred_to_is_there_and_no_secret_is(name: str) -> None:
    objects = overlay(name)
    there = {(tree["kind"], tree["metadata"]["name"]) for tree in objects}
    assert not [kind for kind, _ in there if kind == "Secret"]
    there |= {("Secret", secret) for secret in SECRETS} | {("ConfigMap", "kube-root-ca.crt")}
    asked = set(references(objects))
    assert asked <= there
    assert {("ServiceAccount", "simswap-head"), ("ServiceAccount", "simswap-worker")} <= asked
    assert {tree["metadata"].get("namespace") for tree in objects if tree["kind"] != "Namespace"} == {"simswap"}


@EVERY
def test_the_cluster_suits_the_ray_that_is_installed_and_its_own_memory(name: str) -> None:
    cluster = cluster_of(overlay(name))
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        spec = group["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] == 120
        (shared,) = [volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm"]
        store, memory = (
            int(group["rayStartParams"]["object-store-memory"]),
            spec["containers"][0]["resources"]["limits"],
        )
        assert shared["medium"] == "Memory"
        assert store < gibibytes(shared["sizeLimit"]) < gibibytes(memory["memory"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve, which its command line loads
def test_ray_start_takes_every_parameter() -> None:
    from ray.scripts.scripts import start

    known = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
    cluster = cluster_of(overlay("gpu"))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert group["rayStartParams"].keys() <= known


@pytest.mark.parametrize(("name", "groups"), [("cpu", ["cpu"]), ("gpu", ["cpu", "gpu"]), ("swap", ["cpu", "gpu"])])
def test_workers_scale_from_nothing_and_gpus_may_be_spot(name: str, groups: list[str]) -> None:
    cluster = cluster_of(overlay(name))
    assert cluster["enableInTreeAutoscaling"]
    assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == groups
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0
        spec = group["template"]["spec"]
        gpus = spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert (gpus == "1") == ("tolerations" in spec) == (group["groupName"] == "gpu")
        assert f"/simswap-ray-{group['groupName']}:" in spec["containers"][0]["image"]


def test_a_standing_cluster_outlives_its_head_and_a_jobs_own_goes_with_it() -> None:
    for name in ("cpu", "gpu"):
        assert "gcsFaultToleranceOptions" in cluster_of(overlay(name))
    for name in ("swap", "train", "evaluate"):
        assert "gcsFaultToleranceOptions" not in cluster_of(overlay(name))
        spec = job(overlay(name))["spec"]
        assert spec["shutdownAfterJobFinishes"]
        assert spec["backoffLimit"] == 3


@JOBS
def test_the_settings_of_a_job_are_the_programs_own(name: str, kind: type[Section], tmp_path: Path) -> None:
    objects = overlay(name)
    (text,) = [
        tree["data"][f"{name}.yaml"]
        for tree in objects
        if tree["metadata"]["name"] == f"simswap-{name}" and "data" in tree
    ]
    (tmp_path / "job.yaml").write_text(text)
    settings: Any = load_settings(kind, str(tmp_path / "job.yaml"), [])
    assert settings.ray.address == "auto"
    assert job(objects)["spec"]["entrypoint"] == f"simswap {name} /etc/simswap/{name}.yaml"
    mounts = cluster_of(objects)["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "settings", "mountPath": "/etc/simswap", "readOnly": True} in mounts
    need = needed(settings)
    most = {"CPU": 0.0, "GPU": 0.0}
    for group in cluster_of(objects)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        most["CPU"] += group["maxReplicas"] * float(limits["cpu"])
        most["GPU"] += group["maxReplicas"] * float(limits.get("nvidia.com/gpu", 0))
    assert 0 < need["GPU"] <= most["GPU"]
    assert need["CPU"] <= most["CPU"]


def needed(settings: Any) -> dict[str, float]:
    """What the pools of a swap, the workers of a training and their loaders, or an evaluation reserve at once."""
    if isinstance(settings, SwapConfig):
        every = (settings.pools.analyse, settings.pools.swap, settings.pools.finish)
        return {"CPU": sum(p.workers * p.cpus for p in every), "GPU": sum(p.workers * p.gpus for p in every)}
    if isinstance(settings, EvaluateConfig):
        return {"CPU": settings.worker.cpus, "GPU": settings.worker.gpus}
    workers, feed = settings.workers, settings.feed
    each = workers.cpus + feed.loaders * feed.loader_cpus
    return {"CPU": workers.workers * each, "GPU": workers.workers * workers.gpus}


def test_the_guide_names_every_secret_and_every_overlay() -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text()
    for name in [*SECRETS, *(f"overlays/{path.name}" for path in OVERLAYS.iterdir())]:
        assert name in guide, name


def job(objects: list[Tree]) -> Tree:
    return of_kind(objects, "RayJob")


def of_kind(objects: list[Tree], kind: str) -> Tree:
    (found,) = [tree for tree in objects if tree["kind"] == kind]
    return found


def gibibytes(quantity: str) -> int:
    """`3Gi` in bytes."""
    match = re.fullmatch(r"(\d+)Gi", quantity)
    assert match, quantity
    return int(match[1]) * 2**30


def references(value: object) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that a tree refers to."""
    kinds = {"configMapRef": "ConfigMap", "configMap": "ConfigMap", "secretRef": "Secret", "secretKeyRef": "Secret"}
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in kinds:
                yield kinds[key], inner["name"]
            if key == "serviceAccountName":
                yield "ServiceAccount", inner
        value = list(value.values())
    for inner in value if isinstance(value, list) else []:
        yield from references(inner)
