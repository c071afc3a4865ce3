"""Everything about a preparation that is decided before the first worker starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config import PrepareConfig
from pipeline.errors import ConfigError, DatasetError
from pipeline.faces.packs import file_digest, find_pack, licence_note
from pipeline.media.addresses import absolute, is_local
from pipeline.model.checkpoint import EncoderReference
from pipeline.preparation.assembly import PHOTOS
from pipeline.preparation.dataset import EMBEDDINGS, HEADER, INDEX
from pipeline.preparation.listing import Block, Listing, cut_blocks, list_photos
from pipeline.preparation.shards import is_done
from pipeline.runners.books import deciding, read_job, refuse_another_recipe
from pipeline.runners.progress import say, warn

_DECIDES_SHARDS = (
    *("crop_size", "template", "crop_format", "jpeg_quality", "faces", "images.max_pixels", "images.max_bytes"),
    *(f"filters.{name}" for name in ("min_score", "min_face_px", "min_sharpness", "max_yaw", "max_pitch")),
)
"""Settings that change what a shard holds of its photographs."""

_DECIDES_SET = (*_DECIDES_SHARDS, "labels", "person", "photos_per_shard", "seed", "filters", "cluster")
"""Settings that change the set; the others only change how it is made."""


@dataclass(frozen=True, slots=True)
class PrepareJob:
    """A preparation as planned.

    Attributes:
        settings: with paths that hold in any process.
        blocks: all of them.
        todo: those without a shard of this recipe and these photographs.
        photos: how many there are.
        labelled: how many identities the labels name.
        encoder: the identity encoder whose embeddings the set holds.
        models_digest: sha256 of the pack's networks.
        recipe: digest of all that decides what is in the set besides the photographs.
        data_digest: over name, size, time and label of all photographs, in shards of this recipe.
        known: the record of the same job begun earlier; empty for a new one.
    """

    settings: PrepareConfig
    blocks: Sequence[Block]
    todo: Sequence[Block]
    photos: int
    labelled: int
    encoder: EncoderReference
    models_digest: str
    recipe: str
    data_digest: str
    known: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        same = (self.known.get("data_sha256"), self.known.get("finished")) == (self.data_digest, True)
        whole = all((Path(self.settings.output) / name).exists() for name in (HEADER, INDEX, EMBEDDINGS, PHOTOS))
        return same and whole and not self.todo


def plan_preparation(settings: PrepareConfig) -> PrepareJob:
    """Check everything that can be checked, and list what is left to do. Writes nothing.

    Raises:
        FatalError: whatever would stop the job later, now.
    """
    settings = with_absolute_paths(settings)
    pack = find_pack(settings.models)
    say("models", message=f"{settings.models}: {licence_note(pack)}")
    recipe = _digest(settings, pack.digest, _DECIDES_SET)
    known = _known_job(settings, recipe)
    listing = list_photos(settings)
    labelled = _check_labels(settings, listing)
    blocks = cut_blocks(listing.photos, settings.photos_per_shard, _digest(settings, pack.digest, _DECIDES_SHARDS))
    data = hashlib.sha256("\n".join(block.digest for block in blocks).encode()).hexdigest()
    todo = [block for block in blocks if not is_done(settings.output, block)]
    encoder = EncoderReference(Path(pack.recogniser).name, file_digest(pack.recogniser))
    photos = len(listing.photos)
    return PrepareJob(settings, blocks, todo, photos, labelled, encoder, pack.digest, recipe, data, known)


def describe_preparation(job: PrepareJob) -> dict[str, Any]:
    """What `--dry-run` prints."""
    settings = job.settings
    return {
        "inputs": settings.inputs,
        "photos_found": job.photos,
        "photos_left": sum(len(block.photos) for block in job.todo),
        "bytes_left": sum(photo.file.size_bytes for block in job.todo for photo in block.photos),
        "labels": settings.labels,
        "identities_labelled": job.labelled,
        "shards": len(job.blocks),
        "shards_left": len(job.todo),
        "output": settings.output,
        "models": settings.models,
        "encoder": job.encoder.name,
        "crop_size": settings.crop_size,
        "template": settings.template,
        "filters": settings.filters.model_dump(mode="json"),
        "pool": settings.pool.model_dump(mode="json"),
        "recipe": job.recipe,
    }


def with_absolute_paths(settings: PrepareConfig) -> PrepareConfig:
    """Workers have working folders of their own.

    Raises:
        ConfigError: the output is not on this machine.
    """
    if not is_local(settings.output):
        mend = "Prepare into a folder that all nodes share, and copy the set"
        raise ConfigError(f"output: {settings.output}", "a set is not prepared into an object store", mend)
    here: dict[str, Any] = {"inputs": absolute(settings.inputs), "output": absolute(settings.output)}
    if Path(settings.models).expanduser().is_dir():
        here["models"] = absolute(settings.models)
    if settings.table is not None:
        here["table"] = absolute(settings.table)
    return settings.model_copy(update=here)


def _digest(settings: PrepareConfig, models_digest: str, names: Sequence[str]) -> str:
    """sha256 over some settings, the networks and the program's version, hex."""
    facts = deciding(settings.model_dump(mode="json"), names)
    facts |= {"models": models_digest, "version": version("simswap-ray")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _known_job(settings: PrepareConfig, recipe: str) -> Mapping[str, Any]:
    """The record of this job, begun earlier; empty when the output is new or is to be replaced.

    Raises:
        OutputError: the output holds another job's results.
    """
    known = read_job(settings.output, "prepare")
    if known is None:
        return {}
    was = known.get("settings", {})
    if known.get("recipe") == recipe and (was.get("inputs"), was.get("table")) == (settings.inputs, settings.table):
        return known
    if any((Path(settings.output) / "shards").glob("*.parquet")) and not settings.overwrite:
        names = ("inputs", "table", "models", *_DECIDES_SET)
        refuse_another_recipe(settings.output, known, settings.model_dump(mode="json"), names)
    return {}


def _check_labels(settings: PrepareConfig, listing: Listing) -> int:
    """How many identities the labels name; 0 where they are to be found.

    Raises:
        DatasetError: fewer than two.
    """
    if listing.others:
        warn(f"{settings.inputs}: {listing.others} files are not named like images and are left alone")
    if settings.labels == "cluster":
        return 0
    names = {photo.identity for photo in listing.photos} - {""}
    if len(names) < 2:
        says = f"all of {next(iter(names))}" if names else "and nothing says of whom"
        problem = f"{len(listing.photos)} photographs, {says}; training swaps between people and needs two"
        mend = "Give a folder for each person, a table of labels (labels=table), or let them be found (labels=cluster)"
        raise DatasetError(settings.inputs, problem, mend)
    return len(names)
