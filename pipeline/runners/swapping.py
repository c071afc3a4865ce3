"""The swap job: plan, do what is left, close the books, tell the story."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import SwapConfig
from pipeline.media.storage import clear_folder
from pipeline.media.video import is_video
from pipeline.runners.books import note_run, read_job, write_job
from pipeline.runners.engine import run_stages
from pipeline.runners.films import run_films
from pipeline.runners.planning import Job, describe_plan, plan_job
from pipeline.runners.progress import Progress, say
from pipeline.runners.report import quality_metrics, write_report
from pipeline.runners.tracking import Tracker, flatten, spool_file, tell_what_waits, tracking_uri

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
    known = read_job(output, "swap") or {}
    if not job.todo and known.get("finished"):
        say("nothing to do", message=f"all {len(job.items)} inputs of {settings.inputs} have their receipt")
        run_id = tell_what_waits(tracking, output, recipe) or known.get("mlflow_run_id")
        note_run(output, run_id)
        receipts = job.book.read(recipe)
        listed = pa.array([item in job.items for item in receipts.column("item").to_pylist()], pa.bool_())
        return _result(job, receipts.filter(listed), run_id, start)
    run_id = known.get("mlflow_run_id") if known.get("recipe") == recipe else None
    _write_job(job, run_id, finished=False)
    tracker = Tracker(tracking, spool_file(output, recipe), run_id)
    status = "FAILED"
    try:
        _open_books(job, tracker)
        if job.todo:
            _watch(job, tracker)
        receipts = job.book.close(recipe, job.items)
        _tell(job, receipts, tracker)
        result = _result(job, receipts, tracker.run_id, start)
        _write_job(job, tracker.run_id, finished=True)
        status = "FINISHED" if result["status"] == "done" else "FAILED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        clear_folder(job.book.partial)
        tracker.end(status)
        note_run(output, tracker.run_id)
    result["mlflow"]["run_id"] = tracker.run_id
    return result


def _watch(job: Job, tracker: Tracker) -> None:
    """Do the work, and follow it by its counts."""
    counts: Counter[str] = Counter()
    done, last = 0, time.monotonic()
    with Progress("swap", len(job.todo)) as progress:
        films = [file for file in job.todo if is_video(file.item)]
        stills = [file for file in job.todo if not is_video(file.item)]

        def step(faces: int) -> None:
            counts["spans"] += 1
            counts["span_faces"] += faces
            progress.advance(0, {"spans": counts["spans"], "span_faces": counts["span_faces"]})

        for table in chain(run_stages(job.plan, stills), run_films(job.plan, films, step)):
            counts.update(table.column("status").to_pylist())
            counts["faces"] += sum(table.column("faces").to_pylist())
            done += table.num_rows
            progress.advance(table.num_rows, {"faces": counts["faces"], "failed": counts["failed"]})
            if time.monotonic() - last > _SECONDS_BETWEEN_METRICS:
                last = time.monotonic()
                tracker.log_metrics({f"progress/{k}": v for k, v in counts.items()}, step=done)


def _open_books(job: Job, tracker: Tracker) -> None:
    """Say whose run this is, and clear away what no longer holds."""
    facts = _write_job(job, tracker.run_id, finished=False)
    clear_folder(job.book.partial)
    outdated = {file.item for file in job.todo}
    columns = job.book.read().select(["item", "output"]).to_pydict()
    for item, output in zip(columns["item"], columns["output"], strict=True):
        if output and item in outdated:
            (Path(job.plan.settings.output) / output).unlink(missing_ok=True)
    tags = {k: str(v) for k, v in facts.items() if k.endswith("sha256") or k == "recipe"}
    tracker.log_params(flatten(job.plan.settings), {"command": "swap", **tags})


def _write_job(job: Job, run_id: str | None, finished: bool) -> dict[str, Any]:
    """Whose output this is, before anything else is in it; `finished` once all has been done."""
    facts = {
        "command": "swap",
        "recipe": job.plan.recipe,
        "finished": finished,
        "mlflow_run_id": run_id,
        "mlflow_uri": tracking_uri(job.plan.settings.tracking),
        "checkpoint_sha256": job.plan.header.digest,
        "models_sha256": job.model_digest,
        "data_sha256": job.data_digest,
        "settings": job.plan.settings.model_dump(mode="json"),
    }
    write_job(job.plan.settings.output, facts)
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
