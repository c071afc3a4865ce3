"""The story of a job in MLflow. A server that is down costs seconds and a warning, never the work nor the story.

What cannot be told now waits in a spool and is told in order, with its own times, when the server answers again:
in this job, or when the same command is run again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.utils.time import get_current_time_millis

from pipeline.config import StorageConfig, TrackingConfig
from pipeline.redaction import redacted
from pipeline.runners.books import note_run
from pipeline.runners.progress import say, warn
from pipeline.runners.tracking_run import UNUSABLE, MlflowRun, connect, first_line
from pipeline.runners.tracking_spool import Record, Spool, spool_file, spool_folder

_FIRST_WAIT_S = 10.0
_LONGEST_WAIT_S = 300.0


class Tracker:
    """One MLflow run, begun or continued. What earlier runs left in the spool's folder is told first.

    Args:
        settings: where, under which experiment.
        spool: file for what cannot be told now; see `spool_file`.
        run_id: a run to continue; None begins one, or goes on with the one in the spool.

    Attributes:
        run_id: None while the server has not said it yet.
        status: of the run when all that it tells of has come to its end.
    """

    def __init__(self, settings: TrackingConfig, spool: Path, run_id: str | None = None) -> None:
        self.uri = settings.address()
        self.status = "FINISHED"
        self.run_id = run_id if settings.enabled else None
        self._settings = settings
        self._spool = Spool(spool)
        self._run: MlflowRun | None = None
        self._down = False
        self._wait_s = 0.0
        self._next_try_s = 0.0
        if settings.enabled:
            self._opening = self._how_it_begins(run_id)
            self._catch_up(self._opening)

    def log_params(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Settings and digests; what a continued run already has stays as it is."""
        self._tell("params", params={k: redacted(str(v)) for k, v in params.items()}, tags=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at a step, in one request."""
        self._tell("metrics", metrics={k: float(v) for k, v in metrics.items()}, step=step)

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Figures of single steps, each with its number under `step`; a step that the run has already is left out."""
        self._log_once("step", history)

    def log_validation(self, figures: Mapping[str, float], step: int) -> None:
        """Figures of a validation, unless the run has them."""
        self._log_once("validation/step", [{"validation/step": step, **figures}])

    def _log_once(self, counter: str, rows: Sequence[Mapping[str, float]]) -> None:
        if rows:
            self._tell("rows", counter=counter, rows=[{k: float(v) for k, v in row.items()} for row in rows])

    def register(self, name: str, artifact: str, tags: Mapping[str, str]) -> None:
        """A new version of a model in the registry, with the alias `candidate`.

        Args:
            name: of the registered model.
            artifact: path of its file among the run's artifacts.
            tags: of the version; the run has one version with them.
        """
        self._tell("register", name=name, artifact=artifact, tags=dict(tags))

    def log_artifact(self, path: Path, folder: str | None = None, passing: bool = False) -> None:
        """A file for people to look at, in a folder of the run's artifacts.

        Args:
            path: of the file.
            folder: among the run's artifacts.
            passing: the file will soon be gone, so that the spool has to keep a copy.
        """
        self._tell("artifact", path=str(path.absolute()), folder=folder, passing=passing)

    def end(self, status: str) -> None:
        """End the run (`FINISHED`, `FAILED` or `KILLED`), with a last attempt to tell what waits."""
        self._next_try_s = 0.0
        self._tell("end", status=status)
        if self._settings.enabled and self._spool:
            warn(_left(self.uri, self._spool.path))

    def _how_it_begins(self, run_id: str | None) -> Record:
        settings = self._settings
        facts = {"experiment": settings.experiment, "run_name": settings.run_name, "time": get_current_time_millis()}
        if run_id is not None:
            return {"what": "continue", "run_id": run_id, **facts}
        return self._spool.first() or {"what": "begin", "key": uuid.uuid4().hex, **facts}

    def _tell(self, what: str, **facts: object) -> None:
        """Tell it now, or keep it."""
        if not self._settings.enabled:
            return
        record: Record = {"what": what, "time": get_current_time_millis(), **facts}
        if self._run is None or self._spool:
            if time.monotonic() >= self._next_try_s:
                self._catch_up(record)
            else:
                self._keep(record)
            return
        try:
            self._run.tell(record)
        except UNUSABLE as error:
            self._lost(error, record)
        except KeyboardInterrupt:
            self._keep(record)
            raise

    def _catch_up(self, record: Record) -> None:
        """Try the server again: first what waits, then this record."""
        try:
            client = connect(self.uri)
            for path in _waiting(self._spool.path.parent):
                if path != self._spool.path:
                    _replay(Spool(path), MlflowRun(client, self.uri))
            run = MlflowRun(client, self.uri)
            _replay(self._spool, run)
            if run.run_id is None and record is not self._opening:  # another process has told what waited
                run.tell(self._opening)
            run.tell(record)
        except UNUSABLE as error:
            self._lost(error, record)
        except KeyboardInterrupt:
            self._keep(record)
            raise
        else:
            self._run, self.run_id = run, run.run_id
            self._opening = self._how_it_begins(self.run_id)
            if self._down:
                say("mlflow", message=f"MLflow at {self.uri} answers again; what it missed has been told")
            self._down, self._wait_s = False, 0.0

    def _lost(self, error: Exception, record: Record) -> None:
        """The server is down: keep what it has not heard, and ask again later, and later each time."""
        self._run = None
        self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        self._next_try_s = time.monotonic() + self._wait_s
        if not self._down:
            kept = f"the job goes on and keeps for it in {self._spool.path} what it misses"
            warn(f"MLflow at {self.uri} cannot be used ({first_line(error)}); {kept}")
        self._down = True
        self._keep(record)

    def _keep(self, record: Record) -> None:
        try:
            if record.get("passing"):
                record["path"] = str(self._spool.copy(Path(record["path"]), record["folder"]))
            if not self._spool and record is not self._opening:
                self._spool.add(self._opening)
            self._spool.add(record)
        except OSError as error:
            warn(f"{self._spool.path}: {record['what']} for MLflow cannot be kept ({error}); left out")


@contextmanager
def tracked(
    settings: TrackingConfig, output: str, recipe: str, run_id: str | None, storage: StorageConfig | None = None
) -> Iterator[Tracker]:
    """A job's MLflow run, noted in the record of its output: `KILLED` by Ctrl-C, `FAILED` by an error.

    Args:
        settings: where, under which experiment.
        output: of the job, whose record is written already.
        recipe: of the job.
        run_id: a run to continue.
        storage: of the output.
    """
    tracker = Tracker(settings, spool_file(output, recipe), run_id)
    status = "FAILED"
    try:
        note_run(output, tracker.run_id, storage)
        yield tracker
        status = tracker.status
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.end(status)
        note_run(output, tracker.run_id, storage)


def tell_what_waits(settings: TrackingConfig, output: str, recipe: str) -> str | None:
    """Tell what earlier runs of an output could not, where a job has nothing else to do; else `Tracker` does it.

    Returns:
        The id of this recipe's run, if it became known only now.
    """
    uri, run_ids = settings.address(), dict[Path, str | None]()
    waiting = _waiting(spool_folder(output)) if settings.enabled else []
    for path in waiting:
        try:
            run = MlflowRun(connect(uri), uri)
            _replay(Spool(path), run)
        except UNUSABLE as error:
            warn(f"{_left(uri, path)} ({first_line(error)})")
            break
        run_ids[path] = run.run_id
    if run_ids:
        say("mlflow", message=f"MLflow at {uri} has been told what it missed")
    return run_ids.get(spool_file(output, recipe))


def _waiting(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)


def _replay(spool: Spool, run: MlflowRun) -> None:
    """Tell a run what waits for it; what cannot be told goes on waiting.

    Raises:
        UNUSABLE: the server does not answer any longer.
    """
    opening, told = spool.first(), 0
    try:
        for record, end in spool.records():
            run.tell(record)
            told = end
    except UNUSABLE:
        if told and opening is not None:
            spool.cut(told, {**opening, "what": "continue", "run_id": run.run_id})
        raise
    spool.clear()


def _left(uri: str, spool: Path) -> str:
    return f"MLflow at {uri} was not told everything; {spool} keeps the rest, and the same command tells it"


__all__ = ["Tracker", "spool_file", "tell_what_waits", "tracked"]
