"""Launcher files: Ray's own schema, Amazon's own request model, and what Ray would not notice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cluster.launcher import check_pools, leaves, most_resources, read_launcher, unfilled
from pipeline.config import PoolsConfig, SwapPoolConfig
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
AWS, GCP, ON_PREMISES = (
    ROOT / name for name in ("cluster.yaml", "cluster/launchers/gcp.yaml", "cluster/launchers/on-premises.yaml")
)
LAUNCHERS = pytest.mark.parametrize("path", [AWS, GCP, ON_PREMISES], ids=lambda path: path.stem)

Tree = dict[str, Any]


def read(path: Path) -> Tree:
    return dict(yaml.safe_load(path.read_text()))


def validated_by_ray(tree: Tree) -> Tree:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: Tree = prepare_config(copy.deepcopy(tree))
    validate_config(prepared)
    return prepared


@LAUNCHERS
def test_a_shipped_launcher_file_satisfies_rays_own_schema_and_ours(path: Path) -> None:
    prepared = validated_by_ray(read(path))
    assert read_launcher(str(path)) == read(path)
    # Nothing of Ray's defaults is left, which would install another Ray than the image's, and boto3 with it.
    assert not [line for line in prepared["head_setup_commands"] if "ray" in line.replace("/.ray/", "")]
    assert not [line for line in prepared["worker_setup_commands"] if "install" in line]


@LAUNCHERS
def test_rays_schema_finds_a_planted_error_in_it(path: Path) -> None:
    import jsonschema

    tree = read(path) | {"idle_timeout_minuts": 5}
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validated_by_ray(tree)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda t: t["docker"]["run_options"].remove("--env=RAY_AUTH_MODE=token"), "head starts without RAY_AUTH_MODE"),
        (lambda t: t["file_mounts"].clear(), "brings no ~/.ray/auth_token"),
        (
            lambda t: t.update(head_start_ray_commands=["ray start --head --dashboard-host=0.0.0.0"]),
            "not bound to the head's loopback",
        ),
    ],
    ids=["no token", "token not brought", "open dashboard"],
)
@LAUNCHERS
def test_an_open_cluster_is_refused(path: Path, fault: Callable[[Tree], None], message: str, tmp_path: Path) -> None:
    tree = read(path)
    fault(tree)
    validated_by_ray(tree)  # Ray itself has no objection
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=message):
        read_launcher(str(tmp_path / "c.yaml"))


@LAUNCHERS
def test_what_is_to_be_filled_in_is_named(path: Path) -> None:
    open_values = unfilled(read(path))
    assert "docker.image" in open_values
    assert not [where for where in open_values if where.startswith(("file_mounts", "head_start", "worker_start"))]
    tree = read(path)
    tree["docker"]["image"] = "registry.example/simswap-ray-cpu:0.1.0"
    assert "docker.image" not in unfilled(tree)


@LAUNCHERS
def test_no_value_to_be_filled_in_is_cut_by_a_comma(path: Path) -> None:
    values = [text for _, text in leaves(read(path))]
    assert not [value for value in values if value.count("<") != value.count(">")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve, which its command line loads
@LAUNCHERS
def test_ray_start_takes_every_word_of_it(path: Path) -> None:
    tree = read(path)
    for kind in ("head", "worker"):
        _, started = tree[f"{kind}_start_ray_commands"]
        taken = parsed_by_ray_start(started.removeprefix("ray start ").split())
        assert taken["object_spilling_directory"] == "/tmp/spill"
    with pytest.raises(click.NoSuchOption):
        parsed_by_ray_start(["--object-spill-directory=/tmp/spill"])


def parsed_by_ray_start(words: list[str]) -> Tree:
    from ray.scripts.scripts import start

    return dict(start.make_context("ray start", words).params)


@LAUNCHERS
def test_the_object_store_fits_the_shared_memory(path: Path) -> None:
    tree = read(path)
    for kind in ("head", "worker"):
        (option,) = tree["docker"][f"{kind}_run_options"]
        shared = int(option.removeprefix("--shm-size=").removesuffix("gb")) * 2**30
        (store,) = [
            int(word.split("=")[1])
            for line in tree[f"{kind}_start_ray_commands"]
            for word in line.split()
            if word.startswith("--object-store-memory=")
        ]
        assert store < shared, f"{kind}: Ray would put the object store on the disk"


@pytest.mark.parametrize("path", [AWS, GCP], ids=["aws", "gcp"])
def test_the_head_does_no_work_and_workers_scale_to_zero(path: Path) -> None:
    launcher = read_launcher(str(path))
    nodes = launcher["available_node_types"]
    assert nodes[launcher["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert nodes["gpu_worker"]["min_workers"] == nodes["cpu_worker"]["min_workers"] == 0
    assert most_resources(launcher) == {"CPU": 16 * 16 + 4 * 8, "GPU": 4}
    assert "docker" not in nodes["cpu_worker"]
    assert "-cpu:" in launcher["docker"]["image"]
    assert "-gpu:" in nodes["gpu_worker"]["docker"]["worker_image"]


def run_instances_problems(node_config: Tree) -> str:
    """What Amazon's own request model says of a node; SubnetIds is Ray's key, of which it makes a SubnetId."""
    import botocore.session
    import botocore.validate

    shape = botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    asked = {key: value for key, value in node_config.items() if key != "SubnetIds"}
    report = botocore.validate.ParamValidator().validate(asked | {"MinCount": 1, "MaxCount": 1}, shape)
    return str(report.generate_report())


def test_amazon_knows_every_field_of_every_node() -> None:
    for name, node in read(AWS)["available_node_types"].items():
        assert run_instances_problems(node["node_config"]) == "", name


def test_a_field_that_amazon_does_not_know_is_found() -> None:
    node = read(AWS)["available_node_types"]["gpu_worker"]["node_config"]
    assert "InstanceMarketOption" in run_instances_problems(node | {"InstanceMarketOption": {"MarketType": "spot"}})


def test_pools_that_no_node_count_can_hold_are_refused() -> None:
    check_pools(str(AWS), PoolsConfig(swap=SwapPoolConfig(workers=4, gpus=1)))
    with pytest.raises(ConfigError, match="reserve 5 GPUs, the cluster has 4 at its largest"):
        check_pools(str(AWS), PoolsConfig(swap=SwapPoolConfig(workers=5, gpus=1)))


def test_machines_of_ones_own_are_not_counted_here() -> None:
    check_pools(str(ON_PREMISES), PoolsConfig(swap=SwapPoolConfig(workers=500, gpus=1)))


def test_a_fractional_resource_is_refused(tmp_path: Path) -> None:
    tree = read(AWS)
    tree["available_node_types"]["cpu_worker"]["resources"]["CPU"] = 1.5
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="Ray wants a whole number"):
        read_launcher(str(tmp_path / "c.yaml"))
