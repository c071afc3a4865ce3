"""What every job's settings are made of: the closed section, and the sections that several jobs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipeline.redaction import has_password

SUFFIX_UNITS = {"_s": "s", "_px": "px", "_pixels": "px", "_bytes": "bytes", "_hz": "Hz", "_degrees": "degrees"}
"""End of a setting's name -> the unit it stands for."""


def unit(name: str) -> Any:
    """What a number is annotated with whose name does not say its unit."""
    return Field(json_schema_extra={"unit": name})


def _add_units(schema: dict[str, Any]) -> None:
    """Add the units that names say to a section's JSON Schema, beside those that annotations have put there."""
    for name, value in schema.get("properties", {}).items():
        said = [of for end, of in SUFFIX_UNITS.items() if name.endswith(end)]
        if said:
            value.setdefault("unit", said[0])


Fraction = Annotated[float, Field(ge=0.0, le=1.0), unit("fraction")]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0), unit("cosine")]
Template = Literal["arcface", "ffhq"]
Precision = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    """A closed, frozen group of settings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        json_schema_extra=_add_units,
    )


def refuse_overlap(inputs: str, output: str) -> None:
    """Check that a job does not write into what it reads.

    Raises:
        ValueError: one folder is, or lies in, the other.
    """
    there, here = (_parts(address) for address in (inputs, output))
    if there[: len(here)] == here or here[: len(there)] == there:
        raise ValueError(f"output: {output} overlaps inputs {inputs}; choose a folder beside it")


def _parts(address: str) -> tuple[str, ...]:
    """An address as the steps to it."""
    if "://" in address and not address.startswith("file://"):
        scheme, _, path = address.partition("://")
        return (scheme, *(part for part in path.split("/") if part))
    return Path(address.removeprefix("file://")).expanduser().resolve().parts


class ImagesConfig(Section):
    """Reading and writing still images."""

    max_pixels: PositiveInt = 100_000_000
    """Pixels (width x height) above which an image is refused from its header, before anything decodes."""
    max_bytes: PositiveInt = 512 * 1024 * 1024
    """Size of an input in bytes above which it is refused unread."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """1..100 for JPEG results. None keeps the input's own tables and subsampling, so that the rest stays as it was."""
    webp_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """1..100 for lossy WebP results. None writes lossless WebP, the only way to keep what was not swapped."""


class ShardsConfig(Section):
    """Which members of a shard are images and videos."""

    images: tuple[str, ...] = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "avif")
    """Tar: extensions of images, all that follows the first dot of a member's base name (`7.seg.png` is no `png`)."""
    videos: tuple[str, ...] = ("mp4", "m4v", "mov", "mkv", "webm", "avi")
    """Tar: extensions of videos, in the same way. WebM and AVI cannot hold a result, and are reasons."""
    image_column: str = ""
    """Parquet: column with the bytes of images; empty takes the only one that fits."""
    key_column: str = ""
    """Parquet: column that names a row; empty takes `key`, `id` or `__key__` if it does, else the row's number."""


class StorageConfig(Section):
    """Talking to object stores; nothing of it concerns paths on this machine."""

    attempts: PositiveInt = 6
    """Times that a request is made, 0.5, 1, 2, ... 20 s apart at the most, before its fault counts. What trying again
    does not change (no such bucket, access denied) counts at once, and so does a store that has not answered within
    three times `request_timeout_s`."""
    connect_timeout_s: PositiveFloat = 5.0
    """Seconds to wait for a connection."""
    request_timeout_s: PositiveFloat = 30.0
    """Seconds without a byte after which a request is given up."""
    concurrency: PositiveInt = 16
    """Requests of one worker at the same time."""


class FaultsConfig(Section):
    """Inputs that kill their worker, or never end."""

    attempts: PositiveInt = 3
    """Times that an input is begun again after its worker died of it; then it is a reason (`killed_worker`)."""
    item_s: NonNegativeFloat = 120.0
    """Seconds that one stage may take for one image; then its worker is ended and the image is a reason (`timed_out`).
    0 waits for ever."""
    span_s: NonNegativeFloat = 1800.0
    """The same for a span of a video."""


class PoolConfig(Section):
    """One pool of workers of the job."""

    workers: PositiveInt = 1
    """Worker processes in the pool."""
    cpus: Annotated[NonNegativeFloat, unit("CPUs")] = 0.5
    """CPUs that each worker reserves in Ray; the pools' sum must stay below the cluster's."""
    gpus: Annotated[NonNegativeFloat, unit("GPUs")] = 0.0
    """GPUs, or the part of one, that each worker reserves."""
    threads: PositiveInt = 1
    """Threads that the arithmetic of one worker uses."""
    items: PositiveInt = 8
    """Inputs that a worker takes at a time."""


class RayConfig(Section):
    """Which Ray runs the job."""

    address: str | None = None
    """Address of a running cluster; None starts an embedded one on this machine."""
    num_cpus: Annotated[PositiveInt | None, unit("CPUs")] = None
    """CPUs of an embedded Ray; None takes the machine's."""
    object_store_bytes: PositiveInt = 1024 * 1024 * 1024
    """Size of an embedded Ray's object store: crops between the stages."""
    no_progress_timeout_s: PositiveInt = 600
    """Seconds without progress after which the job gives up instead of hanging."""


class TrackingConfig(Section):
    """The experiment's story in MLflow."""

    enabled: bool = True
    """Off: nothing is written to MLflow; receipts and the report are still made."""
    uri: str | None = None
    """Tracking server or database, without a password; None takes MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in
    this folder."""
    experiment: str = "simswap-ray"
    """Experiment that the run is filed under."""
    run_name: str | None = None
    """Name of the run; None lets MLflow choose."""
    contact_sheet: Annotated[int, Field(ge=0, le=64)] = 12
    """Pairs (original | result), or people of a prepared set, on the contact sheet; 0 makes none."""

    def address(self) -> str:
        """`uri`, else MLFLOW_TRACKING_URI, else a SQLite file in the working folder."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        if self.uri is not None and has_password(self.uri):
            raise ValueError("uri: holds a password; such an address belongs in MLFLOW_TRACKING_URI")
        return self
