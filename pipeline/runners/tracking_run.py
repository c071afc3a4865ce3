"""One run on an MLflow server that answers: records in, requests out.

A record may come twice, since nobody knows whether a request arrived when its answer did not; the run has it once:

    begin       found again by its key
    continue    only sets the status
    params      those that the run has already are left out
    metrics     MLflow stores the same key, time, step and value once
    rows        those whose counter is not above the run's are left out
    artifact    overwrites itself
    register    a version of the same run and tags is taken
    end         sets the same status and time
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the spool tries again
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("PGCONNECT_TIMEOUT", "5")

from botocore.exceptions import BotoCoreError, ClientError
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from pipeline.runners.progress import warn
from pipeline.runners.tracking_spool import Record

UNUSABLE = (MlflowException, OSError, ImportError, SQLAlchemyError, BotoCoreError, ClientError)
"""What MLflow and its drivers raise for a store that is not there, does not answer, or has no driver installed."""

_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
"""Codes of a server that answers and would answer the same the next time."""

_KEY = "simswap_story"
_LONGEST_PARAM = 500
_MOST_METRICS = 1000  # of one request
_PROBE_S = 3
_UPLOAD_S = "120"

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def connect(uri: str) -> MlflowClient:
    """A client of a server that answers, or of a database.

    Raises:
        UNUSABLE: within seconds.
    """
    _check_answers(uri)
    if "://" in uri and not uri.startswith(("http", "databricks")):
        import mlflow.store.db.utils as databases  # a second of imports

        databases.MAX_RETRY_COUNT = 2  # there is no setting for it; 10 take 100 s
    return MlflowClient(tracking_uri=uri)


def _check_answers(uri: str) -> None:
    """See that a server says something within seconds.

    Raises:
        UNUSABLE: nothing, or an error of its own.
    """
    if not uri.startswith(("http://", "https://")):
        return
    server = get_default_host_creds(uri)
    answer = http_request(server, "/health", "GET", max_retries=0, timeout=_PROBE_S, raise_on_status=False)
    if answer.status_code >= 500:
        raise OSError(f"it answers {answer.status_code}")


class MlflowRun:
    """A run that records are told to.

    Args:
        client: of the server.
        uri: of the server.

    The first record has to begin or continue the run.
    """

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client = client
        self._uri = uri
        self._id = ""
        self._counted: dict[str, float] = {}

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run; None before its first record."""
        return self._id or None

    def tell(self, record: Record) -> None:
        """Tell one record; one that the server will never take is left out with a warning.

        Raises:
            UNUSABLE: it may not have arrived.
        """
        what = record["what"]
        try:
            self._tell(what, record)
        except MlflowException as error:
            if what in ("begin", "continue") or error.error_code not in _REFUSED:
                raise
            warn(f"MLflow at {self._uri} refuses {what} ({first_line(error)}); left out")

    def _tell(self, what: str, record: Record) -> None:
        match what:
            case "begin":
                self._begin(record["key"], record["experiment"], record["run_name"], record["time"])
            case "continue":
                self._continue(record)
            case "params":
                self._params(record["params"], record["tags"])
            case "metrics":
                points = [Metric(k, v, record["time"], record["step"]) for k, v in record["metrics"].items()]
                self._client.log_batch(self._id, metrics=points)
            case "rows":
                self._rows(record["counter"], record["rows"], record["time"])
            case "artifact":
                self._artifact(Path(record["path"]), record["folder"])
            case "register":
                self._register(record["name"], record["artifact"], record["tags"])
            case "end":
                self._client.set_terminated(self._id, record["status"], record["time"])

    def _begin(self, key: str, experiment: str, run_name: str | None, time: int) -> None:
        known = self._client.get_experiment_by_name(experiment)
        if known is None:
            experiment_id = self._client.create_experiment(experiment, artifact_location=_beside(self._uri))
        else:
            experiment_id = known.experiment_id
        runs = self._client.search_runs([experiment_id], f"tags.{_KEY} = '{key}'", max_results=1)
        if runs:
            self._id = str(runs[0].info.run_id)
            self._client.update_run(self._id, status="RUNNING")
        else:
            run = self._client.create_run(experiment_id, time, {_KEY: key}, run_name)
            self._id = str(run.info.run_id)

    def _continue(self, record: Record) -> None:
        """Go on with the run; where it is unknown or deleted, with a new one."""
        try:
            self._client.update_run(record["run_id"], status="RUNNING")
            self._id = record["run_id"]
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            warn(f"MLflow run {record['run_id']} cannot be continued ({error.error_code}); a new one is begun")
            self._begin(f"after-{record['run_id']}", record["experiment"], record["run_name"], record["time"])

    def _params(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        known = self._client.get_run(self._id).data.params
        new = [Param(k, v[:_LONGEST_PARAM]) for k, v in params.items() if k not in known]
        for i in range(0, len(new), 100):
            self._client.log_batch(self._id, params=new[i : i + 100])
        self._client.log_batch(self._id, tags=[RunTag(k, v) for k, v in tags.items()])

    def _rows(self, counter: str, rows: Sequence[Mapping[str, float]], time: int) -> None:
        """Rows whose counter is above the run's, whole rows to a request: none twice, none in part."""
        if counter not in self._counted:
            self._counted[counter] = self._client.get_run(self._id).data.metrics.get(counter, -1.0)
        new = [row for row in rows if row[counter] > self._counted[counter]]
        size = max(1, _MOST_METRICS // max((len(row) for row in new), default=1))
        for i in range(0, len(new), size):
            part = new[i : i + size]
            points = [Metric(k, v, time, int(row[counter])) for row in part for k, v in row.items()]
            self._client.log_batch(self._id, metrics=points)
            self._counted[counter] = part[-1][counter]

    def _artifact(self, path: Path, folder: str | None) -> None:
        if not os.access(path, os.R_OK):
            warn(f"{path} is gone; MLflow does without it")
            return
        _check_answers(self._uri)
        with _time_to_upload():
            self._client.log_artifact(self._id, str(path), folder)

    def _register(self, name: str, artifact: str, tags: Mapping[str, str]) -> None:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        of_run = self._client.search_model_versions(f"name = '{name}' and run_id = '{self._id}'")
        made = next((version for version in of_run if version.tags == tags), None)
        if made is None:
            where = f"{self._client.get_run(self._id).info.artifact_uri}/{artifact}"
            made = self._client.create_model_version(name, where, self._id, dict(tags), await_creation_for=0)
        self._client.set_registered_model_alias(name, "candidate", made.version)


def first_line(error: Exception) -> str:
    """What an error says, in brief."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _beside(uri: str) -> str | None:
    """A database in a file keeps its artifacts beside it, wherever the command is run from."""
    database = uri.removeprefix("sqlite:///")
    return None if "://" in database else (Path(database).resolve().parent / "mlartifacts").as_uri()


@contextmanager
def _time_to_upload() -> Iterator[None]:
    """A server may pass a large file on before it answers; MLflow takes the time-out from the environment only."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ[name]
    os.environ[name] = _UPLOAD_S
    try:
        yield
    finally:
        os.environ[name] = before
