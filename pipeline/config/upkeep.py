"""Settings of the commands that look after the output of a swap: `status`, `redrive`, `gc`."""

from __future__ import annotations

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
