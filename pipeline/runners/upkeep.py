"""Looking after the output of a swap: how it stands, its failures once more, its leftovers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import GcConfig, RedriveConfig, StatusConfig, StorageConfig, SwapConfig
from pipeline.errors import ConfigError, OutputError
from pipeline.media.store import BOOKS, PARTIAL, Store, store_at
from pipeline.runners.books import read_job
from pipeline.runners.claims import claimed, living_claims
from pipeline.runners.receipts import ReceiptBook
from pipeline.runners.stopping import sigterm_interrupts
from pipeline.runners.swapping import run_swap, summarise
from pipeline.settings import load_settings
from pipeline.swapping.films.state import FILMS, films_at_work

_RECENT_S = 600.0


def job_status(output: str, settings: StatusConfig) -> dict[str, Any]:
    """How a swap stands, from what lies in its output alone. Writes nothing.

    Args:
        output: of the job.
        settings: how to reach it.

    Raises:
        FatalError: there is no job.
    """
    store, job = store_at(output, settings.storage), _job(output, settings.storage)
    receipts = ReceiptBook(store).read(job["recipe"])
    at = receipts.column("finished_at").to_numpy()
    recent = at[at > time.time() - _RECENT_S]
    summary = summarise(receipts)
    total = max(int(job.get("items", 0)), receipts.num_rows)
    workers = living_claims(store)
    return {
        "command": "status",
        "status": "finished" if job["finished"] else "running" if workers else "stopped",
        "output": store.address,
        "inputs": job["settings"]["inputs"],
        **summary,
        "items": {**summary["items"], "total": total, "left": total - receipts.num_rows},
        "items_per_s": round(len(recent) / (time.time() - recent.min()), 3) if len(recent) else 0.0,
        "last_at": _when(at.max()) if len(at) else None,
        "films_at_work": films_at_work(store),
        "workers": [f"process {f.get('pid')} on {f.get('host')}" for f in workers],
        "recipe": job["recipe"],
        "mlflow": {"uri": job.get("mlflow_uri"), "run_id": job.get("mlflow_run_id")},
    }


def redrive(output: str, settings: RedriveConfig, words: Sequence[str], dry_run: bool = False) -> dict[str, Any]:
    """Do inputs that failed again, by the job's own settings, into the same output.

    Args:
        output: of the job.
        settings: which reasons.
        words: settings of the swap that are others now; none of those that decide results.
        dry_run: only say what would be done.

    Raises:
        FatalError: there is no job, or the swap cannot start.
    """
    address = store_at(output).address
    job = _job(address, None)
    swap = load_settings(SwapConfig, None, words, base=job["settings"])
    store = store_at(address, swap.storage)
    book = ReceiptBook(store)
    failed = book.read(job["recipe"]).filter(pc.field("status") == "failed")
    if settings.reasons:
        _refuse_unknown(settings.reasons, failed)
        failed = failed.filter(pc.is_in(failed.column("reason"), pa.array(settings.reasons)))
    facts = {"redriven": failed.num_rows, "reasons": _counted(failed)}
    if dry_run or not failed.num_rows:
        return {"command": "redrive", "status": "planned" if dry_run else "done", "output": address, **facts}
    with sigterm_interrupts(), claimed(store):
        book.forget(job["recipe"], set(failed.column("item").to_pylist()))
    result = run_swap(swap)
    return result | {"command": "redrive", "redriven": facts["redriven"]}


def collect_garbage(output: str, settings: GcConfig, dry_run: bool = False) -> dict[str, Any]:
    """Remove what killed jobs have left in an output.

    Args:
        output: of the job.
        settings: how far to go.
        dry_run: only say what would be removed.

    Raises:
        FatalError: there is no job, or one works there now.
    """
    store, job = store_at(output, settings.storage), _job(output, settings.storage)
    with sigterm_interrupts(), claimed(store):
        kinds = _leftovers(store, job)
        removed = [kind for kind in kinds if kind != "orphans" or settings.orphans]
        if not dry_run:
            for kind in removed:
                store.remove_all(kinds[kind])
            store.remove_folder(PARTIAL)
            if job["finished"]:
                store.remove_folder(FILMS)
    return {
        "command": "gc",
        "status": "planned" if dry_run else "done",
        "output": store.address,
        "removed": {kind: 0 if dry_run else len(kinds[kind]) for kind in removed},
        "found": {kind: len(names) for kind, names in kinds.items()},
        "orphans": kinds["orphans"][:100],
    }


def _leftovers(store: Store, job: Mapping[str, Any]) -> dict[str, list[str]]:
    """Files that no job needs, by kind."""
    results = set(ReceiptBook(store).read().column("output").to_pylist())
    kinds: dict[str, list[str]] = {"partial": [], "films": [], "orphans": []}
    for file in store.list():
        if file.name.startswith(f"{PARTIAL}/") or file.name.endswith(".partial"):
            kinds["partial"].append(file.name)
        elif file.name.startswith(f"{FILMS}/") and job["finished"]:
            kinds["films"].append(file.name)
        elif not file.name.startswith(f"{BOOKS}/") and file.name not in results:
            kinds["orphans"].append(file.name)
    return kinds


def _job(output: str, storage: StorageConfig | None) -> dict[str, Any]:
    job = read_job(output, "swap", storage)
    if job is None:
        raise OutputError(output, "no job has worked here", "Give the output of a simswap swap")
    return job


def _refuse_unknown(reasons: Sequence[str], failed: pa.Table) -> None:
    known = _counted(failed)
    unknown = [reason for reason in reasons if reason not in known]
    if unknown:
        said = ", ".join(f"{reason} ({count})" for reason, count in known.items()) or "none"
        raise ConfigError("reasons", f"nothing failed for {', '.join(unknown)}", f"There are: {said}")


def _counted(receipts: pa.Table) -> dict[str, int]:
    return dict(Counter(receipts.column("reason").to_pylist()).most_common())


def _when(seconds: float) -> str:
    return str(np.datetime64(int(seconds), "s")) + "Z"
