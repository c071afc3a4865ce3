"""The evaluation job: one worker swaps people of a prepared set with each other and measures what came of it."""

from __future__ import annotations

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from pipeline.config import EvaluateConfig, ValidationConfig
from pipeline.evaluation.pictures import write_png
from pipeline.evaluation.protocol import differences
from pipeline.media.store import store_at
from pipeline.model.checkpoint import load_generator
from pipeline.model.device import find_device
from pipeline.preparation.dataset import FaceDataset
from pipeline.runners.board import open_board
from pipeline.runners.books import note_run, write_job
from pipeline.runners.cluster import ray_data_job
from pipeline.runners.evaluation_plan import (
    FIGURES,
    Evaluation,
    describe_evaluation,
    evaluation_needs,
    plan_evaluation,
    who_plays,
)
from pipeline.runners.progress import Progress, say
from pipeline.runners.tracking import Tracker, tell_what_waits, tracked
from pipeline.settings import flatten
from pipeline.training.loop import GRID
from pipeline.training.validation import Validation, Validator

_POLL_S = 0.5
_PREFIX = "validation/"


def run_evaluation(settings: EvaluateConfig, dry_run: bool = False) -> dict[str, Any]:
    """Evaluate a generator.

    Args:
        settings: of the job.
        dry_run: only plan.

    Returns:
        The result for stdout.

    Raises:
        FatalError: the job cannot start or go on.
    """
    start = time.time()
    job = plan_evaluation(settings)
    if dry_run:
        return {"command": "evaluate", "status": "planned", **describe_evaluation(job)}
    tracking, output, run_id = job.settings.tracking, job.settings.output, job.known.get("mlflow_run_id")
    if job.known.get("finished"):
        say("nothing to do", message=f"{output} has the figures")
        run_id = tell_what_waits(tracking, output, job.recipe) or run_id
        note_run(output, run_id)
        return _result(job, json.loads(store_at(output).read(FIGURES))["figures"], run_id, start)
    _write_record(job, run_id, finished=False)
    with tracked(tracking, output, job.recipe, run_id) as tracker:
        digests = {"protocol_digest": job.protocol.digest, "checkpoint_sha256": job.checkpoint_sha256}
        tracker.log_params(flatten(job.settings), {"command": "evaluate", "recipe": job.recipe, **digests})
        seen = _measured(job)
        figures = {name.removeprefix(_PREFIX): round(value, 6) for name, value in seen.metrics.items()}
        _write(job, figures, seen, tracker)
        _write_record(job, tracker.run_id, finished=True)
    return _result(job, figures, tracker.run_id, start)


def _measured(job: Evaluation) -> Validation:
    """What the worker saw, with progress meanwhile."""
    worker, settings = job.settings.worker, job.settings
    with (
        ray_data_job("evaluate", settings.ray, evaluation_needs(settings)),
        Progress("evaluate", settings.pairs) as progress,
    ):
        board = open_board()
        remote = ray.remote(num_cpus=worker.cpus, num_gpus=worker.gpus or None)(evaluation_worker)
        ending = remote.remote(settings, board)
        while True:
            ready, _ = ray.wait([ending], timeout=_POLL_S)
            swapped = sum(report["swapped"] for report in ray.get(board.take.remote()))
            if swapped:
                progress.advance(swapped, {})
            if ready:
                seen: Validation = ray.get(ending)
                return seen


def evaluation_worker(settings: EvaluateConfig, board: ActorHandle[Any]) -> Validation:
    """What Ray runs: networks, swaps, figures.

    Args:
        settings: of the job.
        board: actor that progress is told to.
    """
    torch.set_num_threads(settings.worker.threads)
    device = find_device(settings.worker.device)
    generator = load_generator(settings.checkpoint).to(device)
    dataset, model = FaceDataset(settings.data, cached_shards=2), generator.config
    looking = ValidationConfig(
        pairs=settings.pairs, judge=settings.judge, grid=settings.grid, batch_size=settings.batch_size
    )
    players = who_plays(settings, dataset)
    validator = Validator(dataset, players, looking, settings.models, model.template, model.crop_size, device)
    return validator(generator, lambda count: board.tell.remote({"swapped": count}))


def _write(job: Evaluation, figures: dict[str, float], seen: Validation, tracker: Tracker) -> None:
    """Figures and picture, to the output and to MLflow."""
    output = job.settings.output
    facts = {
        "checkpoint": job.settings.checkpoint,
        "checkpoint_sha256": job.checkpoint_sha256,
        "protocol_digest": job.protocol.digest,
        "people": len(job.protocol.people),
        "pairs": job.protocol.pairs,
        "figures": figures,
    }
    text = json.dumps(facts, indent=1)
    write_png(f"{output}/{GRID}", seen.grid)
    store_at(output).write(FIGURES, text.encode())
    tracker.log_metrics(figures, 0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FIGURES).write_text(text, encoding="utf-8")
        write_png(f"{folder}/{GRID}", seen.grid)
        for name in (FIGURES, GRID):
            tracker.log_artifact(Path(folder) / name, passing=True)


def _write_record(job: Evaluation, run_id: str | None, finished: bool) -> None:
    facts = {
        "command": "evaluate",
        "recipe": job.recipe,
        "finished": finished,
        "mlflow_run_id": run_id,
        "mlflow_uri": job.settings.tracking.address(),
        "protocol_digest": job.protocol.digest,
        "checkpoint_sha256": job.checkpoint_sha256,
        "version": version("simswap-ray"),
        "settings": job.settings.model_dump(mode="json"),
    }
    write_job(job.settings.output, facts)


def _result(job: Evaluation, figures: dict[str, float], run_id: str | None, start: float) -> dict[str, Any]:
    against = {}
    if job.baseline is not None:
        less = differences(figures, job.protocol.digest, job.baseline, str(job.settings.baseline))
        against = {"differences": less}
    return {
        "command": "evaluate",
        "status": "done",
        "output": job.settings.output,
        "checkpoint_sha256": job.checkpoint_sha256,
        "protocol_digest": job.protocol.digest,
        "people": len(job.protocol.people),
        "pairs": job.protocol.pairs,
        "figures": figures,
        **against,
        "mlflow": {"uri": job.settings.tracking.address(), "run_id": run_id},
        "seconds": round(time.time() - start, 2),
    }
