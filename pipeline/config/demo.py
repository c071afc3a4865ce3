"""Settings of `simswap demo`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.config.base import Section


class DemoConfig(Section):
    """Settings of `simswap demo`."""

    folder: str = "demo-output"
    """Folder for everything the demo makes."""
    scenes: PositiveInt = 16
    """Images to make, with one to four people each."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who is in them."""
