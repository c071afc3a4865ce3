"""Settings of `simswap demo` and `simswap portraits`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.config.base import Section


class DemoConfig(Section):
    """Settings of `simswap demo`."""

    folder: str = "demo-output"
    """Folder for everything the demo makes."""
    people: Annotated[int, Field(ge=8)] = 60
    """People to draw for training."""
    photos: Annotated[int, Field(ge=2)] = 4
    """Photographs of each of them."""
    steps: PositiveInt = 120
    """Steps of training, from the generator that comes with the program."""
    scenes: PositiveInt = 16
    """Images to swap, with one to four people each."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who is in them."""


class PortraitsConfig(Section):
    """Settings of `simswap portraits`."""

    people: PositiveInt = 2000
    """People to draw."""
    photos: PositiveInt = 5
    """Photographs of each, with hair, clothes, pose, expression and light of their own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides who they are: sets of two seeds share nobody."""
    processes: PositiveInt = 1
    """Processes that draw at the same time; a photograph takes one about 25 ms."""
