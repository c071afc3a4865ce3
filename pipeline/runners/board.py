"""A small actor between driver, controller and training workers: wishes one way, reports the other."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

STOP = "stop"


class _Board:
    """Keeps the wish to stop, and the reports that the driver has not seen yet."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()
        self._reports: list[dict[str, Any]] = []

    async def stop(self) -> None:
        """Ask the workers to save and end."""
        self._stop.set()

    async def wait_for_stop(self) -> str:
        """Returns when the workers are to stop."""
        await self._stop.wait()
        return STOP

    async def tell(self, report: dict[str, Any]) -> None:
        """Leave a report for the driver."""
        self._reports.append(report)

    async def take(self) -> list[dict[str, Any]]:
        """The reports since the last call."""
        reports, self._reports = self._reports, []
        return reports


Board = ray.remote(num_cpus=0)(_Board)
