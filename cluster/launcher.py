"""The cluster launcher file: found faulty on the laptop, not after the first instance is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.config import PoolsConfig
from pipeline.errors import ConfigError


def read_launcher(path: str) -> dict[str, Any]:
    """A launcher file with integer resources on every node type.

    Raises:
        ConfigError: not readable, not YAML, or a node type whose resources Ray would refuse.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(path, f"cannot be read ({' '.join(str(error).split())})") from error
    nodes = tree.get("available_node_types") if isinstance(tree, dict) else None
    if not isinstance(nodes, dict) or tree.get("head_node_type") not in nodes:
        raise ConfigError(path, "names no head_node_type among its available_node_types")
    for name, node in nodes.items():
        for resource, amount in (node.get("resources") or {}).items():
            if not isinstance(amount, int):
                raise ConfigError(path, f"{name}.resources.{resource} is {amount!r}", "Ray wants a whole number")
    return dict(tree)


def most_resources(launcher: dict[str, Any]) -> dict[str, int]:
    """CPUs and GPUs of the whole cluster when every node type is at its most."""
    total = {"CPU": 0, "GPU": 0}
    for name, node in launcher["available_node_types"].items():
        count = 1 if name == launcher["head_node_type"] else int(node.get("max_workers", 0))
        for resource in total:
            total[resource] += count * int((node.get("resources") or {}).get(resource, 0))
    return total


def check_pools(path: str, pools: PoolsConfig) -> None:
    """Whether a cluster at its largest can hold the pools of a job.

    Raises:
        ConfigError: it cannot; Ray would wait for ever, without a word.
    """
    have = most_resources(read_launcher(path))
    every = (pools.analyse, pools.swap, pools.finish)
    need = {"CPU": sum(p.workers * p.cpus for p in every), "GPU": sum(p.workers * p.gpus for p in every)}
    for resource, amount in need.items():
        if amount > have[resource]:
            problem = f"the pools reserve {amount:g} {resource}s, the cluster has {have[resource]} at its largest"
            raise ConfigError(path, problem, "Raise max_workers or lower pools.*.workers")
