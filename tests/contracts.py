"""What a command's result has beside its contract, for every test that runs one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.cli import command_named


def broken_contract(result: Mapping[str, Any]) -> list[str]:
    """Keys of a result that its command does not declare (`+key`), and declared ones that are missing (`-key`)."""
    if result["status"] == "interrupted" or "error" in result:
        return [f"+{key}" for key in sorted(result.keys() - {"command", "status", "error"})]
    command = command_named(result["command"])
    declared = command.plan if result["status"] == "planned" and command.plan else command.result
    names = {key.removesuffix("?") for key in declared} | {"command", "status"}
    opened = {name.split(".")[0] for name in names if "." in name}  # objects whose keys are declared one by one
    given = set(result) - opened
    given |= {f"{head}.{key}" for head in opened & set(result) for key in result[head]}
    if "*?" in declared:
        names |= given
    needed = {key for key in declared if not key.endswith("?")}
    return sorted([f"+{key}" for key in given - names] + [f"-{key}" for key in needed - given])
