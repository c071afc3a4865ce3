"""Looking after the output of a swap: how it stands, its failures once more, its leftovers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import GcConfig, RedriveConfig, StatusConfig, StorageConfig, SwapConfig
from pipeline.errors import ConfigError, OutputError
from pipeline.media.store import BOOKS, PARTIAL, Store, store_at
from pipeline.runners.books import read_job
from pipeline.runners.claims import claimed, living_claims
from pipeline.runners.stopping import sigterm_interrupts
from pipeline.runners.swapping import run_swap
from pipeline.settings import load_settings
from pipeline.swapping.counts import Counts, count, summarise, total
from pipeline.swapping.films.state import FILMS, films_at_work
from pipeline.swapping.receipts import SCHEMA, ReceiptBook
from pipeline.swapping.shards.record import Record, files_of, read_records
from pipeline.swapping.shards.reopen import failed_in, reopen_shard
from pipeline.swapping.shards.state import SHARDS, images_at_work

_RECENT_S = 600.0


def job_status(output: str, settings: StatusConfig) -> dict[str, Any]:
    """How a swap stands, from what lies in its output alone. Writes nothing.

    Args:
        output: of the job.
        settings: how to reach it.

    Raises:
        FatalError: there is no job.
    """
    store, job = store_at(output, settings.storage), job_of(output, settings.storage)
    so_far = _shards_so_far if job.get("layout") == "shards" else _files_so_far
    counts, facts = so_far(store, job)
    workers = living_claims(store)
    return {
        "command": "status",
        "status": "finished" if job["finished"] else "running" if workers else "stopped",
        "output": store.address,
        "inputs": job["settings"]["inputs"],
        **summarise(counts),
        **facts,
        "workers": [f"process {f.get('pid')} on {f.get('host')}" for f in workers],
        "recipe": job["recipe"],
        "mlflow": {"uri": job.get("mlflow_uri"), "run_id": job.get("mlflow_run_id")},
    }


def _shards_so_far(store: Store, job: Mapping[str, Any]) -> tuple[Counts, dict[str, Any]]:
    """Counts of the images in finished shards, and how far the others are."""
    records = [record for record in read_records(store).values() if record.recipe == job["recipe"]]
    shards = {"done": len(records), "left": max(int(job["items"]) - len(records), 0)}
    return total(record.counts for record in records), {"shards": shards, "images_at_work": images_at_work(store)}


def _files_so_far(store: Store, job: Mapping[str, Any]) -> tuple[Counts, dict[str, Any]]:
    """Counts of what has ended, how fast it goes, and what is left."""
    receipts = ReceiptBook(store).read(job["recipe"])
    at = receipts.column("finished_at").to_numpy()
    recent = at[at > time.time() - _RECENT_S]
    facts = {
        "left": max(int(job["items"]) - receipts.num_rows, 0),
        "films_at_work": films_at_work(store),
        "items_per_s": round(len(recent) / max(time.time() - recent.min(), 1e-9), 3) if len(recent) else 0.0,
        "last_at": f"{np.datetime64(int(at.max()), 's')}Z" if len(at) else None,
    }
    return count(receipts), facts


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
    job = job_of(address, None)
    swap = load_settings(SwapConfig, None, words, base=job["settings"])
    store = store_at(address, swap.storage)
    failed = _Failed(store, job)
    reasons = failed.reasons(settings.reasons)
    if dry_run or not reasons:
        facts = {"redriven": sum(reasons.values()), "reasons": reasons}
        return {"command": "redrive", "status": "planned" if dry_run else "done", "output": address, **facts}
    with sigterm_interrupts(), claimed(store):
        failed.reopen(settings.reasons)
    return run_swap(swap) | {"command": "redrive", "redriven": sum(reasons.values())}


class _Failed:
    """What failed in a job: single inputs, or images in shards."""

    def __init__(self, store: Store, job: Mapping[str, Any]) -> None:
        self._store, self._recipe = store, job["recipe"]
        self._book, self._records, self._table = ReceiptBook(store), list[Record](), SCHEMA.empty_table()
        if job.get("layout") == "shards":
            found = [one for one in read_records(store).values() if one.recipe == self._recipe]
            self._records = [one for one in found if one.counts["statuses"].get("failed")]
            tables = (failed_in(store, one) for one in self._records)
        else:
            self._table = self._book.read(self._recipe).filter(pc.field("status") == "failed")
            tables = (table for table in [self._table])
        self._known: Counter[str] = Counter()
        for table in tables:  # one after the other: of shards only their names are kept
            self._known.update(table.column("reason").to_pylist())

    def reasons(self, wanted: Sequence[str]) -> dict[str, int]:
        """How often each reason is there, of those that are wanted; all of them where none is named.

        Raises:
            ConfigError: nothing failed for one that is named.
        """
        known = dict(self._known.most_common())
        unknown = [reason for reason in wanted if reason not in known]
        if unknown:
            said = ", ".join(f"{reason} ({number})" for reason, number in known.items()) or "none"
            raise ConfigError("reasons", f"nothing failed for {', '.join(unknown)}", f"There are: {said}")
        return {reason: number for reason, number in known.items() if not wanted or reason in wanted}

    def reopen(self, wanted: Sequence[str]) -> None:
        """Have them done again by the next swap."""
        if self._records:
            for record in self._records:
                reopen_shard(self._store, record, wanted)
            return
        rows = self._table
        if wanted:
            rows = rows.filter(pc.is_in(rows.column("reason"), pa.array(list(wanted))))
        self._book.forget(self._recipe, set(rows.column("item").to_pylist()))


def collect_garbage(output: str, settings: GcConfig, dry_run: bool = False) -> dict[str, Any]:
    """Remove what killed jobs have left in an output.

    Args:
        output: of the job.
        settings: how far to go.
        dry_run: only say what would be removed.

    Raises:
        FatalError: there is no job, or one works there now.
    """
    store, job = store_at(output, settings.storage), job_of(output, settings.storage)
    with sigterm_interrupts(), nullcontext() if dry_run else claimed(store):
        kinds = _leftovers(store, job)
        removed = [kind for kind in kinds if kind != "orphans" or settings.orphans]
        if not dry_run:
            for kind in removed:
                store.remove_all(kinds[kind])
            store.remove_folder(PARTIAL)
            if job["finished"]:
                store.remove_folder(FILMS)
                store.remove_folder(SHARDS)
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
    if job.get("layout") == "shards":
        results = {file for shard in read_records(store) for file in files_of(shard)}
    else:
        results = set(ReceiptBook(store).read().column("output").to_pylist())
    kinds: dict[str, list[str]] = {"partial": [], "at_work": [], "orphans": []}
    for file in store.list():
        if file.name.startswith(f"{PARTIAL}/") or file.name.endswith(".partial"):
            kinds["partial"].append(file.name)
        elif file.name.startswith((f"{FILMS}/", f"{SHARDS}/")) and job["finished"]:
            kinds["at_work"].append(file.name)
        elif not file.name.startswith(f"{BOOKS}/") and file.name not in results:
            kinds["orphans"].append(file.name)
    return kinds


def job_of(output: str, storage: StorageConfig | None) -> dict[str, Any]:
    """The record of the job in an output.

    Raises:
        OutputError: there is none.
    """
    job = read_job(output, "swap", storage)
    if job is None:
        raise OutputError(output, "no job has worked here", "Give the output of a simswap swap")
    return job
