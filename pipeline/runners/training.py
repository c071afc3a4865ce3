"""The training job: plan, start Ray Train, follow it, and go on after whatever ended it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from pipeline.config import TrainConfig
from pipeline.errors import FatalError, TrainingError
from pipeline.runners.board import open_board
from pipeline.runners.books import note_run
from pipeline.runners.cluster import start_ray
from pipeline.runners.progress import Progress, say, warn
from pipeline.runners.stopping import sigterm_interrupts
from pipeline.runners.tracking import spool_file, tell_what_waits, tracked
from pipeline.runners.training_plan import (
    BEST,
    CHECKPOINTS,
    TrainJob,
    describe_training,
    plan_training,
    run_params,
    training_needs,
    write_record,
)
from pipeline.runners.training_story import TrainingStory, best_so_far, show_first_batch
from pipeline.runners.training_worker import train_worker

_POLL_S = 0.5
_UNSEEN = 1 / 255  # mean difference between pictures that nobody sees
_MEND = "The same command goes on from the last checkpoint"


def run_training(settings: TrainConfig, dry_run: bool = False) -> dict[str, Any]:
    """Train from the last checkpoint in the output, or from the beginning.

    Args:
        settings: of the job.
        dry_run: only plan.

    Returns:
        The result for stdout.

    Raises:
        FatalError: the run cannot start or go on; its checkpoints stay.
        KeyboardInterrupt: it was asked to stop (Ctrl-C, SIGTERM) and has saved first.
    """
    start = time.time()
    job = plan_training(settings)
    if dry_run:
        return {"command": "train", "status": "planned", **describe_training(job)}
    tracking, output, run_id = job.settings.tracking, job.settings.output, job.known.get("mlflow_run_id")
    if job.finished:
        say("nothing to do", message=f"{output} has its {job.settings.trainer.steps} steps")
        run_id = tell_what_waits(tracking, output, job.recipe) or run_id
        note_run(output, run_id)
        return _result(job, run_id, start)
    write_record(job, run_id, finished=False)
    with tracked(tracking, output, job.recipe, run_id) as tracker:
        digests = {"recipe": job.recipe, "data_digest": job.header.digest, "encoder_sha256": job.encoder.digest}
        tracker.log_params(run_params(job), {"command": "train", **digests})
        if run_id is None:
            show_first_batch(job.settings, tracker)
        _fit(job, tracker.run_id)
        write_record(job, tracker.run_id, finished=True)
    return _result(job, tracker.run_id, start)


def _fit(job: TrainJob, run_id: str | None) -> None:
    """Run Ray Train to the end on a running Ray or one of our own.

    Ray Train replaces workers, but not its controller. Where that dies, all that it left in Ray goes with our
    connection, and another one goes on from the last checkpoint.
    """
    settings = job.settings
    ours, failures = not ray.is_initialized(), 0
    while True:
        try:
            start_ray(settings.ray, training_needs(settings))
            board = open_board()
            ended = _followed(_trainer(job, run_id, board), board, settings)
            break
        except RayActorError as error:
            said, failures = " ".join(str(error).split())[:200], failures + 1
            if not ours or failures > settings.workers.max_failures:
                raise FatalError("train", f"its controller died ({said})", _MEND) from error
            warn(f"the training's controller died ({said}); another goes on from the last checkpoint")
        finally:
            if ours:
                ray.shutdown()
    if "fatal" in ended:
        subject, problem, mend = ended["fatal"]
        raise TrainingError(subject, problem, f"{mend}; the checkpoints before are in {settings.output}/{CHECKPOINTS}")
    if ended["stopped"]:
        say("stopped", message=f"saved after step {ended['done']} in {settings.output}/{CHECKPOINTS}")
        raise KeyboardInterrupt


def _trainer(job: TrainJob, run_id: str | None, board: ActorHandle[Any]) -> TorchTrainer:
    settings = job.settings
    workers = settings.workers
    facts = {"data_digest": job.header.digest, "recipe": job.recipe, "mlflow_run_id": run_id or ""}
    elastic = workers.min_workers is not None and workers.min_workers < workers.workers
    counts: Any = (workers.min_workers, workers.workers) if elastic else workers.workers
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    return TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings, "board": board, "facts": facts},
        scaling_config=ScalingConfig(num_workers=counts, use_gpu=workers.gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=settings.output,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=settings.checkpoints.keep),
            callbacks=[TrainingStory(settings, spool_file(settings.output, job.recipe), run_id, board)],
        ),
    )


def _followed(trainer: TorchTrainer, board: ActorHandle[Any], settings: TrainConfig) -> Mapping[str, Any]:
    """Fit beside this thread, so that this one shows progress and takes wishes to stop.

    Raises:
        FatalError: the workers failed too often, or with an error of ours.
        KeyboardInterrupt: asked twice to stop.
    """
    asked = False
    with (
        Progress("train", settings.trainer.steps, unit="step") as progress,
        ThreadPoolExecutor(1, "fit") as beside,
        sigterm_interrupts(),
    ):
        ending = beside.submit(_fitted, trainer)  # no Thread.join: interrupted, it can take the thread for ended
        while not ending.done():
            try:
                wait([ending], _POLL_S)
                if asked:
                    board.stop.remote()  # again: a board begun anew knows nothing of it
                _show(ray.get(board.take.remote()), progress)
            except KeyboardInterrupt:
                if asked:
                    ray.shutdown()
                    raise
                asked = True
                say("stopping", message="saving a checkpoint; once more to stop without")
        _show(ray.get(board.take.remote()), progress)
        return ending.result()


def _fitted(trainer: TorchTrainer) -> Mapping[str, Any]:
    """What rank 0 returned.

    Raises:
        FatalError: the workers failed too often, or with an error of ours.
    """
    try:
        return dict(trainer.fit().return_value or {})
    except TrainingFailedError as error:
        failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
        for failure in failures.values():
            cause = getattr(failure, "cause", None) or failure
            if isinstance(cause, FatalError):
                raise cause from error
        said = " ".join(str(next(iter(failures.values()), error)).split())[-400:]
        raise FatalError("train", f"workers failed ({said})", _MEND) from error


def _show(reports: list[dict[str, Any]], progress: Progress) -> None:
    for report in reports:
        figures = report["figures"]
        names = {"loss/identity": "identity", "speed/samples_per_s": "samples/s", "speed/data_share": "data"}
        progress.reach(report["done"], {short: round(figures[k], 3) for k, short in names.items() if k in figures})
        if report["validation"]:
            seen = {k.removeprefix("validation/"): round(v, 4) for k, v in report["validation"].items()}
            say("validation", step=report["done"], **seen)
            if remark := doubt(report["validation"]):
                warn(remark)


def doubt(validation: Mapping[str, float]) -> str | None:
    """What somebody who watches should know of a validation's figures, if anything."""
    if validation.get("validation/changed", 1.0) < _UNSEEN:
        return (
            "results are their targets: nothing is swapped. If model.mask is set, draw without it first (docs/train.md)"
        )
    return None


def _result(job: TrainJob, run_id: str | None, start: float) -> dict[str, Any]:
    settings = job.settings
    best = best_so_far(settings.output)
    return {
        "command": "train",
        "status": "done",
        "steps": settings.trainer.steps,
        "output": settings.output,
        "checkpoint": f"{settings.output}/{BEST}" if best else None,
        "best": best,
        "recipe": job.recipe,
        "mlflow": {"uri": settings.tracking.address(), "run_id": run_id},
        "seconds": round(time.time() - start, 2),
    }
