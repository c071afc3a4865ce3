"""Settings of `simswap train`. The defaults are the paper's."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.config.base import Fraction, RayConfig, Section, TrackingConfig, unit
from pipeline.config.model import ModelConfig

Change = Annotated[float, Field(ge=0.0, lt=1.0), unit("fraction")]


class LossConfig(Section):
    """Weights of the loss terms; a term of weight 0 is not computed."""

    identity: NonNegativeFloat = 10.0
    """1 - cosine of the result's embedding to the source's (the reference's trainer: 30)."""
    reconstruction: NonNegativeFloat = 10.0
    """L1 of result to target, where both show the same person."""
    landmarks: NonNegativeFloat = 0.0
    """Distance of the result's landmarks to the target's, in distances of the eyes, where both show the same person; by
    the landmark network of `models`. It puts features in their places where a disguise has moved them. Ours; the paper
    has none."""
    adversarial: NonNegativeFloat = 1.0
    """Hinge loss against the discriminator."""
    weak_feature_matching: NonNegativeFloat = 10.0
    """L1 of discriminator features from `first_layer` on."""
    first_layer: NonNegativeInt = 3
    """Layer m of the discriminator, counted from 0, from which on features are matched: shallower ones hold texture
    and would pull the target's identity back."""
    gradient_penalty: NonNegativeFloat = 1e-5
    """(|gradient of the discriminator between target and result| - 1) squared (the reference's trainer: 0)."""
    gradient_penalty_every: PositiveInt = 1
    """Steps between gradient penalties, which then weigh as much more; 16 costs a discriminator almost nothing."""


class DiscriminatorConfig(Section):
    """Who tells results from photographs."""

    kind: Literal["patch", "projected"] = "patch"
    """`patch`: the paper's, trained from nothing. `projected`: heads on the features of a frozen network."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Channels of the layers of stride 2 of a patch discriminator."""
    scales: PositiveInt = 2
    """Sizes at which a patch discriminator looks: full, half, quarter, …"""
    backbone: str | None = None
    """Frozen network of `projected`: an ONNX file, or a torch.export archive (.pt2) that returns its feature maps."""
    feature_maps: tuple[str, ...] = ()
    """Names of the tensors of an ONNX backbone to look at, shallow to deep; empty takes the graph's outputs."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean that the backbone wants subtracted from 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """RGB standard deviation that the backbone wants divided by."""
    projection_width: PositiveInt = 64
    """Channels that the frozen random 1x1 mixing of `projected` gives each feature map."""

    @model_validator(mode="after")
    def _projected_has_a_backbone(self) -> Self:
        if self.kind == "projected" and self.backbone is None:
            raise ValueError("backbone: needed by kind=projected; give an ONNX file or a .pt2 archive of a classifier")
        return self

    def feature_layers(self) -> int | None:
        """Layers that weak feature matching can choose from; None where only the backbone's file can tell."""
        return len(self.widths) + 1 if self.kind == "patch" else len(self.feature_maps) or None


class OptimiserConfig(Section):
    """Adam, once for the generator and once for the discriminator."""

    lr_generator: PositiveFloat = 4e-4
    """Learning rate of the generator at its highest."""
    lr_discriminator: PositiveFloat = 4e-4
    """Learning rate of the discriminator at its highest."""
    betas: tuple[Fraction, Fraction] = (0.0, 0.999)
    """Decay of Adam's first and second moment (the reference's trainer: 0, 0.99)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rates rise linearly from nothing."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rates fall from the end of the warm-up to the last step."""
    final_fraction: Fraction = 0.0
    """Part of the learning rates that is left at the last step of a linear or cosine decay."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of a network's gradient; longer ones are shortened to it. None clips nothing."""


class AugmentationConfig(Section):
    """Changes to target crops that keep the identity; drawn from seed and position: a resumed run repeats them."""

    flip: Fraction = 0.5
    """Part of the crops that are mirrored."""
    brightness: Change = 0.0
    """Largest relative change of brightness."""
    contrast: Change = 0.0
    """Largest relative change of contrast."""
    saturation: Change = 0.0
    """Largest relative change of saturation."""
    rotate_degrees: Annotated[float, Field(ge=0.0, le=30.0)] = 0.0
    """Largest rotation about the centre, either way."""
    scale: Annotated[float, Field(ge=0.0, le=0.3), unit("fraction")] = 0.0
    """Largest relative change of size."""
    shift: Annotated[float, Field(ge=0.0, le=0.2), unit("crop sides")] = 0.0
    """Largest move along each axis, as a part of the crop's side."""


class DisguiseConfig(Section):
    """Changes to the faces that the generator is given where source and target are one person, and has to undo.

    It learns these features from the source's identity instead of copying them. Ours; the paper has none.
    """

    tone: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Largest change of the skin's tone; 1 goes all the way from dark to light or back."""
    shape: Fraction = 0.0
    """How far eyes, brows, nose and mouth are moved, sized and slanted: at 1 by about what two people differ by. The
    crops are aligned anew by the changed landmarks."""
    tint: Annotated[float, Field(ge=0.0, le=1.5)] = 0.0
    """Largest change of how far the colours of eyes, brows and lips stand out from the skin; 0.7 halves or doubles."""
    own_swaps: Fraction = 0.0
    """Part of these crops that is given swapped to a stranger by the generator's running average instead, and has to
    be swapped back (back-translation): a disguise in everything that the generator has learnt to change."""


class FeedConfig(Section):
    """How samples reach the workers."""

    window_shards: PositiveInt = 8
    """Shards whose samples are shuffled together and kept in a loader's memory: more mix better and take more."""
    same_identity_every: PositiveInt = 2
    """Of so many batches one pairs every target with another photograph of the same person (the paper alternates: 2);
    1 makes every batch such a one, which teaches no swapping."""
    loaders: PositiveInt = 1
    """Loader processes of each training worker."""
    loader_cpus: Annotated[NonNegativeFloat, unit("CPUs")] = 0.25
    """CPUs that each loader reserves in Ray."""
    prefetch_batches: PositiveInt = 4
    """Batches that wait ready before each training worker."""
    augmentation: AugmentationConfig = AugmentationConfig()
    disguise: DisguiseConfig = DisguiseConfig()


class TrainerConfig(Section):
    """The optimisation itself."""

    steps: PositiveInt = 400_000
    """Optimiser steps in all (the paper: 400,000 to 800,000)."""
    global_batch_size: PositiveInt = 16
    """Samples of one optimiser step, over all workers."""
    micro_batch_size: PositiveInt | None = None
    """Samples of one pass through the networks on one worker: smaller ones take less memory, and their gradients are
    accumulated. None takes a worker's whole share at once."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Arithmetic of the networks' passes (autocast); weights and optimisers stay float32. `auto` is bfloat16 where a
    worker's GPU or CPU (AMX, AVX512-BF16) computes in it; elsewhere it is emulated and four times slower."""
    channels_last: bool = True
    """Memory layout that convolutions are fastest in."""
    compile: bool = False
    """torch.compile for generator and discriminator: minutes at the start, faster steps after."""
    cuda_graphs: bool = False
    """Record the work of a step on the GPU once and replay it: for small models at small sizes, whose kernels take
    longer to launch than to run. One worker; on a CPU it changes nothing."""
    activation_checkpointing: bool = False
    """Forget the injection blocks' activations and compute them again going back: for 512 px and more."""
    sync_batch_norm: bool = True
    """BatchNorm over all workers, so that N workers are one with N times the batch; off is faster on slow networks."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the generator's running average, which validation and checkpoints show; 0 shows the latest weights."""
    seed: NonNegativeInt = 0
    """Decides initial weights, order and augmentation."""
    device: str = "auto"
    """`auto` (CUDA where the worker has one, else CPU), `cpu`, `cuda`."""


class CheckpointsConfig(Section):
    """What is saved while training."""

    every_steps: PositiveInt = 1000
    """Steps between checkpoints: what a kill costs at most."""
    keep: PositiveInt = 3
    """Checkpoints that stay, the latest ones; the best generator is kept beside them."""
    asynchronous: bool = True
    """Copy checkpoints to the output while training goes on."""


class ValidationConfig(Section):
    """Looking at people the generator has not seen, with the averaged weights."""

    every_steps: PositiveInt = 2000
    """Steps between validations; the last step is always validated."""
    identities: PositiveInt = 32
    """People held out from training for it, at most a quarter of all; which ones follows from their names alone."""
    pairs: PositiveInt = 128
    """Held-out (target, source) pairs to swap."""
    judge: str | None = None
    """insightface pack whose recogniser scores identity, and whose detector or landmark network says where features
    are: others than those that training optimises. None takes `models` itself, whose figures flatter."""
    landmarks: bool = True
    """Find the faces of the results and compare their landmarks and pose with the targets'."""
    grid: tuple[Annotated[int, Field(ge=1, le=16)], Annotated[int, Field(ge=1, le=16)]] = (4, 6)
    """Sources x targets of the grid picture."""
    batch_size: PositiveInt = 16
    """Crops in one call of the networks."""


class WorkersConfig(Section):
    """The training workers in Ray."""

    workers: PositiveInt = 1
    """Worker processes; one a GPU."""
    min_workers: PositiveInt | None = None
    """Fewest workers to go on with when nodes are lost (elastic). None waits for all of them."""
    cpus: Annotated[NonNegativeFloat, unit("CPUs")] = 1.0
    """CPUs that each worker reserves."""
    gpus: Annotated[NonNegativeFloat, unit("GPUs")] = 0.0
    """GPUs that each worker reserves, 0 or 1."""
    threads: PositiveInt = 1
    """Threads of one worker's arithmetic on the CPU."""
    max_failures: NonNegativeInt = 3
    """Lost workers after which the run gives up; each time it goes on from the last checkpoint."""

    @model_validator(mode="after")
    def _fewest_first(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers: {self.min_workers} is above workers {self.workers}; {self.workers} would do"
            )
        return self

    def counts(self) -> range:
        """Numbers of workers the run may have."""
        return range(self.min_workers or self.workers, self.workers + 1)


class TrainConfig(Section):
    """Settings of `simswap train`."""

    data: str
    """Prepared set (`simswap prepare`): a folder or an address such as s3://…"""
    output: str
    """Folder or address for checkpoints and the best generator; the same command with the same output continues."""
    models: str
    """insightface pack whose recogniser prepared the set: a folder, or a name that insightface downloads."""
    initial: str | None = None
    """Generator checkpoint (.safetensors) to start from, own or imported: fine-tuning. None starts from nothing."""
    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    feed: FeedConfig = FeedConfig()
    trainer: TrainerConfig = TrainerConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    validation: ValidationConfig = ValidationConfig()
    workers: WorkersConfig = WorkersConfig()
    log_every_steps: PositiveInt = 20
    """Steps between lines of progress and metrics in MLflow; every step is in MLflow."""
    registered_model: str | None = None
    """Name in MLflow's model registry where the best generator gets the alias `candidate`. None registers none."""
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        size, counts = self.trainer.global_batch_size, self.workers.counts()
        if any(size % count for count in counts):
            step = math.lcm(*counts)
            fit = max(step, round(size / step) * step)
            asked = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
            raise ValueError(f"trainer.global_batch_size: {size} cannot be shared by {asked} workers; {fit} would do")
        if self.trainer.cuda_graphs and self.workers.workers > 1:
            raise ValueError("trainer.cuda_graphs: records one worker, not several; false would do")
        layers = self.discriminator.feature_layers()
        if layers is not None and self.losses.weak_feature_matching and self.losses.first_layer >= layers:
            problem = f"{self.losses.first_layer} is beyond the discriminator's {layers} layers"
            raise ValueError(f"losses.first_layer: {problem}; {max(layers - 2, 0)} would do")
        if self.losses.reconstruction and self.feed.same_identity_every == 1 and self.losses.identity:
            raise ValueError("feed.same_identity_every: 1 never swaps anybody; 2 would do")
        return self
