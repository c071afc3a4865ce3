"""A small actor between a job's driver and its workers: wishes one way, reports the other."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.runners.cluster import job_actor

STOP = "stop"


class Board:
    """Keeps the wish to stop, and the reports that the driver has not seen yet; an actor of the job.

    Where its process dies an empty one goes on: reports are for the eye, and the driver repeats its wish.
    """

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


def open_board() -> Any:
    """A board of this job."""
    return job_actor(Board)
