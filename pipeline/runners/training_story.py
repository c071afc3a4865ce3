"""What a training run tells: figures and pictures to MLflow, progress to the driver; it keeps the best generator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle
from ray.train import Checkpoint, UserCallback

from pipeline.config import TrainConfig
from pipeline.evaluation.pictures import lay_out, write_png
from pipeline.media.store import store_at
from pipeline.runners.tracking import Tracker
from pipeline.runners.training_plan import BEST
from pipeline.training.batches import BatchLoader
from pipeline.training.loop import GRID
from pipeline.training.state import GENERATOR

_BEST_RECORD = "best.json"
_SHOWN = 12  # samples of the first batch


class TrainingStory(UserCallback):  # type: ignore[misc]
    """Runs on the controller after every report, when its checkpoint is in the output.

    A step is told once: a run that resumes from a checkpoint comes past steps that were told before, and the figures
    of steps that a kill kept from being told come again with the checkpoint.

    Args:
        settings: of the job.
        spool: for what MLflow cannot be told now; the driver's.
        run_id: MLflow run, begun by the driver; None where it could not yet be begun, or without MLflow.
        board: actor that the driver takes reports from.
    """

    def __init__(self, settings: TrainConfig, spool: Path, run_id: str | None, board: ActorHandle[Any]) -> None:
        self._settings = settings
        self._spool = spool
        self._run_id = run_id
        self._board = board
        self._tracker: Tracker | None = None

    def after_report(
        self, run_context: object, metrics: Sequence[Mapping[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Tell what rank 0 reported.

        Args:
            run_context: Ray Train's; not used.
            metrics: of every worker; rank 0's is a `Report` as a mapping.
            checkpoint: in the output, or None.
        """
        report = next((m for m in metrics if m), None)
        if report is None:
            return
        self._opened().log_history(report["history"])
        validation, done = report["validation"], int(report["done"])
        if validation and checkpoint is not None:
            with tempfile.TemporaryDirectory() as folder:
                self._show(Path(checkpoint.to_directory(folder)), done, validation)
        last = report["history"][-1] if report["history"] else {}
        self._board.tell.remote({"done": done, "figures": last, "validation": validation})

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = Tracker(self._settings.tracking, self._spool, self._run_id)
        return self._tracker

    def _show(self, folder: Path, done: int, validation: Mapping[str, float]) -> None:
        """A validation: figures, picture, and the generator if none was better."""
        tracker = self._opened()
        tracker.log_validation(validation, done)
        if (folder / GRID).exists():
            tracker.log_artifact((folder / GRID).rename(folder / f"grid-{done:08d}.png"), "validation", passing=True)
        store = store_at(self._settings.output)
        score = validation.get("validation/score", float("-inf"))
        record = store.read_or_none(_BEST_RECORD) or b'{"score": -Infinity}'
        if not score > json.loads(record)["score"]:  # also where it is no number
            return
        store.write(BEST, (folder / GENERATOR).read_bytes())
        store.write(_BEST_RECORD, json.dumps({"steps": done, "score": score, **validation}, indent=1).encode())
        best = (folder / GENERATOR).rename(folder / BEST)
        tracker.log_artifact(best, "best", passing=True)
        if self._settings.registered_model is not None:
            tracker.register(self._settings.registered_model, f"best/{BEST}", {"steps": str(done)})


def show_first_batch(settings: TrainConfig, tracker: Tracker) -> None:
    """A picture of what the generator will see, augmented and disguised: given above target, for people to judge."""
    batch = BatchLoader(settings)(0)
    rows = [list(crops[:_SHOWN].float() / 255.0) for crops in (batch.given, batch.target)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "first-batch.png"
        write_png(str(path), lay_out(rows))
        tracker.log_artifact(path, "data", passing=True)


def best_so_far(output: str) -> dict[str, Any]:
    """Steps and figures of the best generator in an output; empty when none was validated yet."""
    record = store_at(output).read_or_none(_BEST_RECORD)
    return dict(json.loads(record)) if record is not None else {}
