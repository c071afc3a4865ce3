"""What a command takes, touches and answers: declared once beside its `run`, for help, `simswap describe` and docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.config import Section

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "wrong use: a setting, a word or a file of settings",
    3: "refused: not safe, as a cluster that anybody may submit to, or not right (consent is not checked yet)",
    130: "interrupted by Ctrl-C or SIGTERM; the same command goes on",
}
"""What the exit codes of all commands mean."""

SETTINGS_FILE = "YAML file with what differs from the defaults; jobs/configs has some"
"""Meaning of the word CONFIG.yaml."""

STORES = {
    "AWS_ACCESS_KEY_ID": "s3://: key; without it the AWS SDK looks further (profile, instance role)",
    "AWS_SECRET_ACCESS_KEY": "s3://: secret of the key",
    "AWS_SESSION_TOKEN": "s3://: of temporary keys",
    "AWS_PROFILE": "s3://: profile in ~/.aws",
    "AWS_ENDPOINT_URL": "s3://: address of a store that is not Amazon's",
    "AWS_ENDPOINT_URL_S3": "s3://: the same, of S3 alone; beats AWS_ENDPOINT_URL",
    "AWS_REGION": "s3://: region; without it the bucket's is asked for",
    "AWS_DEFAULT_REGION": "s3://: region where AWS_REGION is not set",
    "GOOGLE_APPLICATION_CREDENTIALS": "gs://: file with the credentials",
    "AZURE_STORAGE_CONNECTION_STRING": "az://: account and key, read by the adlfs package",
}
"""Environment variables of the commands that talk to object stores."""

COPIES = {"SIMSWAP_CACHE": "folder for models and sources that are copied from a store; else ~/.cache/simswap-ray"}
"""Environment variables of the commands that load models."""

TRACKING = {
    "MLFLOW_TRACKING_URI": "server or database where tracking.uri is null",
    "MLFLOW_TRACKING_USERNAME": "user of a server that asks for one",
    "MLFLOW_TRACKING_PASSWORD": "password of that user",
    "MLFLOW_TRACKING_TOKEN": "bearer token for the server",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "s that a request may take; 5 where it is not set",
    "XDG_STATE_HOME": "folder for what waits for MLflow while the output is in an object store; else ~/.local/state",
}
"""Environment variables of the commands that tell MLflow."""

CLUSTER = {
    "RAY_AUTH_MODE": "`token` for a cluster (ray.address) that asks for a token",
    "RAY_AUTH_TOKEN": "the cluster's token",
    "RAY_AUTH_TOKEN_PATH": "file with the cluster's token; else ~/.ray/auth_token",
    "SIMSWAP_JOB_ID": "name that the events on stderr bear; `simswap submit` sets it for the job",
}
"""Environment variables of the commands that start or join a Ray."""

JOB_SERVER = {
    "RAY_API_SERVER_ADDRESS": "job server where address is null",
    "RAY_ADDRESS": "the same where that is not set, if it is an http address",
    "RAY_AUTH_TOKEN": CLUSTER["RAY_AUTH_TOKEN"],
    "RAY_AUTH_TOKEN_PATH": CLUSTER["RAY_AUTH_TOKEN_PATH"],
}
"""Environment variables of the commands that talk to a cluster's job server."""

KUBERNETES = {"KUBECONFIG": "kubectl's: file with the cluster and who asks, with --kube; else ~/.kube/config"}
"""Environment variables of the commands that talk to Kubernetes."""

MLFLOW_RESULT = {
    "mlflow.uri": "tracking server or database",
    "mlflow.run_id": "run that tells the job's story; null where there is none yet",
}
"""Keys of the results of the commands that tell MLflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The contract of one command.

    `{…}` in `reads` and `writes` is a setting or a word. A key of `result` and `plan` with a dot is a key of an object,
    one with `?` at its end is not always there; `*?` stands for all keys of another command's result.

    Attributes:
        says: what it does, one line.
        settings: that it takes as section.key=value.
        words: file on the command line -> what it is; `[…]` may be left out.
        settings_of: other commands of which one's settings are taken besides.
        flags: its own settings are given as `--name value`; `section.key=value` are those of another command.
        reads: file, folder or address -> what is read there.
        writes: the same of what is written.
        environment: variable -> what it says.
        result: key of the JSON object on stdout -> what it is.
        plan: the same with --dry-run; empty where the keys are those of `result`.
    """

    says: str
    settings: type[Section]
    words: Mapping[str, str] = field(default_factory=dict)
    settings_of: Sequence[str] = ()
    flags: bool = False
    reads: Mapping[str, str] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, str] = field(default_factory=dict)

    def usage(self) -> str:
        """Its words as a person types them; needed settings too, where no file can hold them."""
        kinds = self.settings.model_fields.items()
        needed = [f"{name}={name[0].upper()}" for name, kind in kinds if kind.is_required() and not self.takes_file]
        more = ["[key=value ...]"] if self.settings_of or (len(needed) < len(kinds) and not self.flags) else []
        return " ".join([*self.words, *needed, *more, *["[--name value ...]"] * self.flags])

    @property
    def takes_file(self) -> bool:
        """Whether its own settings may be in a file."""
        return "CONFIG.yaml" in self.words and not self.flags

    def spelled(self, setting: str) -> str:
        """A setting's name as it is typed."""
        return f"--{setting.replace('_', '-')}" if self.flags else setting
