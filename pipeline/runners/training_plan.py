"""Everything about a training run that is decided before the first worker starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config import TrainConfig
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import file_digest, find_pack, licence_note
from pipeline.media.addresses import absolute
from pipeline.media.copies import local_copy
from pipeline.model.checkpoint import EncoderReference
from pipeline.preparation.dataset import DatasetHeader, FaceDataset
from pipeline.runners.books import deciding, read_job, refuse_another_recipe, write_job
from pipeline.runners.cluster import Needs
from pipeline.runners.progress import say
from pipeline.settings import flatten
from pipeline.training.build import check_fit, encoder_reference, landmark_network, landmark_path
from pipeline.training.split import split_identities

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"

_DECIDES_RESULTS = (
    "model",
    "discriminator",
    "losses",
    "optimiser",
    "feed.window_shards",
    "feed.same_identity_every",
    "feed.augmentation",
    "feed.disguise",
    "trainer.global_batch_size",
    "trainer.precision",
    "trainer.sync_batch_norm",
    "trainer.ema_decay",
    "trainer.seed",
    "validation.identities",
)
"""Settings that change what is learned; the others only change how it is made or seen. The number of steps does where
the learning rate falls towards the last one."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A training run as planned.

    Attributes:
        settings: with addresses that hold in any process.
        header: of the prepared set.
        encoder: identity encoder that training optimises against.
        samples: that are trained on.
        held_out: identities for validation.
        recipe: digest of all that decides what is learned.
        known: the record of the same run begun earlier; empty for a new one.
    """

    settings: TrainConfig
    header: DatasetHeader
    encoder: EncoderReference
    samples: int
    held_out: int
    recipe: str
    known: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.known.get("finished")) and int(self.known.get("steps", 0)) >= self.settings.trainer.steps


def plan_training(settings: TrainConfig) -> TrainJob:
    """Check everything that can be checked. Writes nothing.

    Raises:
        FatalError: whatever would stop the run later, now.
    """
    settings = with_absolute_paths(settings)
    pack = find_pack(settings.models)
    say("models", message=f"{settings.models}: {licence_note(pack)}")
    encoder = encoder_reference(settings.models)
    dataset = FaceDataset(settings.data)
    size = IdentityEncoder(pack.recogniser, settings.model.template).embedding_size
    check_fit(settings, dataset.header, encoder, size)
    landmark_network(settings)
    if settings.validation.judge is not None:
        find_pack(settings.validation.judge)
    held_out = split_identities(dataset.names, settings.validation)
    samples = int((~held_out[dataset.identity]).sum())
    recipe = _recipe(settings, dataset.header, encoder)
    known = _known_run(settings, recipe)
    return TrainJob(settings, dataset.header, encoder, samples, int(held_out.sum()), recipe, known)


def training_needs(settings: TrainConfig) -> dict[str, Needs]:
    """What the workers, and those who load batches for them, reserve."""
    workers, feed = settings.workers, settings.feed
    return {
        "workers": Needs(workers.workers, workers.cpus, workers.gpus),
        "feed.loader": Needs(workers.workers * feed.loaders, feed.loader_cpus, 0),
    }


def describe_training(job: TrainJob) -> dict[str, Any]:
    """What `--dry-run` prints."""
    settings = job.settings
    batch = settings.trainer.global_batch_size
    return {
        "data": settings.data,
        "samples": job.samples,
        "identities": job.header.identities,
        "identities_held_out": job.held_out,
        "data_digest": job.header.digest,
        "encoder": job.encoder.name,
        "model": settings.model.model_dump(mode="json"),
        "steps": settings.trainer.steps,
        "epochs": round(settings.trainer.steps * batch / job.samples, 2),
        "workers": [settings.workers.counts()[0], settings.workers.counts()[-1]],
        "samples_a_worker_and_step": batch // settings.workers.workers,
        "output": settings.output,
        "continues": bool(job.known),
        "recipe": job.recipe,
    }


def write_record(job: TrainJob, run_id: str | None, finished: bool) -> None:
    """Write whose output this is, before anything else is in it."""
    facts = {
        "command": "train",
        "recipe": job.recipe,
        "finished": finished,
        "steps": job.settings.trainer.steps,
        "mlflow_run_id": run_id,
        "mlflow_uri": job.settings.tracking.address(),
        "data_digest": job.header.digest,
        "encoder_sha256": job.encoder.digest,
        "landmarks_sha256": _landmark_digest(job.settings),
        "version": version("simswap-ray"),
        "settings": job.settings.model_dump(mode="json"),
    }
    write_job(job.settings.output, facts)


def with_absolute_paths(settings: TrainConfig) -> TrainConfig:
    """Workers have working folders of their own."""
    here: dict[str, Any] = {"data": absolute(settings.data), "output": absolute(settings.output)}
    if settings.initial is not None:
        here["initial"] = absolute(settings.initial)
    here["models"] = pack_path(settings.models)
    here["tracking"] = settings.tracking.model_copy(update={"uri": settings.tracking.address()})
    if settings.validation.judge is not None:
        here["validation"] = settings.validation.model_copy(update={"judge": pack_path(settings.validation.judge)})
    if settings.discriminator.backbone is not None:
        backbone = {"backbone": absolute(settings.discriminator.backbone)}
        here["discriminator"] = settings.discriminator.model_copy(update=backbone)
    return settings.model_copy(update=here)


def pack_path(models: str) -> str:
    """A folder as any process finds it; a pack's name as it is."""
    return absolute(models) if Path(models).expanduser().is_dir() else models


def _recipe(settings: TrainConfig, header: DatasetHeader, encoder: EncoderReference) -> str:
    facts = deciding(settings.model_dump(mode="json"), _DECIDES_RESULTS)
    facts.pop("discriminator.backbone")  # its content counts, not where it lies
    facts |= {
        "data": header.digest,
        "encoder": encoder.digest,
        "initial": file_digest(local_copy(settings.initial)) if settings.initial else "",
        "backbone": file_digest(local_copy(settings.discriminator.backbone)) if settings.discriminator.backbone else "",
        "landmarks": _landmark_digest(settings),
        "steps": None if settings.optimiser.decay == "constant" else settings.trainer.steps,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _landmark_digest(settings: TrainConfig) -> str:
    """sha256 of the landmark network that the training compares by; empty without one."""
    path = landmark_path(settings)
    return "" if path is None else file_digest(path)


def _known_run(settings: TrainConfig, recipe: str) -> dict[str, Any]:
    """The record of this run, begun earlier; empty when the output is new.

    Raises:
        OutputError: the output holds another run, or what no run has made.
    """
    known = read_job(settings.output, "train") or {}
    if known and known.get("recipe") != recipe:
        names = [*_DECIDES_RESULTS, "trainer.steps", "data", "models", "initial"]
        mend = "Choose another output, or use the run's own settings"
        refuse_another_recipe(settings.output, known, settings.model_dump(mode="json"), names, mend)
    return known


def run_params(job: TrainJob) -> dict[str, Any]:
    """Settings and facts for MLflow."""
    facts = {"data.samples": job.samples, "data.identities": job.header.identities, "data.held_out": job.held_out}
    return {**flatten(job.settings), **facts}
