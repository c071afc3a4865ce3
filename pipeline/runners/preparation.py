"""The preparation job: plan, make the shards that are missing, decide who stays, tell the story."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import PrepareConfig
from pipeline.errors import DatasetError
from pipeline.media.local_files import write_atomically
from pipeline.media.store import BOOKS, PARTIAL, store_at
from pipeline.preparation.assembly import PHOTOS, gather, photos_table, set_digest, write_header, write_set
from pipeline.preparation.dataset import HEADER, DatasetHeader
from pipeline.preparation.listing import Block
from pipeline.preparation.people import settle
from pipeline.preparation.prepare import Prepare
from pipeline.preparation.shards import clear_outdated, parquet, write_block
from pipeline.runners.books import note_run, write_job
from pipeline.runners.cluster import dataset_of, in_pool, pool_needs, ray_data_job
from pipeline.runners.metrics import MeasuredStage
from pipeline.runners.preparation_plan import PrepareJob, describe_preparation, plan_preparation
from pipeline.runners.preparation_report import prepared_metrics, summarise, write_preparation_report
from pipeline.runners.progress import Progress, say
from pipeline.runners.tracking import Tracker, tell_what_waits, tracked
from pipeline.runners.wire import blocks_to_tables, table_to_blocks
from pipeline.settings import flatten

_PICTURES = {"report": "report.html", "contact_sheet": "contact_sheet.jpg"}


class PrepareStage(MeasuredStage):
    """`Prepare` for Ray Data: blocks of photographs become shards on disk; the driver gets counts."""

    name = "prepare"

    def __init__(self, settings: PrepareConfig) -> None:
        self._prepare = Prepare(settings)
        self._output = settings.output

    def work(self, table: pa.Table) -> pa.Table:
        """Rows of blocks to rows of counts."""
        reasons = []
        for block in table_to_blocks(table):
            prepared = [self._prepare(photo) for photo in block.photos]
            write_block(self._output, block, prepared)
            reasons += [one.reason for one in prepared]
        return pa.table({"reason": pa.array(reasons, pa.string())})


def run_prepare(settings: PrepareConfig, dry_run: bool = False) -> dict[str, Any]:
    """Prepare a training set.

    A shard of the same recipe and photographs is not made again; a finished set writes nothing.

    Args:
        settings: of the job.
        dry_run: only plan.

    Returns:
        The JSON object that the command prints; `status` is `planned` or `done`.

    Raises:
        FatalError: the job cannot start or go on; what was done stays done.
    """
    start = time.time()
    job = plan_preparation(settings)
    if dry_run:
        return {"command": "prepare", "status": "planned", **describe_preparation(job)}
    tracking, output, run_id = job.settings.tracking, job.settings.output, job.known.get("mlflow_run_id")
    if job.finished:
        say("nothing to do", message=f"{output} holds the set of all {job.photos} photographs")
        run_id = tell_what_waits(tracking, output, job.recipe) or run_id
        note_run(output, run_id)
        return _result(job, job.known["summary"], run_id, start)
    _write_job(job, run_id)
    with tracked(tracking, output, job.recipe, run_id) as tracker:
        try:
            _open_books(job, tracker)
            if job.todo:
                _watch(job, tracker)
            summary = _close_books(job, tracker)
        finally:
            store_at(output).remove_folder(PARTIAL)
    return _result(job, summary, tracker.run_id, start)


def make_shards(settings: PrepareConfig, blocks: Sequence[Block]) -> Iterator[pa.Table]:
    """Take blocks through the pool.

    Yields:
        A row a photograph with the reason why it was dropped, once its shard is on disk.

    Raises:
        FatalError: the pool does not fit, or a worker failed for more than one photograph's sake.
    """
    with ray_data_job("prepare", settings.ray, {"pool": pool_needs(settings.pool)}):
        dataset = dataset_of(blocks_to_tables(blocks))
        dataset = in_pool(dataset, PrepareStage, settings, settings.pool, len(blocks))
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _open_books(job: PrepareJob, tracker: Tracker) -> None:
    """Say that the output holds no whole set, and clear away what no longer holds."""
    output = Path(job.settings.output)
    (output / HEADER).unlink(missing_ok=True)
    store_at(job.settings.output).remove_folder(PARTIAL)
    clear_outdated(job.settings.output, job.blocks)
    tags = {"recipe": job.recipe, "models_sha256": job.models_digest, "data_sha256": job.data_digest}
    tracker.log_params(flatten(job.settings), {"command": "prepare", **tags})


def _watch(job: PrepareJob, tracker: Tracker) -> None:
    """Make the shards, and follow them by their counts."""
    counts: Counter[str] = Counter()
    with Progress("prepare", sum(len(block.photos) for block in job.todo)) as progress:
        for table in make_shards(job.settings, job.todo):
            reasons = table.column("reason").to_pylist()
            counts.update("dropped" if reason else "kept" for reason in reasons)
            progress.advance(len(reasons), {"kept": counts["kept"], "dropped": counts["dropped"]})
            tracker.log_metrics({f"progress/{k}": v for k, v in counts.items()}, step=sum(counts.values()))


def _close_books(job: PrepareJob, tracker: Tracker) -> dict[str, Any]:
    """Decide who stays, tell the story, and write the set; its header last.

    Raises:
        DatasetError: fewer than two identities are left; the story is told, there is no set.
    """
    settings, books = job.settings, Path(job.settings.output) / BOOKS
    gathered = gather(settings.output, job.blocks)
    people = settle(gathered.labels(), gathered.photo, gathered.embeddings, settings)
    photos = photos_table(gathered, people, settings)
    summary = summarise(photos, people, settings)
    write_atomically(Path(settings.output) / PHOTOS, parquet(photos))
    tracker.log_metrics(prepared_metrics(photos, summary), step=photos.num_rows)
    for path in write_preparation_report(settings, books, gathered, people, photos, summary):
        tracker.log_artifact(path)
    tracker.log_artifact(Path(settings.output) / PHOTOS)
    if summary["identities"] < 2:
        raise _no_set(job, summary)
    write_set(settings.output, gathered, people)
    header = DatasetHeader(
        crop_size=settings.crop_size,
        template=settings.template,
        encoder_name=job.encoder.name,
        encoder_digest=job.encoder.digest,
        embedding_size=gathered.embeddings.shape[1],
        samples=summary["faces"],
        identities=summary["identities"],
        digest=set_digest(job.recipe, photos),
        recipe=job.recipe,
    )
    write_header(settings.output, header)
    _write_job(job, tracker.run_id, summary)
    return summary


def _no_set(job: PrepareJob, summary: dict[str, Any]) -> DatasetError:
    counts = summary["photos"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    left = f"{('no', 'one')[summary['identities']]} identity left of {counts['total']} photographs (dropped: {dropped})"
    mend = f"Loosen the filters that dropped most, or add people; {PHOTOS} says why for each photograph"
    return DatasetError(job.settings.output, f"{left}; training needs two", mend)


def _write_job(job: PrepareJob, run_id: str | None, summary: dict[str, Any] | None = None) -> None:
    """Whose output this is, before anything else is in it; with a summary once all has been done."""
    facts = {
        "command": "prepare",
        "recipe": job.recipe,
        "finished": summary is not None,
        "summary": summary,
        "mlflow_run_id": run_id,
        "mlflow_uri": job.settings.tracking.address(),
        "models_sha256": job.models_digest,
        "data_sha256": job.data_digest,
        "settings": job.settings.model_dump(mode="json"),
    }
    write_job(job.settings.output, facts)


def _result(job: PrepareJob, summary: dict[str, Any], run_id: str | None, start: float) -> dict[str, Any]:
    output = Path(job.settings.output)
    pictures = {name: output / BOOKS / file for name, file in _PICTURES.items()}
    return {
        "command": "prepare",
        "status": "done",
        **summary,
        "shards": len(job.blocks),
        "shards_made_now": len(job.todo),
        "output": str(output),
        "photos_table": str(output / PHOTOS),
        **{name: str(path) for name, path in pictures.items() if path.exists()},
        "recipe": job.recipe,
        "mlflow": {"uri": job.settings.tracking.address(), "run_id": run_id},
        "seconds": round(time.time() - start, 2),
    }
