"""Settings of `simswap evaluate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.config.base import RayConfig, Section, TrackingConfig, unit


class EvaluatorConfig(Section):
    """The worker in Ray."""

    cpus: Annotated[NonNegativeFloat, unit("CPUs")] = 1.0
    """CPUs that it reserves."""
    gpus: Annotated[NonNegativeFloat, unit("GPUs")] = 0.0
    """GPUs, or the part of one, that it reserves."""
    threads: PositiveInt = 1
    """Threads of its arithmetic on the CPU."""
    device: str = "auto"
    """`auto` (CUDA where the worker has one, else CPU), `cpu`, `cuda`."""


class EvaluateConfig(Section):
    """Settings of `simswap evaluate`."""

    data: str
    """Prepared set (`simswap prepare`) of the people to swap with each other: a folder or an address."""
    checkpoint: str
    """Generator to look at (.safetensors)."""
    models: str
    """insightface pack that trained the generator and prepared the set: a folder, or a name."""
    judge: str
    """insightface pack whose recogniser says who is who: another recogniser than that of `models`, whose figures
    flatter."""
    output: str
    """Folder or address for figures and picture."""
    held_out: PositiveInt | None = None
    """People that a training on this very set kept from the generator (its `validation.identities`); which ones follows
    from their names. None takes everybody, for a set that it was not trained on."""
    pairs: PositiveInt = 1000
    """(target, source) pairs to swap, everybody about equally often."""
    baseline: str | None = None
    """`evaluation.json` of another generator to compare with; refused where its protocol is another."""
    grid: tuple[Annotated[int, Field(ge=1, le=16)], Annotated[int, Field(ge=1, le=16)]] = (4, 6)
    """Sources x targets of the picture."""
    batch_size: PositiveInt = 16
    """Crops in one call of the networks."""
    worker: EvaluatorConfig = EvaluatorConfig()
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()
