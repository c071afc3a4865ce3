from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from cluster.launcher import check_pools, most_resources, read_launcher
from pipeline.config import PoolsConfig, SwapPoolConfig
from pipeline.errors import ConfigError

LAUNCHER = Path(__file__).resolve().parents[2] / "cluster.yaml"


def test_the_shipped_launcher_file_satisfies_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(yaml.safe_load(LAUNCHER.read_text()))))


def test_the_head_does_no_work_and_gpu_workers_scale_to_zero() -> None:
    launcher = read_launcher(str(LAUNCHER))
    nodes = launcher["available_node_types"]
    assert nodes[launcher["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert nodes["gpu_worker"]["min_workers"] == 0
    assert most_resources(launcher) == {"CPU": 16 * 16 + 4 * 8, "GPU": 4}


def test_pools_that_no_node_count_can_hold_are_refused() -> None:
    check_pools(str(LAUNCHER), PoolsConfig(swap=SwapPoolConfig(workers=4, gpus=1)))
    with pytest.raises(ConfigError, match="reserve 5 GPUs, the cluster has 4 at its largest"):
        check_pools(str(LAUNCHER), PoolsConfig(swap=SwapPoolConfig(workers=5, gpus=1)))


def test_a_fractional_resource_is_refused(tmp_path: Path) -> None:
    tree = yaml.safe_load(LAUNCHER.read_text())
    tree["available_node_types"]["cpu_worker"]["resources"]["CPU"] = 1.5
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="Ray wants a whole number"):
        read_launcher(str(tmp_path / "c.yaml"))
