"""Every setting with its default, unit and reason.

One closed, frozen tree per job. What holds is: default in the class < YAML file < `section.key=value`.
This module imports neither Ray nor torch, so that wrong settings fail in under a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Policy = Literal["fail", "drop", "blur", "copy"]
Template = Literal["arcface", "ffhq"]
Precision = Literal["float32", "bfloat16", "float16"]
Variant = Literal["inference-224", "inference-512", "trained-224", "trained-512"]


class Section(BaseModel):
    """A closed, frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class ModelConfig(Section):
    """A generator's architecture and pixel convention; travels inside its checkpoint."""

    crop_size: PositiveInt = 224
    """Side S of the aligned crop, pixels; a multiple of 2 to the power of the number of down stages."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Channels at full resolution, then after each stride-2 down stage; the last is the bottleneck's."""
    blocks: PositiveInt = 9
    """Number of ID injection blocks in the bottleneck (the paper uses 9)."""
    embedding_size: PositiveInt = 512
    """Length E of the identity embedding that drives the injection."""
    convention: Literal["unit", "imagenet"] = "unit"
    """`unit`: RGB 0..1 in, (tanh + 1) / 2 out. `imagenet`: ImageNet-normalised in, linear ImageNet-normalised out."""
    template: Template = "arcface"
    """Alignment of the crops: `arcface` (five pose templates) up to 224 px, `ffhq` from 512 px."""

    @model_validator(mode="after")
    def _crop_fits_stages(self) -> Self:
        if len(self.widths) < 2:
            raise ValueError("widths: need at least two entries, full resolution and one down stage")
        step = 2 ** (len(self.widths) - 1)
        if self.crop_size % step:
            fit = max(step, round(self.crop_size / step) * step)
            raise ValueError(f"crop_size: {self.crop_size} is not a multiple of {step}; {fit} would do")
        return self


VARIANTS: dict[Variant, ModelConfig] = {
    "inference-224": ModelConfig(),
    "inference-512": ModelConfig(crop_size=512, widths=(32, 64, 128, 256, 512), template="ffhq"),
    "trained-224": ModelConfig(convention="imagenet"),
    "trained-512": ModelConfig(crop_size=512, widths=(64, 128, 256, 512, 512), convention="imagenet", template="ffhq"),
}
"""The four published shapes of the SimSwap generator."""


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

    mode: Literal["all", "largest", "mapping"] = "all"
    """`all` faces, the `largest` of each image, or only those that look like a reference in `mapping`."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """Reference photograph (or folder of one person's) -> source name: who looks like it becomes that source."""
    min_cosine: Cosine = 0.35
    """Cosine to the reference above which a face counts as that person, in mode `mapping`."""

    @model_validator(mode="after")
    def _mapping_fits_mode(self) -> Self:
        if (self.mode == "mapping") != bool(self.mapping):
            raise ValueError("mapping: give pairs of reference: source exactly when mode is mapping")
        return self


class PolicyConfig(Section):
    """What happens to an image that cannot be swapped with certainty."""

    no_face: Policy = "fail"
    """No face found. fail: failed, no result. drop: skipped, no result. blur: all of it blurred. copy: unchanged."""
    low_confidence: Policy = "fail"
    """A selected face is not sure enough. fail, drop: no result at all. blur: that face blurred. copy: it stays."""


class MaskConfig(Section):
    """Which part of a crop replaces the frame, in crop space."""

    erode: Annotated[float, Field(ge=0.0, le=0.45)] = 0.05
    """Width of the rim that stays the frame's, as a part of the crop's side."""
    feather: Annotated[float, Field(ge=0.0, le=0.45)] = 0.10
    """Width of the soft edge inside that rim, as a part of the crop's side."""
    model: str | None = None
    """ONNX network from crops [B,3,s,s] (normalised RGB) to class logits [B,C,s,s] or a probability [B,1,s,s]."""
    keep_classes: tuple[int, ...] = (1, 2, 3, 4, 5, 10, 11, 12, 13)
    """Classes of `model` that are replaced: skin, brows, eyes, nose, mouth, lips in the order of CelebAMask-HQ."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean that `model` wants subtracted from 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """RGB standard deviation that `model` wants divided by."""
    softness: Annotated[float, Field(ge=0.0, le=0.2)] = 0.02
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


class PoolConfig(Section):
    """One pool of workers of the job."""

    workers: PositiveInt = 1
    """Worker processes in the pool."""
    cpus: NonNegativeFloat = 0.5
    """CPUs that each worker reserves in Ray; the pools' sum must stay below the cluster's."""
    gpus: NonNegativeFloat = 0.0
    """GPUs, or the part of one, that each worker reserves."""
    threads: PositiveInt = 1
    """Threads that the arithmetic of one worker uses."""
    items: PositiveInt = 8
    """Inputs that a worker takes at a time."""


class PoolsConfig(Section):
    """The three pools: analyse (decode, detect, align, embed) -> swap (generator) -> finish (blend, encode, write)."""

    analyse: PoolConfig = PoolConfig()
    """CPU work before the generator."""
    swap: PoolConfig = PoolConfig(workers=2)
    """The generator. Two workers suit two cores without a GPU; with GPUs one worker a GPU: workers=1 gpus=1."""
    finish: PoolConfig = PoolConfig()
    """CPU work after the generator."""


class RayConfig(Section):
    """Which Ray runs the job."""

    address: str | None = None
    """Address of a running cluster; None starts an embedded one on this machine."""
    num_cpus: PositiveInt | None = None
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
    """Tracking server or database; None takes MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in this folder."""
    experiment: str = "simswap-ray"
    """Experiment that the run is filed under."""
    run_name: str | None = None
    """Name of the run; None lets MLflow choose."""
    contact_sheet: Annotated[int, Field(ge=0, le=64)] = 12
    """Pairs (original | result) on the contact sheet; 0 makes none."""


class SwapConfig(Section):
    """Settings of `simswap swap`."""

    inputs: str
    """Folder of images, searched with its subfolders; every regular file in it gets a receipt."""
    output: str
    """Folder for the results, in the same tree; must not overlap `inputs`."""
    source: str
    """Who the faces become: a photograph, a folder of one person's photographs, a folder of such folders (one
    per person), or a Parquet table of (name, embedding)."""
    checkpoint: str | None = None
    """Generator checkpoint (.safetensors) from `simswap import-checkpoint`; only `swapper.passthrough` does without."""
    models: str | None = None
    """insightface pack: a folder, or a name that insightface downloads. None only where tables bring all embeddings."""
    overwrite: bool = False
    """Replace the results of a job of another recipe in `output`; results of the same recipe are always kept."""
    max_failed_fraction: Fraction = 0.5
    """Part of the inputs that may fail before the job as a whole counts as failed (exit code 1)."""
    images: ImagesConfig = ImagesConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    selection: SelectionConfig = SelectionConfig()
    policy: PolicyConfig = PolicyConfig()
    mask: MaskConfig = MaskConfig()
    swapper: SwapperConfig = SwapperConfig()
    pools: PoolsConfig = PoolsConfig()
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _paths_do_not_overlap(self) -> Self:
        inputs, output = Path(self.inputs).resolve(), Path(self.output).resolve()
        if inputs == output or output.is_relative_to(inputs) or inputs.is_relative_to(output):
            raise ValueError(f"output: {self.output} overlaps inputs {self.inputs}; choose a folder beside it")
        if self.models is None and self.analysis.read_table is None:
            raise ValueError("models: needed to find faces; give an insightface pack's name or folder")
        if self.checkpoint is None and not self.swapper.passthrough:
            raise ValueError(
                "checkpoint: needed; make one with simswap import-checkpoint, or set swapper.passthrough=true"
            )
        return self


class DemoConfig(Section):
    """Settings of `simswap demo`."""

    folder: str = "demo-output"
    """Folder for everything the demo makes."""
    scenes: PositiveInt = 16
    """Images to make, with one to four people each."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who is in them."""


class ImportConfig(Section):
    """Settings of `simswap import-checkpoint`."""

    variant: Variant
    """Which published shape and pixel convention the file has: two of them share their keys, so it must be said."""
    encoder: str
    """insightface pack whose recogniser trained the generator: a folder, or a name that insightface downloads."""


class ExportConfig(Section):
    """Settings of `simswap export`."""

    tolerance: PositiveFloat = 1e-3
    """Largest absolute difference (RGB 0..1) to torch that the exported network may show in onnxruntime."""
