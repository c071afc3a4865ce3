"""Settings of the exact test on procedural portraits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.config.base import Section


class PortraitTestConfig(Section):
    """Settings of `python -m jobs.portrait_test`."""

    checkpoint: str
    """Generator to test (.safetensors), trained on procedural portraits."""
    models: str
    """insightface pack that it was trained with: a folder, or a name that insightface downloads."""
    judge: str
    """insightface pack that scores identity and finds landmarks: another recogniser than the training's."""
    pairs: PositiveInt = 200
    """(target, source) pairs to draw, everybody once: 400 people whom no training with another seed has seen."""
    seed: Annotated[int, Field(ge=0)] = 2106
    """Decides who they are: two seeds share nobody, so it must be none that the training set was drawn with."""
    sheet: str | None = None
    """PNG file for the contact sheet (target, source, result, true swap); None writes none."""
    sheet_pairs: Annotated[int, Field(ge=1, le=64)] = 12
    """Pairs on the contact sheet."""
    batch_size: PositiveInt = 16
    """Crops in one call of the networks."""
    threads: PositiveInt = 1
    """Threads of the arithmetic on the CPU."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else CPU), `cpu`, `cuda`."""
