"""Settings of `simswap prepare`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from pipeline.config.base import (
    Cosine,
    Fraction,
    ImagesConfig,
    PoolConfig,
    RayConfig,
    Section,
    StorageConfig,
    Template,
    TrackingConfig,
    refuse_overlap,
    unit,
)

Degrees = Annotated[float, Field(gt=0.0, le=90.0), unit("degrees")]


class FilterConfig(Section):
    """Which photographs stay out of the set; what stays out is a row with a reason."""

    min_score: Fraction = 0.6
    """Detection score below which a find is too unsure to learn from."""
    min_face_px: NonNegativeFloat = 64.0
    """Shorter side of the face's box in photograph pixels; what is smaller would mostly be enlarged."""
    min_sharpness: NonNegativeFloat = 1.5
    """Part of the crop's finest detail that one more blur takes away: 1 blurred out, 1.6 to 5 in focus, 13 noise."""
    max_yaw: Degrees = 60.0
    """Turn to either side in degrees, estimated from five landmarks; beyond it one eye is hardly seen."""
    max_pitch: Degrees = 45.0
    """Turn up or down in degrees, estimated from five landmarks and less sure than yaw."""
    outlier_cosine: Cosine = 0.2
    """Cosine to the mean of a labelled identity's other photographs below which one shows somebody else; asked where
    an identity has three photographs or more. -1 keeps all."""
    min_photos: PositiveInt = 2
    """Photographs below which an identity is left out: every other batch of training pairs a photograph with another of
    the same person."""


class ClusterConfig(Section):
    """Finding who is who where nothing says so."""

    min_cosine: Cosine = 0.3
    """Mean cosine between two groups of faces from which on they are one person (average linkage). Higher splits people
    into several, lower joins several people into one. 0.3 suits recognisers of photographs, 0.7 the portraits pack."""


class ShardPoolConfig(PoolConfig):
    """The workers; each takes a shard's photographs through reading, finding, aligning, embedding and writing."""

    workers: PositiveInt = 2
    """Worker processes in the pool."""
    items: PositiveInt = 1
    """Shards that a worker takes at a time."""


class ShardRayConfig(RayConfig):
    """Which Ray runs the job."""

    no_progress_timeout_s: PositiveInt = 3600
    """Seconds without progress after which the job gives up; a worker is heard of when a whole shard is done."""


class PrepareConfig(Section):
    """Settings of `simswap prepare`."""

    inputs: str
    """Folder of photographs, searched with its subfolders; every file named like an image is accounted for."""
    output: str
    """Folder for the set; must not overlap `inputs`."""
    models: str
    """insightface pack that finds the faces and embeds them: a folder, or a name that insightface downloads. The set
    trains swappers for this pack's recogniser."""
    overwrite: bool = False
    """Replace a set of another recipe in `output`; shards that the change does not concern are kept."""
    labels: Literal["folders", "table", "cluster"] = "folders"
    """Who is who: by the folder of a photograph, by a `table`, or found by clustering the embeddings."""
    person: Literal["nearest", "topmost"] = "nearest"
    """Folder that names a person with labels=folders: the `nearest` above a photograph (with its path, as in
    train/n000001), or the `topmost` below `inputs`, where a person's photographs lie in folders of their own."""
    table: str | None = None
    """Who is who with labels=table: CSV or Parquet with the columns path and identity, or lines of a path and an
    identity (CelebA's identity_CelebA.txt). Paths are below `inputs`."""
    faces: Literal["main", "all"] = "main"
    """Faces taken of a photograph: the `main` one (area less twice the squared distance from the middle, so that of
    two large ones the one in the middle counts), or `all`, where labels=cluster: a label means one person."""
    crop_size: Annotated[int, Field(ge=32, le=1024), unit("px")] = 224
    """Side of the crops in pixels; the model's."""
    template: Template = "arcface"
    """Alignment of the crops; the model's."""
    crop_format: Literal["jpeg", "png"] = "jpeg"
    """png keeps every value and takes four times the space."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    """Of JPEG crops, always with full chroma; a swapper learns the artefacts of lower ones."""
    photos_per_shard: PositiveInt = 1000
    """Most photographs of one shard: what a worker does at a time, and does again after a kill."""
    seed: NonNegativeInt = 0
    """Decides the order of the photographs, so that every shard mixes identities."""
    storage: StorageConfig = StorageConfig()
    images: ImagesConfig = ImagesConfig()
    filters: FilterConfig = FilterConfig()
    cluster: ClusterConfig = ClusterConfig()
    pool: ShardPoolConfig = ShardPoolConfig()
    ray: ShardRayConfig = ShardRayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_overlap(self.inputs, self.output)
        if "://" in self.output:
            raise ValueError(f"output: {self.output} is no folder of this machine; prepare there and copy the set")
        if (self.labels == "table") != (self.table is not None):
            raise ValueError("table: give one exactly when labels is table")
        if self.faces == "all" and self.labels != "cluster":
            raise ValueError("faces: a label means one person; all needs labels=cluster")
        return self
