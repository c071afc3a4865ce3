"""Everything that is decided before the first worker starts: what to do, with what, and whether it can work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.config import ModelConfig, StorageConfig, SwapConfig
from pipeline.errors import CheckpointError, ConfigError, OutputError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.masks import MaskModel
from pipeline.faces.packs import file_digest, find_pack, licence_note
from pipeline.faces.selection import Reference
from pipeline.faces.sources import embed_person, load_named, load_sources
from pipeline.faces.table import AnalysisTable
from pipeline.media.addresses import absolute, split_address
from pipeline.media.inputs import InputFile
from pipeline.media.layouts import known_count
from pipeline.media.store import store_at
from pipeline.media.video import is_video
from pipeline.media.video_encoding import SOFTWARE, check_encoder
from pipeline.model.checkpoint import CheckpointHeader, EncoderReference, read_header
from pipeline.runners.books import read_job, refuse_another_recipe
from pipeline.runners.progress import Progress, say, warn
from pipeline.runners.recipe import DECIDES_RESULTS, named_sources, recipe_of
from pipeline.runners.work_left import left_of, list_work
from pipeline.swapping import Plan
from pipeline.swapping.receipts import ReceiptBook
from pipeline.types import Identity


@dataclass(frozen=True, slots=True)
class Job:
    """A plan and the work left of it.

    Attributes:
        plan: what the stages share.
        book: the output's receipts.
        layout: `files` or `shards`.
        items: all inputs that were listed: files, or shards.
        todo: those without a receipt of this recipe, as they are now.
        paths: where the inputs of pairs lie, by their results' names; empty without pairs.
        data_digest: over name, size and modification time of all inputs.
        model_digest: sha256 of the model pack's networks; empty without a pack.
    """

    plan: Plan
    book: ReceiptBook
    layout: Literal["files", "shards"]
    items: frozenset[str]
    todo: list[InputFile]
    paths: Mapping[str, str]
    data_digest: str
    model_digest: str


def plan_job(settings: SwapConfig) -> Job:
    """Check everything that can be checked, and list what is left to do. Writes nothing.

    Raises:
        FatalError: whatever would stop the job later, now.
    """
    plan = plan_of(settings)
    settings, recipe = plan.settings, plan.recipe
    plan.originals().check("inputs")
    plan.output().check("output", writable=True)
    book = ReceiptBook(plan.output())
    known = _check_output(settings, book, recipe)
    listing = list_work(plan)
    if known is not None and known.get("layout", listing.layout) != listing.layout and not book.is_empty():
        problem = f"holds the results of layout={known['layout']}, now it is {listing.layout}"
        raise OutputError(settings.output, problem, "Choose another output, or set layout")
    files = listing.files
    if listing.layout == "files":
        _check_films(settings, files)
    elif settings.models is not None:
        check_encoder(settings.videos.encoder)  # there may be videos in them
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.item}\0{file.size_bytes}\0{file.mtime_ns}\n".encode())
    todo = left_of(plan, book, listing.layout, files)
    if settings.analysis.write_table and len(todo) < len(files):
        warn(f"{len(files) - len(todo)} inputs have their receipt already and will be missing from the analysis table")
    items = frozenset(file.item for file in files)
    paths = {file.item: file.path for file in files if file.path}
    return Job(plan, book, listing.layout, items, todo, paths, digest.hexdigest(), _model_digest(settings))


def refreshed(job: Job) -> Job:
    """The same job without what another one has done since it was planned."""
    return replace(job, todo=left_of(job.plan, job.book, job.layout, job.todo))


def plan_of(settings: SwapConfig) -> Plan:
    """Everything the stages share, checked; whatever the inputs and the output are.

    Raises:
        FatalError: models, checkpoint, sources or tables that do not work together.
    """
    settings = with_absolute_paths(settings)
    header = _header(settings)
    _check_encoder(settings, header)
    _check_table(settings)
    if settings.mask.model:
        MaskModel(settings.mask)
    sources, references = _people(settings, header)
    return Plan(settings, header, sources, references, recipe_of(settings, header, _model_digest(settings)))


def _model_digest(settings: SwapConfig) -> str:
    return find_pack(settings.models).digest if settings.models else ""


def with_absolute_paths(settings: SwapConfig) -> SwapConfig:
    """Workers have working folders of their own."""

    def here_or_none(path: str | None) -> str | None:
        return None if path is None else absolute(path)

    table = settings.analysis
    here = {
        name: here_or_none(getattr(settings, name)) for name in ("inputs", "output", "source", "checkpoint", "pairs")
    }
    if settings.models is not None and Path(settings.models).expanduser().is_dir():
        here["models"] = absolute(settings.models)
    sections = {
        "analysis": table.model_copy(
            update={"read_table": here_or_none(table.read_table), "write_table": here_or_none(table.write_table)}
        ),
        "mask": settings.mask.model_copy(update={"model": here_or_none(settings.mask.model)}),
    }
    return settings.model_copy(update=here | sections)


def describe_plan(job: Job) -> dict[str, Any]:
    """What `--dry-run` prints."""
    settings = job.plan.settings
    return {
        "inputs": settings.inputs,
        "layout": job.layout,
        "inputs_found": len(job.items),
        "inputs_left": len(job.todo),
        "videos_left": sum(is_video(file.item) for file in job.todo),
        "bytes_left": sum(file.size_bytes for file in job.todo),
        **_images_in_shards(job),
        "output": settings.output,
        "checkpoint": settings.checkpoint,
        "checkpoint_sha256": job.plan.header.digest,
        "model": job.plan.header.config.model_dump(mode="json"),
        "models": settings.models,
        "selection": settings.selection.mode,
        "sources": [
            {"name": s.name, "photos": len(s.photos), "outliers": list(s.outliers)} for s in job.plan.sources[:100]
        ],
        "mapping": {path: job.plan.sources[r.source].name for path, r in _mapping(job.plan)},
        "pools": settings.pools.model_dump(mode="json"),
        "recipe": job.plan.recipe,
    }


def _images_in_shards(job: Job) -> dict[str, int]:
    """What is known of the images in shards without opening them."""
    if job.layout == "files":
        return {}
    images, unknown = known_count(job.plan.originals(), job.todo)
    return {"images_left": images, "shards_of_unknown_size": unknown}


def _mapping(plan: Plan) -> Iterator[tuple[str, Reference]]:
    return zip(plan.settings.selection.mapping, plan.references, strict=True)


def _header(settings: SwapConfig) -> CheckpointHeader:
    """The checkpoint's, or for passthrough without one the ordinary 224 px crop."""
    if settings.checkpoint is not None:
        return read_header(settings.checkpoint)
    return CheckpointHeader(ModelConfig(), EncoderReference("none", ""))


def _encoder(settings: SwapConfig) -> tuple[set[str], str]:
    """Digests and name of the identity encoder that the embeddings of this job come from."""
    if settings.models is not None:
        recogniser = find_pack(settings.models).recogniser
        return {file_digest(recogniser)}, Path(recogniser).name
    table = str(settings.analysis.read_table)
    return AnalysisTable(table, settings.storage).encoder_digests(), table


def _check_encoder(settings: SwapConfig, header: CheckpointHeader) -> None:
    """A generator understands only the embeddings it was trained with."""
    digests, name = _encoder(settings)
    if settings.models is not None:
        say("models", message=f"{settings.models}: {licence_note(find_pack(settings.models))}")
    if not settings.swapper.passthrough and digests != {header.encoder.digest}:
        problem = f"was trained with identity encoder {header.encoder.name}, not {name}"
        raise CheckpointError(str(settings.checkpoint), problem, "Set models to the pack that trained it")


def _check_table(settings: SwapConfig) -> None:
    """A table holds the embeddings of one encoder: this job's."""
    table = settings.analysis.read_table or settings.analysis.write_table
    if table is None or not _is_there(table, settings.storage):
        if settings.analysis.read_table is not None:
            raise ConfigError(str(table), "no such analysis table, or an empty one", "Set analysis.read_table to one")
        return
    held = AnalysisTable(table, settings.storage).encoder_digests()
    if held and settings.models is not None and held != _encoder(settings)[0]:
        raise ConfigError(
            table, "holds embeddings of another identity encoder", "Choose another table, or analyse again"
        )


def _people(settings: SwapConfig, header: CheckpointHeader) -> tuple[tuple[Identity, ...], tuple[Reference, ...]]:
    model = header.config
    analyser = None
    if settings.models is not None:
        analyser = FaceAnalyser(settings.models, model.template, model.crop_size, settings.analysis)
    sources = tuple(_sources(settings, analyser))
    for source in sources:
        if len(source.embedding) != model.embedding_size and not settings.swapper.passthrough:
            raise ConfigError(
                settings.source, f"embedding of {len(source.embedding)} numbers, the model takes {model.embedding_size}"
            )
    if settings.selection.mapping and analyser is None:
        raise ConfigError("selection.mapping", "references need a model pack to be looked for", "Set models")
    names = [source.name for source in sources]
    references = []
    for path, name in settings.selection.mapping.items():
        if name not in names:
            mend = f"Known: {', '.join(names[:20])}. For several people, source is a folder with a folder for each"
            raise ConfigError("selection.mapping", f"no source named {name!r}", mend)
        if analyser is not None:
            person = embed_person(path, analyser, settings.images, warn)
            references.append(Reference(person.embedding, names.index(name)))
    return sources, tuple(references)


def _sources(settings: SwapConfig, analyser: FaceAnalyser | None) -> Iterator[Identity]:
    if settings.pairs is None:
        yield from load_sources(settings.source, analyser, settings.images, warn)
        return
    names = named_sources(settings.pairs)
    with Progress("sources", len(names)) as progress:
        for identity in load_named(settings.source, names, analyser, settings.images, warn):
            yield identity
            progress.advance(1, {})


def _check_output(settings: SwapConfig, book: ReceiptBook, recipe: str) -> dict[str, Any] | None:
    """An output belongs to one recipe, and to jobs; gives the record of the job there."""
    known = read_job(settings.output, "swap", settings.storage)
    if known is not None and known.get("recipe") != recipe and not book.is_empty() and not settings.overwrite:
        names = ["source", "checkpoint", "models", *DECIDES_RESULTS, "swapper.precision", "swapper.passthrough"]
        refuse_another_recipe(settings.output, known, settings.model_dump(mode="json"), names)
    return known


def _check_films(settings: SwapConfig, files: list[InputFile]) -> None:
    films = [file.item for file in files if is_video(file.item)]
    if not films:
        return
    name = check_encoder(settings.videos.encoder)
    if settings.videos.encoder.hardware and name == SOFTWARE[settings.videos.encoder.codec]:
        warn(f"videos.encoder.hardware: this machine has no {settings.videos.encoder.codec} encoder; {name} is used")
    if settings.models is None:
        raise ConfigError("models", f"needed to find faces in videos such as {films[0]}", "Give an insightface pack")


def _is_there(table: str, storage: StorageConfig) -> bool:
    """Whether there is a file, or a folder with something in it."""
    folder, name = split_address(table)
    return store_at(folder, storage).stat(name) is not None or not store_at(table, storage).is_empty()
