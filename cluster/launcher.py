"""The cluster launcher file: found faulty on the laptop, not after the first instance is paid for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import PoolsConfig
from pipeline.errors import ConfigError

_LOOPBACK = re.compile(r"--dashboard-host[= ](127\.0\.0\.1|localhost)\b")


def read_launcher(path: str) -> dict[str, Any]:
    """A launcher file with integer resources on every node type, closed to everybody without the token.

    Raises:
        ConfigError: not readable, not YAML, a node type whose resources Ray would refuse, or a cluster that would run
            the code of whoever reaches it.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(path, f"cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise ConfigError(path, "is no mapping", "cluster.yaml is an example")
    if not _is_local(tree):
        _check_node_types(path, tree)
    _check_closed(path, tree)
    return tree


def unfilled(launcher: dict[str, Any]) -> list[str]:
    """Where values still read `<...>`, as dotted paths in the order of the file."""
    return [where for where, value in leaves(launcher) if re.search(r"<[^<>]+>", value)]


def leaves(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a tree with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{where}[{index}]")
    elif isinstance(value, str):
        yield where, value


def most_resources(launcher: dict[str, Any]) -> dict[str, int] | None:
    """CPUs and GPUs of the whole cluster when every node type is at its most.

    Returns:
        None for machines of one's own: only Ray itself knows what they have.
    """
    if _is_local(launcher):
        return None
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
        if have is not None and amount > have[resource]:
            problem = f"the pools reserve {amount:g} {resource}s, the cluster has {have[resource]} at its largest"
            raise ConfigError(path, problem, "Raise max_workers or lower pools.*.workers")


def _is_local(launcher: dict[str, Any]) -> bool:
    provider = launcher.get("provider")
    return isinstance(provider, dict) and provider.get("type") == "local"


def _check_node_types(path: str, tree: dict[str, Any]) -> None:
    nodes = tree.get("available_node_types")
    if not isinstance(nodes, dict) or tree.get("head_node_type") not in nodes:
        raise ConfigError(path, "names no head_node_type among its available_node_types")
    for name, node in nodes.items():
        if not isinstance(node, dict):
            raise ConfigError(path, f"available_node_types.{name} is no mapping")
        for resource, amount in (node.get("resources") or {}).items():
            if not isinstance(amount, int):
                raise ConfigError(path, f"{name}.resources.{resource} is {amount!r}", "Ray wants a whole number")


def _check_closed(path: str, tree: dict[str, Any]) -> None:
    """Token authentication on every node, the token there, the dashboard on the head's loopback alone."""
    docker = tree.get("docker") or {}
    head, worker = (
        "\n".join(map(str, [*(tree.get(f"{kind}_start_ray_commands") or []), *(docker.get("run_options") or [])]))
        for kind in ("head", "worker")
    )
    for kind, text in (("head", head), ("worker", worker)):
        if "RAY_AUTH_MODE=token" not in text:
            problem = f"the {kind} starts without RAY_AUTH_MODE=token: whoever reaches it may run code"
            raise ConfigError(path, problem, "Add --env=RAY_AUTH_MODE=token to docker.run_options")
    if not any(str(target).endswith("/.ray/auth_token") for target in tree.get("file_mounts") or {}):
        problem = "file_mounts brings no ~/.ray/auth_token: Ray does not start without the token"
        raise ConfigError(path, problem, "See file_mounts in cluster.yaml")
    if not _LOOPBACK.search(head):
        problem = "the dashboard is not bound to the head's loopback"
        raise ConfigError(path, problem, "Add --dashboard-host=127.0.0.1 to ray start; ray dashboard reaches it by SSH")
