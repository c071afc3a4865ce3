"""The container image, as far as it can be tried without an engine: what goes in, who runs it, what is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "cluster" / "image" / "Dockerfile"
SECRET = re.compile(r"secret|token|passw|credential|(^|_)key", re.IGNORECASE)

Step = tuple[str, str]
"""(instruction in capitals, its value with continued lines joined)."""


def stages(text: str) -> dict[str, tuple[str, list[Step]]]:
    """Name of each stage -> (image or stage it starts from, its steps), arguments with a default put in."""
    found: dict[str, tuple[str, list[Step]]] = {}
    steps: list[Step] = []
    arguments: dict[str, str] = {}
    for step in DockerfileParser(fileobj=BytesIO(text.encode()), env_replace=False).structure:
        kind, value = step["instruction"], step["value"]
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            steps = []
            found[name] = (re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base), steps)
        elif kind == "ARG" and not found:
            arguments.update([value.split("=", 1)])
        elif kind != "COMMENT":
            steps.append((kind, value))
    return found


STAGES = stages(DOCKERFILE.read_text())


def lineage(name: str, every: dict[str, tuple[str, list[Step]]] = STAGES) -> tuple[str, list[Step]]:
    """(the image that a stage comes from in the end, all steps on the way)."""
    base, steps = every[name]
    if base not in every:
        return base, steps
    root, before = lineage(base, every)
    return root, [*before, *steps]


def last(steps: list[Step], kind: str) -> str | None:
    return next((value for instruction, value in reversed(steps) if instruction == kind), None)


def copied(every: dict[str, tuple[str, list[Step]]]) -> set[str]:
    """Sources of all COPY steps that take from the build context."""
    return {
        source.rstrip("/")
        for _, steps in every.values()
        for kind, value in steps
        if kind == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    }


def let_through(root: Path) -> set[str]:
    """Files below a folder that this project's .dockerignore sends to the engine, besides itself."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sent: set[str] = exclude_paths(str(root), patterns)
    return {path for path in sent if (root / path).is_file()} - {".dockerignore"}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_is_the_command_and_runs_as_nobody_special(target: str) -> None:
    base, steps = lineage(target)
    assert base == "python:3.11-slim-bookworm"
    assert last(steps, "USER") == "1000:1000"  # a number: Kubernetes can check that it is not root
    assert last(steps, "ENTRYPOINT") == '["simswap"]'
    assert last(steps, "HEALTHCHECK") == "NONE"
    assert "HOME=/home/simswap" in " ".join(value for kind, value in steps if kind == "ENV")
    assert "org.opencontainers.image.licenses" in (last(steps, "LABEL") or "")


def test_both_images_hold_the_same_program_over_their_own_torch() -> None:
    for target in ("cpu", "gpu"):
        sources = [value for kind, value in STAGES[target][1] if kind == "COPY"]
        assert sources == [
            f"--from=dependencies-{target} /usr/local /usr/local",
            "--from=project /project /usr/local",
        ]
    assert "NVIDIA_VISIBLE_DEVICES=all" in " ".join(value for _, value in STAGES["gpu"][1])


def test_no_secret_is_an_argument_or_a_variable() -> None:
    steps = [("ARG", line[4:]) for line in DOCKERFILE.read_text().splitlines() if line.startswith("ARG ")]
    steps += [step for _, inner in STAGES.values() for step in inner if step[0] == "ENV"]
    names = {word.split("=")[0] for _, value in steps for word in value.split()}
    assert {"PYTHON", "TORCH_INDEX", "HOME"} <= names
    assert not [name for name in names if SECRET.search(name)]
    assert SECRET.search("AWS_SECRET_ACCESS_KEY")
    assert SECRET.search("HF_TOKEN")


def test_what_is_copied_exists_and_passes_the_ignore_file() -> None:
    sources, sent = copied(STAGES), let_through(ROOT)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert [path for path in sent if path == source or path.startswith(f"{source}/")], f"{source} is ignored"
    strays = [path for path in sent if not any(path == s or path.startswith(f"{s}/") for s in sources)]
    assert strays == []
    assert {path for path in sent if Path(path).suffix not in {".py", ".yaml", ".onnx", ".safetensors"}} == {
        "LICENSE",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
    } | {path for path in sent if path.endswith("/LICENSE")}


def test_the_ignore_file_keeps_back_all_else(tmp_path: Path) -> None:
    kept = {"pyproject.toml", "pipeline/a.py", "jobs/configs/a.yaml", "cluster/a.py"}
    others = {".env", ".git/config", ".venv/a.py", "mlflow.db", "photos/a.jpg", "key.pem", "cluster.yaml", "tests/a.py"}
    others |= {"cluster/kuberay/secret.yaml", "cluster/image/key.pem", "jobs/__pycache__/a.pyc", "pipeline/b.pyc"}
    for name in kept | others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert let_through(tmp_path) == kept


def test_every_installation_keeps_to_the_constraints() -> None:
    commands = [
        command.strip()
        for _, steps in STAGES.values()
        for kind, value in steps
        if kind == "RUN" and "pip install" in value
        for command in value.split("&&")
    ]
    assert len(commands) == 4
    for command in commands:
        constrained = "--constraint constraints.txt" in command
        assert constrained or command == "pip install --no-deps --prefix=/project ."


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_boto3_is_the_one_of_the_botocore_that_the_storage_needs() -> None:
    assert pins()["boto3"] == pins()["botocore"]


def requirements(folder: Path) -> list[str]:
    """Runs the image's own step that lists what the project needs."""
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    ((_, step),) = STAGES["dependencies"][1]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", step], cwd=folder, env=environment, check=True)
    return (folder / "requirements.txt").read_text().splitlines()


def test_the_requirements_are_the_projects_own_and_amazons(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert requirements(tmp_path) == [*project["dependencies"], *project["optional-dependencies"]["aws"]]


@pytest.mark.slow
def test_the_requirements_resolve_within_the_constraints_by_wheels_alone(tmp_path: Path) -> None:
    requirements(tmp_path)
    (tmp_path / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--quiet"]
    chosen = ["--constraint=constraints.txt", "--requirement=requirements.txt", *google()]
    subprocess.run([*pip, *chosen], cwd=tmp_path, check=True)


def google() -> list[str]:
    """What cluster/launchers/gcp.yaml adds to the image on the head."""
    text = (ROOT / "cluster" / "launchers" / "gcp.yaml").read_text()
    return re.findall(r"google-api-python-client==\S+", text)


@pytest.mark.slow
def test_the_project_installs_into_a_folder_of_its_own(tmp_path: Path) -> None:
    for path in let_through(ROOT):
        (tmp_path / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / path).write_bytes((ROOT / path).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed"]
    subprocess.run([*pip, f"--prefix={tmp_path / 'project'}", "."], cwd=tmp_path / "src", check=True)
    assert (tmp_path / "project" / "bin" / "simswap").is_file()
    assert list(tmp_path.glob("project/lib/*/site-packages/pipeline/portrait_pack/packs/*/*.onnx"))
