"""Whose output it is: the record that every job keeps beside its results.

OUTPUT/_simswap/job.json     command, recipe, resolved settings, MLflow run, whether it is finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import StorageConfig
from pipeline.errors import OutputError, StoreError
from pipeline.media.store import BOOKS, store_at
from pipeline.redaction import redacted
from pipeline.runners.progress import warn

_JOB = f"{BOOKS}/job.json"


def read_job(output: str, command: str, storage: StorageConfig | None = None) -> dict[str, Any] | None:
    """The record of the job that an output belongs to; None where the output is new.

    Raises:
        OutputError: the output is a file, another command's, or holds what no job has made; a damaged record.
    """
    store = store_at(output, storage)
    if store.local is not None and store.local.is_file():
        raise OutputError(output, "is a file, not a folder", "Choose another output")
    path = f"{output}/{BOOKS}/job.json"
    try:
        data = store.read_or_none(_JOB)
        if data is None and not store.is_empty():
            raise OutputError(output, "holds files that are no job's results", "Choose an empty or new folder")
        if data is None:
            return None
        known: dict[str, Any] = dict(json.loads(data))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(path, f"is damaged ({error})", "Choose another output") from error
    if known.get("command", command) != command:
        raise OutputError(output, f"holds the results of simswap {known['command']}", "Choose another output")
    return known


def write_job(output: str, facts: Mapping[str, Any], storage: StorageConfig | None = None) -> None:
    """Write the record."""
    store_at(output, storage).write(_JOB, json.dumps(redacted(facts), indent=1).encode())


def note_run(output: str, run_id: str | None, storage: StorageConfig | None = None) -> None:
    """Put the MLflow run into the record, where the server has said its id only now."""
    if run_id is None:
        return
    try:
        known = json.loads(store_at(output, storage).read_or_none(_JOB) or b"{}")
    except (StoreError, ValueError) as error:
        warn(f"{output}/{BOOKS}/job.json cannot be read ({error}); the MLflow run is {run_id}")
        return
    if known and known.get("mlflow_run_id") != run_id:
        write_job(output, {**known, "mlflow_run_id": run_id}, storage)


def refuse_another_recipe(
    output: str,
    known: Mapping[str, Any],
    now: Mapping[str, Any],
    names: Sequence[str],
    mend: str = "Choose another output, or replace them by overwrite=true",
) -> None:
    """Say that an output holds the results of other settings, and of which.

    Args:
        output: folder.
        known: the job's record.
        now: the settings as they are now, a JSON tree.
        names: dotted names of the settings, or of whole sections, that decide results.
        mend: what can be done about it.

    Raises:
        OutputError: always.
    """
    was, is_now = (deciding(tree, names) for tree in (known.get("settings", {}), now))
    different = ", ".join(f"{name} (was {was.get(name)!r})" for name in is_now if was.get(name) != is_now[name])
    problem = f"holds the results of another recipe; different: {different or 'the files or the program version'}"
    raise OutputError(output, problem, mend)


def deciding(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Dotted names and values of the settings that `names` covers, by section or one by one."""
    wanted = tuple(f"{name}." for name in names)
    return {name: value for name, value in _flat(tree).items() if f"{name}.".startswith(wanted)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
