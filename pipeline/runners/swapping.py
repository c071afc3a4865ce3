"""The swap job: plan, do what is left, close the books, tell the story."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.config import SwapConfig
from pipeline.errors import StoreError
from pipeline.failpoints import fail_point
from pipeline.media.layouts import known_count
from pipeline.media.store import BOOKS, PARTIAL
from pipeline.media.video import is_video
from pipeline.runners.books import note_run, read_job, write_job
from pipeline.runners.claims import claimed, forget_dead
from pipeline.runners.cluster import ray_data_job
from pipeline.runners.engine import pools_needs, run_stages
from pipeline.runners.films import Step, run_films
from pipeline.runners.metrics import EndMetrics
from pipeline.runners.outcome import Outcome, outcome_of
from pipeline.runners.planning import Job, describe_plan, plan_job, refreshed
from pipeline.runners.progress import ItemLog, Progress, say
from pipeline.runners.report import quality_metrics, write_report
from pipeline.runners.shards import run_shards
from pipeline.runners.stopping import sigterm_interrupts
from pipeline.runners.tracking import Tracker, tell_what_waits, tracked
from pipeline.settings import flatten
from pipeline.swapping.counts import summarise
from pipeline.swapping.shards.record import files_of, read_records

_SECONDS_BETWEEN_METRICS = 10.0


def run_swap(settings: SwapConfig, dry_run: bool = False) -> dict[str, Any]:
    """Swap a folder of images and videos.

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
    tracking, output, recipe = job.plan.settings.tracking, job.plan.settings.output, job.plan.recipe
    known = read_job(output, "swap", job.plan.settings.storage) or {}
    if not job.todo and known.get("finished"):
        say("nothing to do", message=f"all {len(job.items)} inputs of {settings.inputs} have their receipt")
        run_id = tell_what_waits(tracking, output, recipe) or known.get("mlflow_run_id")
        note_run(output, run_id, job.plan.settings.storage)
        forget_dead(job.plan.output())
        return _result(job, outcome_of(job), run_id, start)
    with sigterm_interrupts(), claimed(job.plan.output()):
        return _run(refreshed(job), known, start)


def _run(job: Job, known: Mapping[str, Any], start: float) -> dict[str, Any]:
    settings, recipe = job.plan.settings, job.plan.recipe
    run_id = known.get("mlflow_run_id") if known.get("recipe") == recipe else None
    began = time.time()
    facts = _write_job(job, run_id, began, finished=False)
    fail_point("job written")
    with tracked(settings.tracking, settings.output, recipe, run_id, settings.storage) as tracker:
        try:
            _open_books(job, known, facts, tracker)
            fail_point("books opened")
            if job.todo:
                _watch(job, tracker)
            outcome = outcome_of(job, closing=True)
            _tell(job, outcome, tracker)
            result = _result(job, outcome, tracker.run_id, start)
            fail_point("story told")
            _write_job(job, tracker.run_id, began, finished=True)
            fail_point("job finished")
            tracker.status = "FINISHED" if result["status"] == "done" else "FAILED"
        finally:
            with suppress(StoreError):  # of a store that is down something else has been said
                job.plan.output().remove_folder(PARTIAL)
    result["mlflow"]["run_id"] = tracker.run_id
    return result


def _watch(job: Job, tracker: Tracker) -> None:
    """Do the work, and follow it by its counts."""
    counts: Counter[str] = Counter()
    done, last = 0, time.monotonic()
    settings, size = job.plan.settings, _size(job)
    say("run", run=tracker.run_id, recipe=job.plan.recipe, message=f"MLflow run {tracker.run_id or '(waits)'}")
    with (
        Progress("swap", size) as progress,
        ray_data_job("swap", settings.ray, pools_needs(settings.pools), settings.faults.item_s),  # for all of it
    ):
        ends, without_result = EndMetrics(size), ItemLog(tracker.run_id)

        def step(faces: int) -> None:
            counts["spans"] += 1
            counts["span_faces"] += faces
            progress.advance(0, {"spans": counts["spans"], "span_faces": counts["span_faces"]})

        for table in _batches(job, step):
            rows, faces = table.select(["item", "status", "reason"]).to_pylist(), sum(table.column("faces").to_pylist())
            ends.count(rows, faces)
            without_result.tell(rows)
            counts.update(row["status"] for row in rows)
            counts["faces"] += faces
            done += table.num_rows
            progress.advance(table.num_rows, {"faces": counts["faces"], "failed": counts["failed"]})
            if time.monotonic() - last > _SECONDS_BETWEEN_METRICS:
                last = time.monotonic()
                tracker.log_metrics({f"progress/{k}": v for k, v in counts.items()}, step=done)


def _batches(job: Job, step: Step) -> Iterator[pa.Table]:
    """The work, whose counts come batch by batch."""
    if job.layout == "shards":
        return run_shards(job.plan, job.todo, step)
    films = [file for file in job.todo if is_video(file.item)]
    stills = [file for file in job.todo if not is_video(file.item)]
    return chain(run_stages(job.plan, stills), run_films(job.plan, films, step))


def _size(job: Job) -> int | None:
    """Inputs that will be counted; None where nobody knows."""
    if job.layout == "files":
        return len(job.todo)
    images, unknown = known_count(job.plan.originals(), job.todo)
    return None if unknown else images


def _clear_outdated(job: Job, known: Mapping[str, Any]) -> None:
    """Remove results that are no longer those of their inputs."""
    output, left = job.plan.output(), {file.item for file in job.todo}
    if job.layout == "shards":
        records, same = read_records(output), known.get("recipe") == job.plan.recipe
        names = [shard for shard in left if shard in records or not same]  # one without a record may be gone on with
        output.remove_all([file for shard in names for file in files_of(shard)])
        return
    columns = job.book.read().select(["item", "output"]).to_pydict()
    results = zip(columns["item"], columns["output"], strict=True)
    output.remove_all([result for item, result in results if result and item in left])


def _open_books(job: Job, known: Mapping[str, Any], facts: Mapping[str, Any], tracker: Tracker) -> None:
    """Clear away what no longer holds, and begin the story."""
    job.plan.output().remove_folder(PARTIAL)
    _clear_outdated(job, known)
    tags = {k: str(v) for k, v in facts.items() if k.endswith("sha256") or k == "recipe"}
    tracker.log_params(flatten(job.plan.settings), {"command": "swap", **tags})


def _write_job(job: Job, run_id: str | None, began: float, finished: bool) -> dict[str, Any]:
    """Whose output this is, before anything else is in it; `finished` once all has been done."""
    facts = {
        "command": "swap",
        "recipe": job.plan.recipe,
        "finished": finished,
        "began": began,
        "ended": time.time() if finished else None,
        "layout": job.layout,
        "items": len(job.items),
        "mlflow_run_id": run_id,
        "mlflow_uri": job.plan.settings.tracking.address(),
        "checkpoint_sha256": job.plan.header.digest,
        "models_sha256": job.model_digest,
        "data_sha256": job.data_digest,
        "settings": job.plan.settings.model_dump(mode="json"),
    }
    write_job(job.plan.settings.output, facts, job.plan.settings.storage)
    return facts


def _tell(job: Job, outcome: Outcome, tracker: Tracker) -> None:
    """The story for people: numbers, plots, pictures."""
    summary = summarise(outcome.counts)
    metrics: dict[str, float] = {f"items/{k}": v for k, v in summary["items"].items()}
    metrics |= {f"faces/{k}": v for k, v in summary["faces"].items()}
    metrics |= {f"faces_per_s/{k}": v for k, v in summary["faces_per_s"].items()}
    tracker.log_metrics(metrics | quality_metrics(outcome.shown), step=summary["items"]["total"])
    whole = [outcome.receipts] if job.layout == "files" else []
    for name in [*write_report(job.plan, outcome, summary), *whole]:
        with job.plan.output().fetched(name) as path:
            tracker.log_artifact(path, passing=job.plan.output().local is None)


def _result(job: Job, outcome: Outcome, run_id: str | None, start: float) -> dict[str, Any]:
    settings = job.plan.settings
    summary = summarise(outcome.counts)
    items: Mapping[str, int] = summary["items"]
    too_many = items["failed"] > settings.max_failed_fraction * max(items["total"], 1)
    store = job.plan.output()
    pages = {"report": f"{BOOKS}/report.html", "contact_sheet": f"{BOOKS}/contact_sheet.jpg"}
    return {
        "command": "swap",
        "status": "failed" if too_many else "done",
        **summary,
        "done_now": len(job.todo),
        "output": settings.output,
        "receipts": f"{store.address}/{outcome.receipts}",
        **({"notes": list(outcome.notes[:20])} if outcome.notes else {}),
        **{name: f"{store.address}/{page}" for name, page in pages.items() if store.stat(page) is not None},
        "recipe": job.plan.recipe,
        "mlflow": {"uri": settings.tracking.address(), "run_id": run_id},
        "seconds": round(time.time() - start, 2),
    }
