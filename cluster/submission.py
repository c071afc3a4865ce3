"""What is submitted: the code and one settings file, and nothing else of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import EvaluateConfig, PrepareConfig, Section, SubmitConfig, SwapConfig, TrainConfig
from pipeline.redaction import has_password

JOBS: dict[str, type[Section]] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "swap": SwapConfig,
}
"""Commands that can be submitted, with their settings."""

SETTINGS_FILE = "job.json"

KUBE_FOLDER = "/etc/simswap"
"""Where the settings are on a head that Kubernetes starts."""

PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_URI")
"""Environment variables that go along. None of them is a secret: keys are the cluster's own (an instance role, a
mounted secret), and no other variable leaves this machine."""

GRACE_S = 120
"""Seconds from SIGTERM to SIGKILL when a job is stopped: training saves a checkpoint first."""

_CODE = ("pipeline", "jobs", "cluster")
_KINDS = (".py", ".yaml", ".onnx", ".safetensors")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job on its way to a cluster.

    Attributes:
        id: its name; the same command with the same settings has the same.
        command: one of `JOBS`.
        settings: of the job, resolved.
        entrypoint: the command line on the cluster.
        variables: of its environment.
        cpus: that its own process reserves.
    """

    id: str
    command: str
    settings: Mapping[str, Any]
    entrypoint: str
    variables: Mapping[str, str]
    cpus: float


def make_submission(command: str, settings: Section, given: SubmitConfig) -> Submission:
    """A job as it is submitted.

    Args:
        command: one of `JOBS`.
        settings: of the job, with addresses that hold on the cluster.
        given: how it is submitted.
    """
    tree = settings.model_dump(mode="json")
    tree["ray"]["address"] = tree["ray"]["address"] or "auto"
    words = json.dumps([command, tree], sort_keys=True)
    name = given.id or f"{command}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    entrypoint = f"{shlex.quote(given.python)} -m jobs {command} {SETTINGS_FILE}"
    variables = {
        name: os.environ[name] for name in PASSED_ON if os.environ.get(name) and not has_password(os.environ[name])
    }
    if given.kube is not None:  # the image has the code, the overlay has the addresses
        entrypoint, variables = f"simswap {command} {KUBE_FOLDER}/{SETTINGS_FILE}", {}
    variables |= {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_S), "SIMSWAP_JOB_ID": name}
    return Submission(name, command, tree, entrypoint, variables, given.cpus)


def write_package(submission: Submission, folder: Path) -> None:
    """Fill a folder with what the job needs: code, networks that come with it, settings.

    An allow-list: a `.env`, a key or a notebook that lies beside the code stays where it is.
    """
    root = Path(__file__).resolve().parents[1]
    for package in _CODE:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if (
                path.is_file()
                and not path.is_symlink()
                and not hidden
                and (path.suffix in _KINDS or path.name == "LICENSE")
            ):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
    (folder / SETTINGS_FILE).write_text(json.dumps(submission.settings, indent=1), encoding="utf-8")


def paths_of(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that are absolute paths, by their dotted names: files that every node, or the head, has to see."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= paths_of(value, f"{prefix}{name}.")
        elif isinstance(value, str) and value.startswith(("/", "sqlite:////")):
            found[prefix + name] = value
    return found
