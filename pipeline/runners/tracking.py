"""The story of a job in MLflow. An unreachable server costs seconds and a warning, never the work."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from pipeline.config import Section, TrackingConfig
from pipeline.runners.progress import warn

_LONGEST_PARAM = 500
_MOST_METRICS = 1000  # of one request
_UNUSABLE = (MlflowException, OSError, ImportError)
"""What MLflow raises for a store that is not there, or whose driver is not installed."""


logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class Tracker:
    """One MLflow run, begun or continued.

    Args:
        settings: where, under which experiment.
        run_id: a run to continue; None begins one.
    """

    def __init__(self, settings: TrackingConfig, run_id: str | None = None) -> None:
        self.uri = tracking_uri(settings)
        self.run_id: str | None = None
        self._client: MlflowClient | None = None
        self._counted: dict[str, float] = {}
        if not settings.enabled:
            return
        try:
            client = MlflowClient(tracking_uri=self.uri)
            self.run_id = _continue(client, run_id) or _begin(client, settings)
            self._client = client
        except _UNUSABLE as error:
            self._give_up(error)

    def log_params(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Settings and digests; what a continued run already has stays as it is."""
        if self._client is None or self.run_id is None:
            return
        try:
            known = self._client.get_run(self.run_id).data.params
            new = [Param(k, str(v)[:_LONGEST_PARAM]) for k, v in params.items() if k not in known]
            for i in range(0, len(new), 100):
                self._client.log_batch(self.run_id, params=new[i : i + 100])
            self._client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        except _UNUSABLE as error:
            self._give_up(error)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at a step, in one request."""
        if self._client is None or self.run_id is None:
            return
        now = get_current_time_millis()
        try:
            self._client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])
        except _UNUSABLE as error:
            self._give_up(error)

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Figures of single steps, each with its number under `step`; a step that the run has already is left out."""
        self._log_once("step", history)

    def log_validation(self, figures: Mapping[str, float], step: int) -> None:
        """Figures of a validation, unless the run has them."""
        self._log_once("validation/step", [{"validation/step": step, **figures}])

    def _log_once(self, counter: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Rows whose counter is above the run's, whole rows to a request: none twice, none in part."""
        if self._client is None or self.run_id is None or not rows:
            return
        try:
            last = self._last(counter)
            now = get_current_time_millis()
            new = [row for row in rows if row[counter] > last]
            size = max(1, _MOST_METRICS // max((len(row) for row in new), default=1))
            for i in range(0, len(new), size):
                points = [
                    Metric(k, float(v), now, int(row[counter])) for row in new[i : i + size] for k, v in row.items()
                ]
                self._client.log_batch(self.run_id, metrics=points)
                self._counted[counter] = new[i : i + size][-1][counter]
        except _UNUSABLE as error:
            self._give_up(error)

    def _last(self, counter: str) -> float:
        """The highest value of a counter in the run; asked for once."""
        if counter not in self._counted and self._client is not None and self.run_id is not None:
            self._counted[counter] = self._client.get_run(self.run_id).data.metrics.get(counter, -1.0)
        return self._counted[counter]

    def register(self, name: str, artifact: str, tags: Mapping[str, str]) -> None:
        """A new version of a model in the registry, with the alias `candidate`.

        Args:
            name: of the registered model.
            artifact: path of its file among the run's artifacts.
            tags: of the version.
        """
        if self._client is None or self.run_id is None:
            return
        try:
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            where = f"{self._client.get_run(self.run_id).info.artifact_uri}/{artifact}"
            made = self._client.create_model_version(name, where, self.run_id, tags=dict(tags))
            self._client.set_registered_model_alias(name, "candidate", made.version)
        except _UNUSABLE as error:
            self._give_up(error)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """A file for people to look at, in a folder of the run's artifacts."""
        if self._client is None or self.run_id is None:
            return
        try:
            self._client.log_artifact(self.run_id, str(path), folder)
        except _UNUSABLE as error:
            self._give_up(error)

    def end(self, status: str) -> None:
        """End the run: `FINISHED`, `FAILED` or `KILLED`."""
        if self._client is None or self.run_id is None:
            return
        try:
            self._client.set_terminated(self.run_id, status)
        except _UNUSABLE as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        said = (str(error).splitlines() or [type(error).__name__])[0]
        warn(f"MLflow at {self.uri} cannot be used ({said[:200]}); the job goes on without it")


def tracking_uri(settings: TrackingConfig) -> str:
    """The setting, else MLFLOW_TRACKING_URI, else a SQLite file in the working folder."""
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def flatten(settings: Section, prefix: str = "") -> dict[str, Any]:
    """A tree of settings as dotted names and values."""
    flat: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _continue(client: MlflowClient, run_id: str | None) -> str | None:
    if run_id is None:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        warn(f"MLflow run {run_id} cannot be continued ({error.error_code}); a new one is begun")
        return None
    return run_id


def _begin(client: MlflowClient, settings: TrackingConfig) -> str:
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        # A database in a file keeps its artifacts beside it, wherever the command is run from.
        database = tracking_uri(settings).removeprefix("sqlite:///")
        beside = None if "://" in database else (Path(database).resolve().parent / "mlartifacts").as_uri()
        experiment_id = client.create_experiment(settings.experiment, artifact_location=beside)
    else:
        experiment_id = experiment.experiment_id
    run = client.create_run(experiment_id, run_name=settings.run_name)
    return str(run.info.run_id)


__all__ = ["Tracker", "flatten", "tracking_uri"]
