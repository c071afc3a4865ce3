"""One training worker on Ray Train: its networks, its batches, its reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import ray
import ray.train
import torch
from ray.actor import ActorHandle
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import get_device

from pipeline.config import TrainConfig
from pipeline.errors import TrainingError
from pipeline.preparation.dataset import FaceDataset
from pipeline.runners.feed import feed
from pipeline.training.batches import Batch
from pipeline.training.build import build_step, encoder_reference
from pipeline.training.loop import Report, train
from pipeline.training.split import split_identities
from pipeline.training.validation import Validator


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train runs on every worker.

    Args:
        config: `settings` as `TrainConfig`, `board` the actor between driver and workers, `facts` for the checkpoints.

    Returns:
        How the run ended: `done` steps, whether it was `stopped`, or `fatal` with the parts of an error that trying
        again would not help.
    """
    settings: TrainConfig = config["settings"]
    torch.set_num_threads(settings.workers.threads)
    cv2.setNumThreads(1)
    device = get_device() if settings.trainer.device == "auto" else torch.device(settings.trainer.device)
    session = RaySession(settings, config["board"])
    step = build_step(settings, device)
    validator = _validator(settings, device) if session.rank == 0 else None
    try:
        report = train(settings, session, step, validator, encoder_reference(settings.models), config["facts"])
    except TrainingError as error:  # the same on all workers
        return {"fatal": [error.subject, error.problem, error.mend]}
    return {"done": report.done, "stopped": report.stopped, "validation": report.validation}


def _validator(settings: TrainConfig, device: torch.device) -> Validator:
    dataset = FaceDataset(settings.data, cached_shards=2)
    held_out = split_identities(dataset.names, settings.validation)
    model = settings.model
    return Validator(dataset, held_out, settings.validation, settings.models, model.template, model.crop_size, device)


class RaySession:
    """`Session` on Ray Train.

    Args:
        settings: of the job.
        board: actor between driver and workers.
    """

    def __init__(self, settings: TrainConfig, board: ActorHandle[Any]) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.workers = context.get_world_size()
        self._settings = settings
        self._stop = board.wait_for_stop.remote()
        self._saved_before_preemption = False

    def batches(self, start: int) -> Iterator[Batch]:
        """This worker's batches, made by Ray Data beside it."""
        return feed(self._settings, start, self.rank, self.workers)

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        """The folder of the last checkpoint in the output, on this machine."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def stop_requested(self) -> bool:
        """Whether the driver wants the run to save and end."""
        ready, _ = ray.wait([self._stop], timeout=0)
        return bool(ready)

    def save_requested(self) -> bool:
        """Whether a worker's machine is about to go; once for each time."""
        going = ray.train.get_preemption_info() is not None
        first, self._saved_before_preemption = going and not self._saved_before_preemption, going
        return first

    def report(self, report: Report, folder: Path | None) -> None:
        """Through Ray Train to the controller; a checkpoint goes to the output."""
        told = asdict(report) if self.rank == 0 else {}
        name = f"step-{report.done:08d}"
        if folder is None:
            ray.train.report(told, checkpoint_dir_name=name)
            return
        checkpoint = Checkpoint.from_directory(str(folder))
        last = report.stopped or report.done == self._settings.trainer.steps
        beside = self._settings.checkpoints.asynchronous and not last
        mode = CheckpointUploadMode.ASYNC if beside else CheckpointUploadMode.SYNC
        ray.train.report(told, checkpoint, name, mode)
        if not beside:
            shutil.rmtree(folder, ignore_errors=True)
