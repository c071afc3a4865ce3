"""A training session in this process, without an engine: for tests, and for a machine that has no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from pipeline.config import TrainConfig
from pipeline.training.batches import Batch, BatchLoader
from pipeline.training.loop import Report
from pipeline.training.workers import num_workers


class LocalSession:
    """`Session` on a folder of this machine; under torch's process group one of several workers.

    Args:
        settings: of the job.
        folder: for checkpoints.

    Attributes:
        reports: what this worker has told.
    """

    def __init__(self, settings: TrainConfig, folder: Path) -> None:
        self.workers = num_workers()
        self.rank = dist.get_rank() if self.workers > 1 else 0
        self.reports: list[Report] = []
        self._settings = settings
        self._folder = folder

    def batches(self, start: int) -> Iterator[Batch]:
        """Made when they are asked for."""
        load = BatchLoader(self._settings)
        for step in range(start, self._settings.trainer.steps):
            yield load(step, self.rank, self.workers)

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        """The latest checkpoint in the folder."""
        yield max(self._folder.glob("step-*"), default=None)

    def stop_requested(self) -> bool:
        """Nobody asks."""
        return False

    def save_requested(self) -> bool:
        """No machine goes away."""
        return False

    def report(self, report: Report, folder: Path | None) -> None:
        """Keep the report; a checkpoint moves into the folder, the oldest beyond `checkpoints.keep` go."""
        self.reports.append(report)
        if folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, self._folder / f"step-{report.done:08d}")
        for old in sorted(self._folder.glob("step-*"))[: -self._settings.checkpoints.keep]:
            shutil.rmtree(old)
