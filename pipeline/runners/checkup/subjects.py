"""What a job's settings name: stores, models, checkpoints, MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from botocore.session import Session

from pipeline.config import (
    EncoderConfig,
    EvaluateConfig,
    PrepareConfig,
    RayConfig,
    Section,
    StorageConfig,
    SwapConfig,
    TrackingConfig,
    TrainConfig,
)
from pipeline.errors import ModelPackError, SimSwapError
from pipeline.faces.packs import encoder_digest, find_pack, licence_note
from pipeline.media.addresses import is_local
from pipeline.media.copies import local_copy
from pipeline.media.store import store_at
from pipeline.media.video_encoding import check_encoder
from pipeline.model.checkpoint import read_header
from pipeline.runners.checkup.check import Check
from pipeline.runners.cluster import Needs, pool_needs
from pipeline.runners.engine import pools_needs
from pipeline.runners.evaluation_plan import evaluation_needs
from pipeline.runners.tracking_run import UNUSABLE, connect
from pipeline.runners.training_plan import training_needs
from pipeline.training.build import landmark_path


@dataclass(frozen=True, slots=True)
class Subjects:
    """What there is to look at.

    Attributes:
        ray: which Ray.
        tracking: which MLflow.
        storage: how stores are talked to.
        needs: what each pool reserves.
        read: addresses that are read, by their setting.
        written: addresses that are written.
        files: single files and folders that are copied to where they are needed.
        models: insightface packs.
        checkpoint: generator that runs with the first of these packs; None for none.
        settings: of the job.
    """

    ray: RayConfig = field(default_factory=RayConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    needs: Mapping[str, Needs] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    settings: Section | None = None

    def folders(self) -> dict[str, str]:
        """Folders of this machine that are written."""
        return {name: address for name, address in self.written.items() if is_local(address)}


def subjects_of(settings: Section | None) -> Subjects:
    """What the settings of a job name; without any what every job needs."""
    if isinstance(settings, SwapConfig):
        table = settings.analysis
        return Subjects(
            settings.ray,
            settings.tracking,
            settings.storage,
            pools_needs(settings.pools),
            _given(**{"inputs": settings.inputs, "analysis.read_table": table.read_table}),
            _given(**{"output": settings.output, "analysis.write_table": table.write_table}),
            _given(source=settings.source, pairs=settings.pairs, **{"mask.model": settings.mask.model}),
            _given(models=settings.models),
            None if settings.swapper.passthrough else settings.checkpoint,
            settings,
        )
    if isinstance(settings, TrainConfig):
        return Subjects(
            settings.ray,
            settings.tracking,
            StorageConfig(),
            training_needs(settings),
            {"data": settings.data},
            {"output": settings.output},
            _given(**{"discriminator.backbone": settings.discriminator.backbone}),
            _given(models=settings.models, **{"validation.judge": settings.validation.judge}),
            settings.initial,
            settings,
        )
    if isinstance(settings, PrepareConfig):
        return Subjects(
            settings.ray,
            settings.tracking,
            settings.storage,
            {"pool": pool_needs(settings.pool)},
            {"inputs": settings.inputs},
            {"output": settings.output},
            _given(table=settings.table),
            {"models": settings.models},
            None,
            settings,
        )
    if isinstance(settings, EvaluateConfig):
        return Subjects(
            settings.ray,
            settings.tracking,
            StorageConfig(),
            evaluation_needs(settings),
            {"data": settings.data},
            {"output": settings.output},
            _given(baseline=settings.baseline),
            {"models": settings.models, "judge": settings.judge},
            settings.checkpoint,
            settings,
        )
    return Subjects()


def check_subjects(subjects: Subjects) -> Iterator[Check]:
    """Look at all of them, whatever is wrong with one."""
    for name, address in subjects.read.items():
        yield _tried(name, partial(_read, name, address, subjects.storage))
    for name, address in subjects.written.items():
        yield _tried(name, partial(_written, name, address, subjects.storage))
    if any(a.startswith("s3://") for a in (*subjects.read.values(), *subjects.written.values())):
        yield _credentials()
    for name, address in subjects.files.items():
        yield _tried(name, partial(_file, name, address))
    for name, models in subjects.models.items():
        yield _tried(name, partial(_pack, name, models))
    if subjects.checkpoint is not None:
        pack = subjects.models.get("models")
        yield _tried("checkpoint", partial(_checkpoint, subjects.checkpoint, pack))
    if isinstance(subjects.settings, TrainConfig) and subjects.settings.losses.landmarks:
        yield _tried("losses.landmarks", partial(_landmarks, subjects.settings))
    if isinstance(subjects.settings, SwapConfig):
        yield _tried("videos.encoder", partial(_encoder, subjects.settings.videos.encoder))
    yield _tracking(subjects.tracking)
    yield Check(
        "consent, signing", "skipped", "this version checks no consent registry and signs no content credentials"
    )


def _given(**settings: str | None) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value is not None}


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except SimSwapError as error:
        return Check.of(name, error)


def _read(name: str, address: str, storage: StorageConfig) -> Check:
    store = store_at(address, storage)
    store.check(name)
    if store.is_empty():
        return Check(name, "fault", f"{store.address}: nothing is there", "Check the address")
    return Check(name, "ok", f"{store.address} can be read")


def _written(name: str, address: str, storage: StorageConfig) -> Check:
    store = store_at(address, storage)
    store.check(name, writable=True)
    return Check(name, "ok", f"{store.address} can be written; one job at a time by claims that only need listing")


def _credentials() -> Check:
    found = Session().get_credentials()
    if found is None:
        mend = "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"
        return Check("credentials", "fault", "none for s3:// in the environment, a profile or a role", mend)
    return Check("credentials", "ok", f"for s3:// from {found.method}")


def _file(name: str, address: str) -> Check:
    if not Path(local_copy(address)).exists():
        return Check(name, "fault", f"{address}: nothing is there", f"Set {name} to a file or folder that is")
    return Check(name, "ok", f"{address} is there")


def _pack(name: str, models: str) -> Check:
    pack = find_pack(models)
    return Check(name, "ok", f"{models}, digest {pack.digest[:12]}; {licence_note(pack)}")


def _landmarks(settings: TrainConfig) -> Check:
    return Check("losses.landmarks", "ok", f"by {landmark_path(settings)}")


def _checkpoint(checkpoint: str, models: str | None) -> Check:
    header, theirs = read_header(checkpoint), None
    says = f"{checkpoint}, digest {header.digest[:12]}, {header.config.crop_size} px"
    with suppress(ModelPackError):  # of which another check tells
        theirs = encoder_digest(models)
    if models is not None and theirs not in (None, header.encoder.digest):
        problem = f"{says}: was trained with the identity encoder {header.encoder.name}, {models} holds another"
        return Check("checkpoint", "fault", problem, "Set models to the pack that trained it")
    return Check("checkpoint", "ok", says)


def _encoder(settings: EncoderConfig) -> Check:
    return Check("videos.encoder", "ok", f"{check_encoder(settings)} works")


def _tracking(settings: TrackingConfig) -> Check:
    if not settings.enabled:
        return Check("mlflow", "skipped", "tracking.enabled is off")
    uri = settings.address()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return Check("mlflow", "ok", f"{uri} will be made")
    try:
        connect(uri).search_experiments(max_results=1)
    except UNUSABLE as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        mend = "Start it, or set tracking.uri. A job would go on without, and tell it later"
        if "401" in said or "403" in said:
            mend = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return Check("mlflow", "warning", f"{uri} cannot be used ({said})", mend)
    return Check("mlflow", "ok", f"{uri} answers")
