"""The training loop in plain view: batch, step, figures, checkpoint, validation, until the last step.

It knows no engine. What differs between one process and a cluster is behind `Session`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch

from pipeline.config import TrainConfig
from pipeline.model.checkpoint import EncoderReference
from pipeline.training.batches import Batch
from pipeline.training.state import History, load_state, save_state
from pipeline.training.step import TrainingStep
from pipeline.training.validation import Validator
from pipeline.training.workers import any_worker

GRID = "grid.png"
"""Picture of the validation in a checkpoint's folder."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the workers tell between steps.

    Attributes:
        done: optimiser steps done.
        history: figures of the steps since the report before, each with its number under `step`.
        validation: figures of the validation at this step; empty where none was due.
        stopped: the run ends here because it was asked to, not because it is done.
    """

    done: int
    history: History
    validation: dict[str, float]
    stopped: bool = False


class Session(Protocol):
    """One worker's view of what runs it.

    Attributes:
        rank: 0 … workers - 1.
        workers: how many train together.
    """

    rank: int
    workers: int

    def batches(self, start: int) -> Iterator[Batch]:
        """This worker's batches from a step on, ready or being made."""
        ...

    def restored(self) -> AbstractContextManager[Path | None]:
        """The folder of the last checkpoint; None at the beginning."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody wants the run to save and end, as far as this worker knows."""
        ...

    def save_requested(self) -> bool:
        """Whether to save at once because a worker's machine is about to go: the same answer on all workers."""
        ...

    def report(self, report: Report, folder: Path | None) -> None:
        """Tell what was done, with a checkpoint's folder where there is one, which then belongs to the session.

        Every worker calls it at the same steps; rank 0 alone has a folder.
        """
        ...


def train(
    settings: TrainConfig,
    session: Session,
    step: TrainingStep,
    validator: Validator | None,
    encoder: EncoderReference,
    facts: Mapping[str, Any],
) -> Report:
    """Train from the last checkpoint, or from the beginning, to the last step.

    Args:
        settings: of the job.
        session: what runs this worker.
        step: networks and optimisers as they are at the beginning.
        validator: on rank 0; None on the others, or for no validation.
        encoder: identity encoder, for the checkpoints.
        facts: for people, into the checkpoints.

    Returns:
        The last report.

    Raises:
        TrainingError: a loss that is not finite.
        CheckpointError: the last checkpoint does not fit.
    """
    with session.restored() as folder:
        done, history = (0, History()) if folder is None else load_state(folder, step, settings)
    session.report(Report(done, history, {}), None)  # what the tracker may have missed
    told, saved = History(), History()  # since the last report, since the last checkpoint
    batches = _timed(session.batches(done))
    stopped, validation = False, dict[str, float]()
    while done < settings.trainer.steps and not stopped:
        waited_s, batch = next(batches)
        start = time.perf_counter()
        figures = step(batch)
        done += 1
        figures |= _speed(settings, waited_s, time.perf_counter() - start)
        told.append({"step": done, **figures})
        saved.append(told[-1])
        stopped = any_worker(session.stop_requested(), step.device)
        last = done == settings.trainer.steps
        due = last or done % settings.validation.every_steps == 0
        tell = done % settings.log_every_steps == 0
        save = due or stopped or done % settings.checkpoints.every_steps == 0
        if save or (tell and session.save_requested()):
            validation = {}
            folder = Path(tempfile.mkdtemp(prefix="simswap-checkpoint-")) if session.rank == 0 else None
            if validator is not None and due and folder is not None:
                validation = _validate(validator, step, folder)
            if folder is not None:
                save_state(folder, step, done, settings, encoder, saved, {**facts, **validation})
            session.report(Report(done, told, validation, stopped), folder)
            told, saved = History(), History()
        elif tell:
            session.report(Report(done, told, {}), None)
            told = History()
    return Report(done, [], validation, stopped)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield time.perf_counter() - start, batch


def _validate(validator: Validator, step: TrainingStep, folder: Path) -> dict[str, float]:
    """Figures of the averaged generator; the picture goes into the folder."""
    start = time.perf_counter()
    seen = validator(step.average.network)
    cv2.imwrite(str(folder / GRID), cv2.cvtColor(seen.grid, cv2.COLOR_RGB2BGR))
    return {**seen.metrics, "validation/seconds": time.perf_counter() - start}


def _speed(settings: TrainConfig, waited_s: float, worked_s: float) -> dict[str, float]:
    """Samples a second over all workers, the share of waiting for data, memory of the GPU."""
    whole = waited_s + worked_s
    figures = {
        "speed/samples_per_s": settings.trainer.global_batch_size / whole,
        "speed/step_s": whole,
        "speed/data_share": waited_s / whole,
    }
    if torch.cuda.is_available():
        figures["gpu/peak_memory_bytes"] = float(torch.cuda.max_memory_allocated())
    return figures
