"""Everything about an evaluation that is decided before its worker starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EvaluateConfig, ValidationConfig
from pipeline.errors import CheckpointError, ConfigError, DatasetError, StoreError
from pipeline.evaluation.protocol import Protocol, differences
from pipeline.faces.packs import Pack, file_digest, find_pack, licence_note
from pipeline.media.addresses import absolute, split_address
from pipeline.media.copies import local_copy
from pipeline.media.store import store_at
from pipeline.model.checkpoint import CheckpointHeader, read_header
from pipeline.preparation.dataset import DatasetHeader, FaceDataset
from pipeline.runners.books import read_job, refuse_another_recipe
from pipeline.runners.cluster import Needs
from pipeline.runners.progress import say
from pipeline.runners.training_plan import pack_path
from pipeline.training.build import encoder_reference
from pipeline.training.split import split_identities

FIGURES = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation as planned.

    Attributes:
        settings: with addresses that hold in any process.
        protocol: conditions of the figures.
        checkpoint_sha256: of the generator.
        recipe: digest of both.
        baseline: what the baseline's file holds; None without one.
        known: the record of the same evaluation, made earlier; empty for a new one.
    """

    settings: EvaluateConfig
    protocol: Protocol
    checkpoint_sha256: str
    recipe: str
    baseline: Mapping[str, Any] | None
    known: Mapping[str, Any]


def plan_evaluation(settings: EvaluateConfig) -> Evaluation:
    """Check everything that can be checked. Writes nothing.

    Raises:
        FatalError: whatever would stop the job later, now.
    """
    settings = with_absolute_paths(settings)
    pack, judge = find_pack(settings.models), find_pack(settings.judge)
    for models, found in ((settings.models, pack), (settings.judge, judge)):
        say("models", message=f"{models}: {licence_note(found)}")
    dataset = FaceDataset(settings.data)
    checkpoint = read_header(settings.checkpoint)
    _check_fit(settings, dataset.header, checkpoint, pack, judge)
    people = tuple(np.array(dataset.names)[who_plays(settings, dataset)].tolist())
    protocol = Protocol(
        dataset.header.digest, dataset.header.crop_size, people, settings.pairs, file_digest(judge.recogniser),
        tuple(map(file_digest, judge.finders)),
    )  # fmt: skip
    digest = file_digest(local_copy(settings.checkpoint))
    recipe = hashlib.sha256(f"{protocol.digest} {digest}".encode()).hexdigest()
    baseline = None if settings.baseline is None else _read_baseline(settings.baseline)
    if baseline is not None:
        differences({}, protocol.digest, baseline, str(settings.baseline))
    return Evaluation(settings, protocol, digest, recipe, baseline, _known(settings, recipe))


def evaluation_needs(settings: EvaluateConfig) -> dict[str, Needs]:
    """What the worker reserves."""
    return {"worker": Needs(1, settings.worker.cpus, settings.worker.gpus)}


def describe_evaluation(job: Evaluation) -> dict[str, Any]:
    """What `--dry-run` prints."""
    return {
        "data": job.settings.data,
        "checkpoint": job.settings.checkpoint,
        "people": len(job.protocol.people),
        "pairs": job.settings.pairs,
        "protocol_digest": job.protocol.digest,
        "output": job.settings.output,
        "recipe": job.recipe,
    }


def with_absolute_paths(settings: EvaluateConfig) -> EvaluateConfig:
    """Workers have working folders of their own."""
    here: dict[str, Any] = {name: absolute(getattr(settings, name)) for name in ("data", "checkpoint", "output")}
    here |= {name: pack_path(getattr(settings, name)) for name in ("models", "judge")}
    if settings.baseline is not None:
        here["baseline"] = absolute(settings.baseline)
    here["tracking"] = settings.tracking.model_copy(update={"uri": settings.tracking.address()})
    return settings.model_copy(update=here)


def who_plays(settings: EvaluateConfig, dataset: FaceDataset) -> NDArray[np.bool_]:
    """[P] who of a set is swapped with each other."""
    if settings.held_out is None:
        return np.ones(len(dataset.names), np.bool_)
    return split_identities(dataset.names, ValidationConfig(identities=settings.held_out))


def _check_fit(
    settings: EvaluateConfig, header: DatasetHeader, checkpoint: CheckpointHeader, pack: Pack, judge: Pack
) -> None:
    """Whether set, generator and recognisers belong together; every doubt is one line."""
    model = checkpoint.config
    if (header.crop_size, header.template) != (model.crop_size, model.template):
        problem = f"holds {header.template} crops of {header.crop_size} px, the generator takes {model.template} ones"
        mend = f"Prepare with crop_size={model.crop_size} template={model.template}"
        raise DatasetError(settings.data, f"{problem} of {model.crop_size} px", mend)
    encoder = encoder_reference(settings.models)
    if encoder.digest != checkpoint.encoder.digest:
        problem = f"was trained with identity encoder {checkpoint.encoder.name}, {settings.models} holds another"
        raise CheckpointError(settings.checkpoint, problem, "Set models to the pack that trained it")
    if header.encoder_digest != encoder.digest:
        problem = f"holds embeddings of {header.encoder_name}, not of {encoder.name} from {settings.models}"
        raise DatasetError(settings.data, problem, "Prepare the set with the generator's pack")
    if file_digest(judge.recogniser) == file_digest(pack.recogniser):
        problem = "is the recogniser that the generator was trained with: it would flatter"
        raise ConfigError("judge", problem, "Give a pack with another recogniser")


def _read_baseline(path: str) -> dict[str, Any]:
    folder, name = split_address(path)
    try:
        found = json.loads(store_at(folder).read(name))
        found["figures"], found["protocol_digest"]
    except (OSError, StoreError, ValueError, KeyError, TypeError) as error:
        problem = f"is no result of simswap evaluate ({type(error).__name__}: {error})"
        raise ConfigError(path, problem, f"Give the {FIGURES} of an evaluation") from error
    return dict(found)


def _known(settings: EvaluateConfig, recipe: str) -> dict[str, Any]:
    known = read_job(settings.output, "evaluate") or {}
    if known and known.get("recipe") != recipe:
        names = ("data", "checkpoint", "judge", "held_out", "pairs")
        refuse_another_recipe(
            settings.output, known, settings.model_dump(mode="json"), names, "Choose another output"
        )  # fmt: skip
    return known
