"""A training session in this process, without an engine: for tests, and for a machine that has no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from pipeline.config import TrainConfig
from pipeline.training.batches import Batch, BatchLoader
from pipeline.training.loop import Report
from pipeline.training.workers import num_workers


class LocalSession:
    """`Session` on a folder of this machine; under torch's process group one of several workers.

    Args:
        settings: of the job.
        folder: for checkpoints.
        loaders: processes that make batches ahead; 0 makes each when it is asked for.

    Attributes:
        reports: what this worker has told.
    """

    def __init__(self, settings: TrainConfig, folder: Path, loaders: int = 0) -> None:
        self.workers = num_workers()
        self.rank = dist.get_rank() if self.workers > 1 else 0
        self.reports: list[Report] = []
        self._settings = settings
        self._folder = folder
        self._loaders = loaders

    def batches(self, start: int) -> Iterator[Batch]:
        """In order, each the same whoever makes it."""
        steps = _Steps(self._settings, start, self.rank, self.workers)
        if not self._loaders:
            return (steps[n] for n in range(len(steps)))
        ahead = self._settings.feed.prefetch_batches
        spawned: dict[str, Any] = {"multiprocessing_context": "spawn", "worker_init_fn": _one_thread}
        loader = DataLoader(
            steps, None, num_workers=self._loaders, prefetch_factor=ahead, collate_fn=_as_it_is, **spawned
        )
        return iter(loader)

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


class _Steps(Dataset[Batch]):
    """Batches by their place; the set is opened in the process that reads the first."""

    def __init__(self, settings: TrainConfig, start: int, rank: int, workers: int) -> None:
        self._settings = settings
        self._start = start
        self._place = rank, workers
        self._load: BatchLoader | None = None

    def __len__(self) -> int:
        return self._settings.trainer.steps - self._start

    def __getitem__(self, place: int) -> Batch:
        if self._load is None:
            self._load = BatchLoader(self._settings)
        return self._load(self._start + place, *self._place)


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(loader: int) -> None:
    cv2.setNumThreads(1)
