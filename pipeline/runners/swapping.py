"""The swap job on Ray Data: list -> analyse -> swap -> finish, one pool each, then the report."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.config import PoolConfig, RayConfig, SwapConfig
from pipeline.errors import ConfigError, FatalError
from pipeline.faces.packs import encoder_digest
from pipeline.faces.table import write_faces
from pipeline.media.storage import clear_folder, write_atomically
from pipeline.runners.planning import Job, describe_plan, plan_job, read_job
from pipeline.runners.progress import Progress, say, warn
from pipeline.runners.receipts import ReceiptBook
from pipeline.runners.report import quality_metrics, write_report
from pipeline.runners.tracking import Tracker, flatten, tracking_uri
from pipeline.runners.wire import (
    files_to_table,
    receipts_to_summary,
    table_to_files,
    table_to_works,
    works_to_table,
)
from pipeline.swapping import Analyse, Finish, Plan, Swap

_SECONDS_BETWEEN_METRICS = 10.0
_MOST_ROWS = 32
"""Inputs in a block at the most: what is analysed again after a kill, for each worker."""


class AnalyseStage:
    """`Analyse` for Ray Data: a table of inputs to a table of work."""

    def __init__(self, plan: Plan) -> None:
        self._analyse = Analyse(plan)
        self._table = plan.settings.analysis.write_table
        self._encoder_digest = encoder_digest(plan.settings.models)

    def __call__(self, files: pa.Table) -> pa.Table:
        """Rows of inputs to rows of work."""
        works = [self._analyse(file) for file in table_to_files(files)]
        if self._table is not None:
            read = [(work.file.item, work.sha256, work.faces) for work in works if work.sha256]
            write_faces(self._table, read, self._encoder_digest)
        return works_to_table(works)


class SwapStage:
    """`Swap` for Ray Data: target crops become results."""

    def __init__(self, plan: Plan) -> None:
        self._swap = Swap(plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of work to the same rows with results for crops."""
        return works_to_table(self._swap(table_to_works(table)))


class FinishStage:
    """`Finish` for Ray Data: outputs become visible, then their receipts; the driver gets counts."""

    def __init__(self, plan: Plan) -> None:
        self._finish = Finish(plan)
        self._book = ReceiptBook(plan.settings.output)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of work to rows of counts; outputs and receipts are on disk then."""
        receipts = [self._finish(work) for work in table_to_works(table)]
        self._book.add(receipts)
        return receipts_to_summary(receipts)


def run_swap(settings: SwapConfig, dry_run: bool = False) -> dict[str, Any]:
    """Swap a folder of images.

    What has a receipt of the same recipe is not done again; a finished job writes nothing.

    Args:
        settings: of the job.
        dry_run: only plan.

    Returns:
        The JSON object that the command prints; `status` is `planned`, `done` or `failed`.

    Raises:
        FatalError: the job cannot start or go on; what was done stays done.
    """
    start = time.time()
    job = plan_job(settings)
    if dry_run:
        return {"command": "swap", "status": "planned", **describe_plan(job)}
    known = read_job(job.book) or {}
    if not job.todo and known.get("finished"):
        say("nothing to do", message=f"all {len(job.items)} inputs of {settings.inputs} have their receipt")
        receipts = job.book.read(job.plan.recipe)
        listed = pa.array([item in job.items for item in receipts.column("item").to_pylist()], pa.bool_())
        return _result(job, receipts.filter(listed), known.get("mlflow_run_id"), start)
    same = known.get("recipe") == job.plan.recipe
    tracker = Tracker(job.plan.settings.tracking, known.get("mlflow_run_id") if same else None)
    status = "FAILED"
    try:
        _open_books(job, tracker)
        _run_stages(job, tracker)
        receipts = job.book.close(job.plan.recipe, job.items)
        _tell(job, receipts, tracker)
        result = _result(job, receipts, tracker.run_id, start)
        _write_job(job, tracker, finished=True)
        status = "FINISHED" if result["status"] == "done" else "FAILED"
        return result
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        clear_folder(job.book.partial)
        tracker.end(status)


def _run_stages(job: Job, tracker: Tracker) -> None:
    if not job.todo:
        return
    started = not ray.is_initialized()
    try:
        _start_ray(job.plan.settings)
        with Progress("swap", len(job.todo)) as progress:
            _watch(_summaries(job), progress, tracker)
    except (RayError, ExecutionTimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, FatalError):
            raise cause from error
        said = (str(cause).strip().splitlines() or [""])[0][:300]
        mend = "Run the same command again: what has a receipt is not done again"
        raise FatalError("swap", f"a worker failed ({type(cause).__name__}: {said})", mend) from error
    finally:
        if started:
            ray.shutdown()


def _summaries(job: Job) -> Iterator[pa.Table]:
    pools = job.plan.settings.pools
    dataset = ray.data.from_arrow(_blocks(job))
    dataset = _stage(dataset, AnalyseStage, job.plan, pools.analyse)
    dataset = _stage(dataset, SwapStage, job.plan, pools.swap)
    dataset = _stage(dataset, FinishStage, job.plan, pools.finish)
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _stage(dataset: Dataset, stage: type, plan: Plan, pool: PoolConfig) -> Dataset:
    return dataset.map_batches(
        stage,
        fn_constructor_args=(plan,),
        batch_size=pool.items,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=pool.workers),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )


def _blocks(job: Job) -> list[pa.Table]:
    """Blocks of inputs: a worker hands one on when all of it is done, so they are small; there are not too many."""
    pool = job.plan.settings.pools.analyse
    rows = max(pool.items, min(_MOST_ROWS, len(job.todo) // (8 * pool.workers)))
    return [files_to_table(job.todo[i : i + rows]) for i in range(0, len(job.todo), rows)]


def _watch(summaries: Iterator[pa.Table], progress: Progress, tracker: Tracker) -> None:
    """Follow the job by its counts."""
    counts: Counter[str] = Counter()
    seconds = dict.fromkeys(("analyse", "swap", "finish"), 0.0)
    done, last = 0, time.monotonic()
    for table in summaries:
        counts.update(table.column("status").to_pylist())
        counts["faces"] += sum(table.column("faces").to_pylist())
        for stage in seconds:
            seconds[stage] += sum(table.column(f"{stage}_s").to_pylist())
        done += table.num_rows
        progress.advance(table.num_rows, {"faces": counts["faces"], "failed": counts["failed"]})
        if time.monotonic() - last > _SECONDS_BETWEEN_METRICS:
            last = time.monotonic()
            tracker.log_metrics({f"progress/{k}": v for k, v in counts.items()}, step=done)


def _start_ray(settings: SwapConfig) -> None:
    """Connect, or start an embedded Ray, and set Ray Data up for this job."""
    if not ray.is_initialized():
        _init(settings.ray)
    _check_capacity(settings)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.use_datasource_v2 = False
    context.execution_no_progress_timeout_s = settings.ray.no_progress_timeout_s


def _init(settings: RayConfig) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if settings.address is not None:
        ray.init(address=settings.address, **quiet)
        return
    size = settings.object_store_bytes
    ray.init("local", num_cpus=settings.num_cpus, include_dashboard=False, object_store_memory=size, **quiet)


def _check_capacity(settings: SwapConfig) -> None:
    """Ray would wait without a word for what is not there; an embedded one for ever, a cluster may grow."""
    pools = settings.pools
    every = {"analyse": pools.analyse, "swap": pools.swap, "finish": pools.finish}
    have = ray.cluster_resources()
    for kind, resource in (("cpus", "CPU"), ("gpus", "GPU")):
        need = sum(pool.workers * getattr(pool, kind) for pool in every.values())
        if need > have.get(resource, 0.0):
            asked = ", ".join(f"{name} {p.workers} x {getattr(p, kind):g}" for name, p in every.items())
            problem = f"the pools reserve {need:g} {resource}s ({asked}), the cluster has {have.get(resource, 0.0):g}"
            if settings.ray.address is None:
                raise ConfigError("pools", problem, f"Lower pools.*.workers or pools.*.{kind}")
            warn(f"{problem}; waiting for it to grow")


def _open_books(job: Job, tracker: Tracker) -> None:
    """Say whose output this is before anything else is in it, and clear away what no longer holds."""
    facts = _write_job(job, tracker, finished=False)
    clear_folder(job.book.partial)
    outdated = {file.item for file in job.todo}
    columns = job.book.read().select(["item", "status"]).to_pydict()
    for item, status in zip(columns["item"], columns["status"], strict=True):
        if status == "done" and item in outdated:
            (Path(job.plan.settings.output) / item).unlink(missing_ok=True)
    tags = {k: str(v) for k, v in facts.items() if k.endswith("sha256") or k == "recipe"}
    tracker.log_params(flatten(job.plan.settings), {"command": "swap", **tags})


def _write_job(job: Job, tracker: Tracker, finished: bool) -> dict[str, Any]:
    """Whose output this is; `finished` once all has been done and told."""
    facts = {
        "recipe": job.plan.recipe,
        "finished": finished,
        "mlflow_run_id": tracker.run_id,
        "mlflow_uri": tracker.uri,
        "checkpoint_sha256": job.plan.header.digest,
        "models_sha256": job.model_digest,
        "data_sha256": job.data_digest,
        "settings": job.plan.settings.model_dump(mode="json"),
    }
    write_atomically(job.book.folder / "job.json", json.dumps(facts, indent=1).encode())
    return facts


def _tell(job: Job, receipts: pa.Table, tracker: Tracker) -> None:
    """The story for people: numbers, plots, pictures."""
    summary = summarise(receipts)
    metrics: dict[str, float] = {f"items/{k}": v for k, v in summary["items"].items()}
    metrics |= {f"faces/{k}": v for k, v in summary["faces"].items()}
    metrics |= {f"faces_per_s/{k}": v for k, v in summary["faces_per_s"].items()}
    tracker.log_metrics(metrics | quality_metrics(receipts), step=receipts.num_rows)
    for path in write_report(job.plan.settings, job.book.folder, receipts, summary):
        tracker.log_artifact(path)
    tracker.log_artifact(job.book.path)


def summarise(receipts: pa.Table) -> dict[str, Any]:
    """Counts, reasons, and faces per second of one worker of each stage, from the receipts alone."""
    columns = receipts.select(["status", "reason", "faces", "analyse_s", "swap_s", "finish_s"]).to_pydict()
    actions = Counter(face["action"] for faces in columns["faces"] for face in faces or ())
    found, swapped = sum(actions.values()), actions["swapped"]
    seconds = {name: sum(columns[f"{name}_s"]) for name in ("analyse", "swap", "finish")}
    per_stage = {"analyse": found, "swap": swapped, "finish": swapped}
    statuses = Counter(columns["status"])
    return {
        "items": {"total": receipts.num_rows, **{s: statuses[s] for s in ("done", "skipped", "failed")}},
        "reasons": dict(Counter(reason for reason in columns["reason"] if reason).most_common()),
        "faces": {"found": found, **{a: actions[a] for a in ("swapped", "blurred", "kept")}},
        "faces_per_s": {k: round(per_stage[k] / s, 3) for k, s in seconds.items() if s > 0},
    }


def _result(job: Job, receipts: pa.Table, run_id: str | None, start: float) -> dict[str, Any]:
    settings = job.plan.settings
    summary = summarise(receipts)
    items: Mapping[str, int] = summary["items"]
    too_many = items["failed"] > settings.max_failed_fraction * max(items["total"], 1)
    pictures = {
        name: job.book.folder / file
        for name, file in (("report", "report.html"), ("contact_sheet", "contact_sheet.jpg"))
    }
    return {
        "command": "swap",
        "status": "failed" if too_many else "done",
        **summary,
        "done_now": len(job.todo),
        "output": settings.output,
        "receipts": str(job.book.path),
        **{name: str(path) for name, path in pictures.items() if path.exists()},
        "recipe": job.plan.recipe,
        "mlflow": {"uri": tracking_uri(settings.tracking), "run_id": run_id},
        "seconds": round(time.time() - start, 2),
    }
