"""Settings of the commands that look after the output of a swap: `status`, `redrive`, `gc`, `estimate`."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.config.base import Section, StorageConfig


class StatusConfig(Section):
    """Settings of `simswap status`."""

    storage: StorageConfig = StorageConfig()


class RedriveConfig(Section):
    """Settings of `simswap redrive`, besides those of the swap, which are the job's own and can be given anew."""

    reasons: tuple[str, ...] = ()
    """Reasons to do again, as receipts name them (`timed_out`, `store_error`, …); none for all that failed."""


class GcConfig(Section):
    """Settings of `simswap gc`."""

    orphans: bool = False
    """Also remove results that no receipt tells of: inputs that were swapped, and have gone since."""
    storage: StorageConfig = StorageConfig()


class EstimateConfig(Section):
    """Settings of `simswap estimate`."""

    items: PositiveInt
    """Inputs to do that are like those of the trial: images, or videos of about the same length."""
    hours: PositiveFloat | None = None
    """Hours in which it has to be done. None says how long it takes with the workers given."""
    analyse: PositiveInt | None = None
    """Workers of the pool analyse; None takes the trial's."""
    swap: PositiveInt | None = None
    """Workers of the pool swap; None takes the trial's."""
    finish: PositiveInt | None = None
    """Workers of the pool finish; None takes the trial's."""
    cores: PositiveInt | None = None
    """CPUs that all workers share. None takes this machine's for the trial's own workers, else one for each worker."""
    swap_s: PositiveFloat | None = None
    """Seconds that the generator takes for one input on other hardware than the trial's. None takes the trial's."""
    cpu_hour: NonNegativeFloat = 0.0
    """Price of a CPU for an hour, in any currency."""
    gpu_hour: NonNegativeFloat = 0.0
    """Price of a GPU for an hour."""
    storage: StorageConfig = StorageConfig()
