"""What leaves the laptop with a submitted job: the code, one file of settings, five variables, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import submission
from cluster.submission import SETTINGS_FILE, make_submission, paths_of, write_package
from pipeline.config import SubmitConfig, SwapConfig

SECRET = "canary-of-this-laptop"
ROOT = Path(__file__).resolve().parents[2]


def settings(**changes: object) -> SwapConfig:
    given = {"inputs": "s3://a/in", "output": "s3://a/out", "source": "/photos/x.jpg", "models": "buffalo_l"}
    return SwapConfig.model_validate({**given, "swapper": {"passthrough": True}, **changes})


def test_only_variables_that_are_no_secrets_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HOME"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@db/mlflow")
    made = make_submission("swap", settings(), SubmitConfig())
    assert SECRET not in json.dumps([made.variables, made.settings, made.entrypoint])
    assert made.variables["AWS_ENDPOINT_URL"] == "http://store:9000"


def test_the_same_command_has_the_same_name_and_another_another() -> None:
    first, again = (make_submission("swap", settings(), SubmitConfig()) for _ in range(2))
    assert first.id == again.id
    assert first.id != make_submission("swap", settings(layout="shards"), SubmitConfig()).id
    assert make_submission("swap", settings(), SubmitConfig(id="mine")).id == "mine"
    with pytest.raises(ValueError, match="id"):
        SubmitConfig(id="Not a name")


def test_what_a_user_says_is_no_shell_command() -> None:
    made = make_submission("swap", settings(), SubmitConfig(python="/a b/python; rm -rf"))
    assert made.entrypoint == f"'/a b/python; rm -rf' -m jobs swap {SETTINGS_FILE}"


def test_a_job_runs_on_the_cluster_it_is_submitted_to() -> None:
    made = make_submission("swap", settings(), SubmitConfig())
    assert made.settings["ray"]["address"] == "auto"
    assert paths_of(made.settings) == {"source": "/photos/x.jpg"}


def test_the_package_runs_by_itself_and_has_nothing_that_lies_beside_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "checkout"
    for folder in ("pipeline", "jobs", "cluster"):
        shutil.copytree(ROOT / folder, beside / folder)
    for name in (".env", "jobs/.aws", "jobs/id_rsa", "pipeline/key.pem", "pipeline/notes.ipynb", "pipeline/data.csv"):
        (beside / name).write_text(SECRET)
    (beside / "jobs" / "link.py").symlink_to(beside / ".env")
    monkeypatch.setattr(submission, "__file__", str(beside / "cluster" / "submission.py"))
    package = tmp_path / "package"
    package.mkdir()
    write_package(make_submission("swap", settings(), SubmitConfig()), package)
    files = [path for path in package.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert sum(path.stat().st_size for path in files) < 50_000_000
    command = [sys.executable, "-m", "jobs", "describe", "swap"]
    done = subprocess.run(command, cwd=package, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SwapConfig.model_validate_json((package / SETTINGS_FILE).read_text()).ray.address == "auto"
