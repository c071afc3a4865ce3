"""Settings of `simswap swap`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipeline.config.base import (
    Cosine,
    FaultsConfig,
    Fraction,
    ImagesConfig,
    PoolConfig,
    Precision,
    RayConfig,
    Section,
    ShardsConfig,
    StorageConfig,
    TrackingConfig,
    refuse_overlap,
    unit,
)
from pipeline.config.video import VideosConfig

Policy = Literal["fail", "drop", "blur", "copy"]
Rim = Annotated[float, Field(ge=0.0, le=0.45), unit("crop sides")]


class AnalysisConfig(Section):
    """Finding faces and who they are."""

    min_score: Fraction = 0.5
    """Detection score below which a find is not a face at all."""
    confident_score: Fraction = 0.5
    """Detection score below which a face is *not sure enough* and `policy.low_confidence` decides."""
    min_face_px: NonNegativeFloat = 0.0
    """Shorter side of the box in pixels below which a face is *not sure enough*; 0 takes every size."""
    max_faces: PositiveInt = 500
    """Faces in one image above which it is refused: its crops have to fit a worker's memory."""
    read_table: str | None = None
    """Analysis table (Parquet file or folder) to read instead of detecting; `write_table` or another tool wrote it."""
    write_table: str | None = None
    """Folder to write the analysis table to, for later runs with another checkpoint or source."""

    @model_validator(mode="after")
    def _scores_in_order(self) -> Self:
        if self.confident_score < self.min_score:
            raise ValueError(
                f"confident_score: {self.confident_score} is below min_score {self.min_score}; "
                f"{self.min_score} or more would do"
            )
        if self.read_table is not None and self.write_table is not None:
            raise ValueError("write_table: nothing to write while read_table is given; set one of the two")
        return self


class SelectionConfig(Section):
    """Which faces are swapped, and into whom."""

    mode: Literal["all", "largest", "mapping", "anonymise"] = "all"
    """`all` faces, the `largest` of each image, or only those that look like a reference in `mapping`.
    `anonymise`: all, and every person becomes one and the same source in the whole dataset (section `anonymise`)."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """Reference photograph (or folder of one person's) -> source name: who looks like it becomes that source."""
    min_cosine: Cosine = 0.35
    """Cosine to the reference above which a face counts as that person, in mode `mapping`."""

    @model_validator(mode="after")
    def _mapping_fits_mode(self) -> Self:
        if (self.mode == "mapping") != bool(self.mapping):
            raise ValueError("mapping: give pairs of reference: source exactly when mode is mapping")
        return self


class AnonymiseConfig(Section):
    """Giving everybody a stand-in, in mode `anonymise`."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who gets which source; who has got one keeps it in all later runs on the same output."""
    people: Literal["faces", "folders"] = "faces"
    """Who is who. faces: by likeness alone. folders: each folder of the inputs is one person (VGGFace2, LFW and the
    like): the largest face of everything in it, and nobody of another folder; other faces are told by likeness."""
    same_person: Cosine = 0.4
    """Mean cosine from which on people of two inputs are one person; a source as near as that is nobody's stand-in."""
    hold_s: NonNegativeFloat = 1.0
    """How long the place of a face stays blurred in a shot before it was first and after it was last seen."""
    leak_cosine: Cosine = 0.4
    """Cosine to an owner's face from which on a face found in a result counts as still theirs: a leak."""
    check: bool = True
    """Look for leaks: find and embed all faces of every result again."""


class PolicyConfig(Section):
    """What happens to an input that cannot be swapped with certainty."""

    no_face: Policy = "fail"
    """No face found. fail: failed, no result. drop: skipped, no result. blur: all of it blurred. copy: unchanged."""
    low_confidence: Policy = "fail"
    """A selected face is not sure enough. fail, drop: no result at all. blur: that face blurred. copy: it stays."""
    leak: Policy = "fail"
    """A face in an anonymised result looks like its owner. fail, drop: no result. blur: blurred. copy: only told."""


class MaskConfig(Section):
    """Which part of a crop replaces the frame, in crop space."""

    erode: Rim = 0.05
    """Width of the rim that stays the frame's, as a part of the crop's side."""
    feather: Rim = 0.10
    """Width of the soft edge inside that rim, as a part of the crop's side."""
    model: str | None = None
    """ONNX network from crops [B,3,s,s] (normalised RGB) to class logits [B,C,s,s] or a probability [B,1,s,s]."""
    keep_classes: tuple[int, ...] = (1, 2, 3, 4, 5, 10, 11, 12, 13)
    """Classes of `model` that are replaced: skin, brows, eyes, nose, mouth, lips in the order of CelebAMask-HQ."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean that `model` wants subtracted from 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """RGB standard deviation that `model` wants divided by."""
    softness: Annotated[float, Field(ge=0.0, le=0.2), unit("crop sides")] = 0.02
    """Width of the erosion and blur of `model`'s mask, as a part of the crop's side."""

    @model_validator(mode="after")
    def _rim_leaves_a_middle(self) -> Self:
        if self.erode + self.feather >= 0.5:
            raise ValueError(f"feather: with erode {self.erode} it must be below {0.5 - self.erode:.2f}")
        return self


class SwapperConfig(Section):
    """Running the generator."""

    batch_size: PositiveInt = 8
    """Crops in one call of the generator; 32 or more on a GPU."""
    precision: Precision = "float32"
    """Arithmetic of the generator; bfloat16 is faster on recent GPUs and on CPUs with AMX or AVX512-BF16."""
    device: str = "auto"
    """`auto` (CUDA where the worker has one, else CPU), `cpu`, `cuda` or `cuda:N`."""
    passthrough: bool = False
    """Swap nothing and paste each crop back as it was: shows what alignment and pasting alone cost."""


class SwapPoolConfig(PoolConfig):
    """The generator's workers. Two suit two cores without a GPU; with GPUs one worker a GPU: workers=1 gpus=1."""

    workers: PositiveInt = 2
    """Worker processes in the pool."""


class PoolsConfig(Section):
    """The three pools: analyse (decode, detect, align, embed) -> swap (generator) -> finish (blend, encode, write)."""

    analyse: PoolConfig = PoolConfig()
    """CPU work before the generator."""
    swap: SwapPoolConfig = SwapPoolConfig()
    """The generator."""
    finish: PoolConfig = PoolConfig()
    """CPU work after the generator."""


class SwapConfig(Section):
    """Settings of `simswap swap`."""

    inputs: str
    """Folder of images and videos, searched with its subfolders; every regular file in it gets a receipt. A path, or
    an address: `s3://bucket/prefix` (AWS_ENDPOINT_URL for other stores than Amazon's), `gs://`, `az://` with adlfs."""
    output: str
    """Folder for the results, in the same tree, a path or an address; must not overlap `inputs`."""
    source: str
    """Who the faces become: a photograph, a folder of one person's photographs, a folder of such folders (one
    per person), or a Parquet table of (name, embedding). A path or an address, as `checkpoint` and `models`: what
    is in a bucket is copied once to each machine that needs it (SIMSWAP_CACHE, else ~/.cache/simswap-ray)."""
    checkpoint: str | None = None
    """Generator checkpoint (.safetensors) from `simswap import-checkpoint`; only `swapper.passthrough` does without."""
    models: str | None = None
    """insightface pack: a folder, its address, or a name that insightface downloads. None only where tables bring all
    embeddings."""
    overwrite: bool = False
    """Replace the results of a job of another recipe in `output`; results of the same recipe are always kept."""
    max_failed_fraction: Fraction = 0.5
    """Part of the inputs that may fail before the job as a whole counts as failed (exit code 1)."""
    layout: Literal["auto", "files", "shards"] = "auto"
    """files: images and videos below `inputs`. shards: tars (WebDataset, with the side files of img2dataset) or
    Parquet files with image bytes; the results are shards of the same names. auto: shards if there are such, and no
    images or videos beside them."""
    pairs: str | None = None
    """Table (CSV, JSONL, Parquet) with the columns target (below `inputs`), source (a photograph, video or folder
    below `source`, or a row of that table), and where wanted face (all, largest, or a number from the left) and
    output: each row one result. Or a split file of FaceForensics++ (JSON)."""
    shards: ShardsConfig = ShardsConfig()
    storage: StorageConfig = StorageConfig()
    images: ImagesConfig = ImagesConfig()
    videos: VideosConfig = VideosConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    selection: SelectionConfig = SelectionConfig()
    anonymise: AnonymiseConfig = AnonymiseConfig()
    policy: PolicyConfig = PolicyConfig()
    mask: MaskConfig = MaskConfig()
    swapper: SwapperConfig = SwapperConfig()
    pools: PoolsConfig = PoolsConfig()
    faults: FaultsConfig = FaultsConfig()
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _paths_do_not_overlap(self) -> Self:
        refuse_overlap(self.inputs, self.output)
        if self.models is None and self.analysis.read_table is None:
            raise ValueError("models: needed to find faces; give an insightface pack's name or folder")
        if self.checkpoint is None and not self.swapper.passthrough:
            raise ValueError(
                "checkpoint: needed; make one with simswap import-checkpoint, or set swapper.passthrough=true"
            )
        return self

    @model_validator(mode="after")
    def _pairs_say_who_becomes_whom(self) -> Self:
        if self.pairs is not None and (self.layout == "shards" or self.selection.mode in ("anonymise", "mapping")):
            raise ValueError("pairs: says itself who becomes whom, of files; use selection.mode=all, layout=files")
        return self

    @model_validator(mode="after")
    def _anonymising_is_fail_closed(self) -> Self:
        if self.selection.mode == "anonymise" and self.models is None:
            raise ValueError("models: needed to tell people apart and to check results in mode anonymise; give a pack")
        if self.selection.mode == "anonymise" and self.policy.low_confidence == "copy":
            raise ValueError("policy.low_confidence: copy would let faces through in mode anonymise; blur would do")
        return self
